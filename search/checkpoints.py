"""The checkpoints of runs on disk: where they may lie, and which may be deleted."""

import os
import shutil
from collections.abc import Collection
from pathlib import Path

from search.events import RunKey
from search.study_file import StudyError

TUNE_FOLDER = "tune"


def run_folder(key: RunKey) -> str:
    """How the names of all folders begin that Tune keeps of a run."""
    return f"{key.number:05d}-{key.replicate:02d}"


def checkpoint_folder(output: Path, path: str) -> Path:
    """Returns the folder of a checkpoint that the record names, relative to `output`.

    Raises:
        StudyError: A link leads out of the study's folder.
    """
    folder = output / path
    if not _lies_in(output, folder):
        raise StudyError(
            f"{folder}: a checkpoint must lie in the study's folder, but a link leads to "
            f"{folder.resolve()}; move what it names into {output}"
        )
    return folder


def _lies_in(output: Path, folder: Path) -> bool:
    return folder.resolve().is_relative_to(output.resolve())


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
        if folder.relative_to(output).as_posix() not in needed and _lies_in(output, folder):
            shutil.rmtree(folder, ignore_errors=True)


def make_durable(folder: Path) -> None:
    """Waits until all files in a folder, and their names, would outlive a loss of power.

    Tune copies checkpoints into place and leaves that to the system.
    """
    for path in (*folder.rglob("*"), folder, folder.parent):
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
