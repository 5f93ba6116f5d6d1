"""What MLflow should hold of one run; whoever mirrors it twice changes nothing."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

Status = Literal["RUNNING", "FINISHED", "FAILED", "KILLED"]
KIMG = "kimg"  # the metric by which a delivered measurement is known again


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """The data of a study; `source` is a path or URL, `digest` the SHA-256 of its arrays."""

    name: str
    digest: str
    source: str
    subset: bool


@dataclass(frozen=True, kw_only=True)
class Point:
    """A measurement as MLflow keeps it; one of `values` is `kimg`, unrounded."""

    step: int
    milliseconds: int
    values: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class RunPicture:
    """What a run should look like; mirroring it twice changes nothing.

    Attributes:
        key: Value of the tag `trial_key`, by which the run is found.
        parent: Run ID of the run under which it is shown.
        started: Milliseconds since 1970, as is `ended`.
        points: The whole course; a run that holds other points is not the one meant.
        results: Metrics that have one value.
        files: Name of an artifact -> the file it is a copy of; a missing one is left out.
    """

    key: str
    name: str
    parent: str | None
    status: Status
    started: int
    ended: int | None
    tags: Mapping[str, str]
    params: Mapping[str, str]
    dataset: Dataset
    points: Sequence[Point] = ()
    results: Mapping[str, float] = field(default_factory=dict)
    files: Mapping[str, Path] = field(default_factory=dict)

    def stamps(self) -> dict[str, int]:
        """Returns what changes with the content of each file that is there."""
        return {
            name: file.stat().st_mtime_ns for name, file in self.files.items() if file.is_file()
        }
