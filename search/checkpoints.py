"""The checkpoints of runs on disk: which may be deleted."""

import shutil
from collections.abc import Collection
from pathlib import Path

from search.events import RunKey

TUNE_FOLDER = "tune"


def run_folder(key: RunKey) -> str:
    """How the names of all folders begin that Tune keeps of a run."""
    return f"{key.number:05d}-{key.replicate:02d}"


def keep_newest(output: Path, key: RunKey, count: int, needed: Collection[str]) -> None:
    """Deletes all but the newest checkpoints of a run, and those that are needed.

    Args:
        output: The study's folder.
        key: The run.
        count: How many of its checkpoints are kept.
        needed: Folders that runs would begin from, relative to `output`.
    """
    folders = sorted((output / TUNE_FOLDER).glob(f"{run_folder(key)}-*/checkpoint_*"))
    for folder in folders[:-count]:
        if folder.relative_to(output).as_posix() not in needed:
            shutil.rmtree(folder, ignore_errors=True)
