"""What MLflow is known to hold of a run, and what it lacks of the run's picture."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self, TypeVar

from search.run_picture import KIMG, Point, RunPicture

Trace = tuple[float, int, int]  # a point's kimg, step and milliseconds

_Value = TypeVar("_Value")


@dataclass(kw_only=True)
class KnownRun:
    """What MLflow holds of one run.

    Attributes:
        ended: Milliseconds since 1970; None where MLflow has no end.
        results: The last value of each metric.
        points: The course; None where nobody has asked yet.
        artifacts: A stamp of each artifact, which changes with its content.
    """

    run_id: str
    status: str
    ended: int | None
    tags: dict[str, str]
    params: dict[str, str]
    results: dict[str, float]
    points: set[Trace] | None
    has_dataset: bool
    artifacts: dict[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, run: Any, *, fresh: bool = False) -> Self:
        """Reads what MLflow answered; a `fresh` run has no points yet."""
        return cls(
            run_id=run.info.run_id,
            status=run.info.status,
            ended=run.info.end_time or None,
            tags=_interned(run.data.tags),
            params=_interned(run.data.params),
            results=dict(run.data.metrics),
            points=set() if fresh else None,
            has_dataset=bool(run.inputs and run.inputs.dataset_inputs),
        )

    def is_whole(self, picture: RunPicture) -> bool:
        """Whether the run was ended as in the picture: it is ended last, when all is there."""
        is_end = self.status == picture.status != "RUNNING"
        return is_end and self.ended == picture.ended

    def lacks(self, picture: RunPicture) -> list[Point]:
        """Returns the points that are still to be logged."""
        assert self.points is not None
        return [point for point in picture.points if trace(point) not in self.points]

    def is_astray(self, picture: RunPicture) -> bool:
        """Whether it holds points that are not on the picture's course."""
        assert self.points is not None
        return not self.points <= {trace(point) for point in picture.points}


def trace(point: Point) -> Trace:
    """Returns that by which a point is known again."""
    return point.values[KIMG], point.step, point.milliseconds


def news(held: Mapping[str, _Value], wanted: Mapping[str, _Value]) -> dict[str, _Value]:
    """Returns what is wanted and not held."""
    return {key: value for key, value in wanted.items() if held.get(key) != value}


def _interned(texts: Mapping[str, str]) -> dict[str, str]:
    """Thousands of runs of a study share most of their tags and parameters."""
    return {sys.intern(key): sys.intern(value) for key, value in texts.items()}
