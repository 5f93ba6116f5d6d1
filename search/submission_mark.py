"""What is kept here of a submitted study: its job, and what was asked of it by which request."""

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

MARK_NAME = "submitted.json"


class SubmissionMark:
    """`submitted.json` in the folder here.

    Args:
        output: the study's folder here.
    """

    def __init__(self, output: Path) -> None:
        self._path = output / MARK_NAME

    def exists(self) -> bool:
        """Whether this study was ever submitted from here."""
        return self._path.exists()

    def read(self) -> dict[str, Any]:
        """Returns `job`, the last one; `fetched`, whose record is here; `request` and `order`.

        The last two are of what was asked for and has not come to its end: the same order again
        is the same request, so that trials are added once, however many jobs it takes.
        """
        try:
            mark: dict[str, Any] = json.loads(self._path.read_text())
        except FileNotFoundError:
            return {}
        return mark

    def change(self, **changes: str | None) -> None:
        """Writes these over what is there."""
        self.write(self.read() | changes)

    def write(self, mark: dict[str, Any]) -> None:
        """Writes all of it; nothing is left of an empty one, nor of the folder that it was in."""
        if mark:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._path.write_text(json.dumps(mark) + "\n")
            return
        with suppress(OSError):
            self._path.unlink()
            self._path.parent.rmdir()
