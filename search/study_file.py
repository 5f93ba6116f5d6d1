"""`study.json`: what a study was begun with, read back."""

import json
from pathlib import Path
from typing import Any

from search.study import StudySpec

STUDY_NAME = "study.json"


class StudyError(ValueError):
    """A study cannot be started or gone on with; the message says why and what to do."""


def read_study(output: Path) -> dict[str, Any]:
    """Reads `study.json`.

    Raises:
        StudyError: if there is none, or it is broken.
    """
    path = output / STUDY_NAME
    try:
        content = json.loads(path.read_text())
    except FileNotFoundError:
        raise StudyError(
            f"{path}: is missing; is this the folder of a study? (A new one is started without "
            "--resume)"
        ) from None
    except (OSError, ValueError) as error:
        raise StudyError(f"{path}: cannot be read ({error})") from None
    if not isinstance(content, dict) or not {"spec", "dataset", "dataset_digest"} <= {*content}:
        raise StudyError(f"{path}: must be as the search wrote it; bring the unchanged file back")
    return content


def check_same_spec(spec: StudySpec, recorded: dict[str, Any], output: Path) -> None:
    """Checks that a study is gone on with under the spec it began with.

    Raises:
        StudyError: naming each key that differs.
    """
    if changed := _changes(spec, recorded):
        raise StudyError(
            f"{output}: a resumed study keeps its spec, but these differ; give the flags it was "
            f"started with, or another --output (only --trials +N and --time-budget +T extend "
            f"it):{changed}"
        )


def check_not_another(spec: StudySpec, output: Path) -> None:
    """Refuses a folder where a study of another spec is recorded: it is not to be gone on with.

    Raises:
        StudyError: naming each key that differs.
    """
    if (output / STUDY_NAME).exists() and (changed := _changes(spec, read_study(output)["spec"])):
        raise StudyError(
            f"{output}: another study is recorded here already; name another folder by --output, "
            f"or give the flags that one was started with, and --resume:{changed}"
        )


def _changes(spec: StudySpec, recorded: dict[str, Any]) -> str:
    """A line for each key whose value differs, five at most; nothing where none does."""
    now = _flat(spec.model_dump(mode="json"))
    then = _flat(StudySpec.from_mapping(recorded).model_dump(mode="json"))
    changed = [
        f"\n  {key}: was {then.get(key)}, is now {now.get(key)}"
        for key in sorted(then.keys() | now.keys())
        if then.get(key) != now.get(key)
    ]
    return "".join(changed[:5])


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    if isinstance(value, dict):
        parts = [_flat(v, f"{prefix}.{k}" if prefix else str(k)) for k, v in value.items()]
        return {key: leaf for part in parts for key, leaf in part.items()}
    return {prefix: value}
