"""When each trial of a study began and ended, and what lay between the trials."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

SPANS_NAME = "spans.txt"


class Span(NamedTuple):
    """Seconds since 1970."""

    began: float
    ended: float


def note_span(folder: Path, began: float, ended: float) -> None:
    """Adds a trial's span to the folder's file; processes may do so at once."""
    file = os.open(folder / SPANS_NAME, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        os.write(file, f"{began!r} {ended!r}\n".encode())
    finally:
        os.close(file)


def read_spans(folder: Path) -> list[Span]:
    """Reads all of them."""
    lines = (folder / SPANS_NAME).read_text().splitlines()
    return [Span(*map(float, line.split())) for line in lines]


def seconds_after_start(spans: Sequence[Span], places: int) -> float:
    """How long a place was in use, on average: from its first trial's beginning to its last end.

    So the start-up does not count, nor that the places are ready one after another.
    """
    begins = sorted(span.began for span in spans)[:places]
    ends = sorted(span.ended for span in spans)[-places:]
    return (sum(ends) - sum(begins)) / len(begins)
