"""Median stopping: a trial that is worse than half of the others were at the same point ends."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from search.scheduling import Course, course
from search.trial import Direction, TrialState

MIN_OTHERS = 3
"""Fewer than so many others at a point judge nobody."""


def decide_by_median(
    number: int, courses: Mapping[int, Course], grace_kimg: float
) -> float | None:
    """The kimg at which a trial must stop, that of its last measurement; None where it goes on.

    The median rule of Golovin et al. (2017, "Google Vizier: A Service for Black-Box
    Optimization", 3.2.2): stop where the trial's best value so far is strictly below the median
    over the other trials of the mean of what each had measured up to there. Others that still
    run count as soon as they have come that far. An INFEASIBLE trial counts as minus infinity
    up to its last measurement.

    Args:
        number: The trial to judge.
        courses: Every trial of the study that has measured something or broke, by number.
        grace_kimg: Nobody is stopped before.
    """
    mine = courses[number]
    kimg = mine.kimg
    if kimg < grace_kimg or not mine.points:
        return None
    means = sorted(
        _mean(one, kimg) for n, one in courses.items() if n != number and one.kimg >= kimg
    )
    return kimg if below_median(mine.best(), means) else None


def below_median(best: float, means: Sequence[float]) -> bool:
    """Whether a value is strictly below the median of at least `MIN_OTHERS` ascending ones."""
    if len(means) < MIN_OTHERS:
        return False
    middle = len(means) // 2
    if len(means) % 2:
        return best < means[middle]
    return best < (means[middle - 1] + means[middle]) / 2


def _mean(one: Course, kimg: float) -> float:
    if not one.feasible:
        return -math.inf
    total, count = 0.0, 0  # one addition after another, as a running mean is kept
    for at, value in one.points:
        if at <= kimg:
            total, count = total + value, count + 1
    return total / count if count else -math.inf


@dataclass(frozen=True, kw_only=True)
class MedianStopping:
    """The median rule applied to a study's ledger alone: a resumed study decides the same."""

    metric: str
    direction: Direction
    grace_kimg: float
    name: ClassVar[str] = "median"

    def levels(self, number: int) -> tuple[float, ...]:
        """Where the runs of trial `number` wait for each other, in kimg."""
        return (self.grace_kimg,)

    def rung_to_stop_at(self, number: int, trials: Mapping[int, TrialState]) -> float | None:
        """The kimg at which trial `number` is below the median, None where it goes on."""
        courses = {n: course(t, self.metric, self.direction) for n, t in trials.items()}
        return decide_by_median(number, courses, self.grace_kimg)
