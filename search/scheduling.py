"""Which trials go on: asynchronous successive halving as pure functions of what was measured."""

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import ClassVar

from search.trial import Direction, TrialState

# Of the difference between a trial and the one at the cut of a rung (both numbers, then the
# rung): its paired standard error, None where it is not known.
PairedError = Callable[[int, int, float], float | None]

ONE_SIDED_5_PERCENT = 1.645
"""The share of a standard normal above it is 5 %."""


@dataclass(frozen=True, kw_only=True)
class Course:
    """What one trial has shown so far, with values to be maximised.

    Attributes:
        points: Pairs of kimg and value in the order they were measured, averaged over the runs
            of a trial that has several, as far as all have come.
        bests: The same of each run's best value so far; None where that is the best of `points`.
        feasible: False for an INFEASIBLE trial, which counts as minus infinity at every rung
            up to the one that it would have met next.
    """

    points: tuple[tuple[float, float], ...]
    bests: tuple[tuple[float, float], ...] | None = None
    feasible: bool = True

    @property
    def kimg(self) -> float:
        """Training up to the last measurement in kimg."""
        return self.points[-1][0] if self.points else 0.0

    def best(self, up_to_kimg: float = math.inf) -> float:
        """The best value up to there; minus infinity before there is one."""
        values = (value for kimg, value in self.bests or self.points if kimg <= up_to_kimg)
        return max(values, default=-math.inf)


def course(trial: TrialState, metric: str, direction: Direction = "maximize") -> Course:
    """Reads the course of a trial; without the metric it is at minus infinity.

    Of several runs one that is INFEASIBLE stands for all.
    """
    sign = 1.0 if direction == "maximize" else -1.0
    broken = [run for run in trial.search_runs if run.state == "INFEASIBLE"]
    runs = broken[:1] or trial.search_runs
    measured = [
        {m.kimg: sign * m.metrics[metric] if metric in m.metrics else -math.inf for m in one}
        for one in (run.measurements for run in runs)
    ]
    if len(runs) == 1:
        return Course(points=tuple(measured[0].items()), feasible=not broken)
    common = sorted(kimg for kimg in measured[0] if all(kimg in one for one in measured))
    tops = [
        dict(zip(one, itertools.accumulate(one.values(), max), strict=True)) for one in measured
    ]
    return Course(
        points=tuple((kimg, fmean(one[kimg] for one in measured)) for kimg in common),
        bests=tuple((kimg, fmean(top[kimg] for top in tops)) for kimg in common),
    )


def rung_levels(
    grace_kimg: float, kimg_per_trial: float, reduction_factor: float, measure_kimg: float
) -> tuple[float, ...]:
    """The kimg at which trials are compared: grace x factor^k below the full budget.

    Each level is rounded up to a multiple of `measure_kimg`, for only there is a value known.

    Raises:
        ValueError: A level could not grow or lies nowhere.
    """
    for key, value in (("grace_kimg", grace_kimg), ("measure_kimg", measure_kimg)):
        if not value > 0:
            raise ValueError(f"`{key} > 0` must hold, but got {key}={value}")
    if not reduction_factor > 1:
        raise ValueError(
            f"`reduction_factor > 1` must hold, but got reduction_factor={reduction_factor}"
        )
    levels: list[float] = []
    level = grace_kimg
    while (rung := _next_multiple(level, measure_kimg)) < kimg_per_trial:
        if rung not in levels:
            levels.append(rung)
        level *= reduction_factor
    return tuple(levels)


def rung_values(
    courses: Mapping[int, Course], rungs: Sequence[float], index: int
) -> list[tuple[float, int]]:
    """The value and number of each trial that came as far as a rung, ascending."""
    below = rungs[index - 1] if index else 0.0
    values = []
    for number, one in courses.items():
        if not one.feasible and one.kimg >= below:
            values.append((-math.inf, number))
        elif one.kimg >= rungs[index]:
            values.append((one.best(rungs[index]), number))
    return sorted(values)


def cut(ascending: Sequence[tuple[float, int]], reduction_factor: float) -> tuple[float, int]:
    """The (1 - 1/factor) quantile of a rung's values, and the trial at it or next above.

    It is numpy's linear quantile, but with minus infinities, between which that says NaN.
    """
    place = round((1.0 - 1.0 / reduction_factor) * (len(ascending) - 1), 9)  # 2/3 x 9 is 6
    (low, _), (high, rival) = ascending[math.floor(place)], ascending[math.ceil(place)]
    if low in (high, -math.inf):
        return low, rival
    return low + (high - low) * (place - math.floor(place)), rival


def clearly_behind(lead: float, standard_error: float | None) -> bool:
    """Whether a lead is larger than chance explains, at 5 % one-sided; so if nothing is known."""
    return standard_error is None or not lead <= ONE_SIDED_5_PERCENT * standard_error


def decide(
    number: int,
    courses: Mapping[int, Course],
    rungs: Sequence[float],
    reduction_factor: float,
    paired_error: PairedError | None = None,
) -> float | None:
    """The rung at which a trial falls below the cut and must stop; None where it goes on.

    Asynchronous successive halving in its stopping form (Li et al., 2020, "A System for
    Massively Parallel Hyperparameter Tuning"): a trial's value at a rung is its best up to
    there, the cut is the (1 - 1/factor) quantile of all values at that rung, its own included.
    Asynchronous arrivals judge the first ones against nobody; here every passed rung is judged
    again at each measurement, so that an early arrival cannot keep a free pass. The best trial
    of all goes on whatever its rungs say: it has risen since.

    With `paired_error` a trial below the cut is stopped only if it is clearly behind the trial
    at the cut, by the standard error of their difference point by point (Student, 1908).

    Args:
        number: The trial to judge.
        courses: Every trial of the study that has measured something or broke, by number.
        rungs: Levels in kimg, ascending.
        reduction_factor: One in so many goes on at each rung.
        paired_error: How sure the differences are; None takes every one for real.
    """
    mine = courses[number]
    if all(mine.best() >= one.best() for one in courses.values() if one.feasible):
        return None
    for index, rung in reversed(list(enumerate(rungs))):
        if mine.kimg < rung:
            continue
        value = mine.best(rung)
        ascending = rung_values(courses, rungs, index)
        level, rival = cut(ascending, reduction_factor)
        if value < level and _behind(value, courses, number, rival, rung, paired_error):
            return rung
    return None


def _behind(
    value: float,
    courses: Mapping[int, Course],
    number: int,
    rival: int,
    rung: float,
    paired_error: PairedError | None,
) -> bool:
    if paired_error is None:
        return True
    lead = courses[rival].best(rung) - value
    return clearly_behind(lead, paired_error(number, rival, rung))


@dataclass(frozen=True, kw_only=True)
class Halving:
    """The rungs of a study, applied to its ledger alone: a resumed study decides the same."""

    metric: str
    direction: Direction
    rungs: tuple[float, ...]
    reduction_factor: float
    paired_error: PairedError | None = None
    name: ClassVar[str] = "asha"

    def levels(self, number: int) -> tuple[float, ...]:
        """Where the runs of trial `number` are judged together, in kimg."""
        return self.rungs

    def rung_to_stop_at(self, number: int, trials: Mapping[int, TrialState]) -> float | None:
        """The rung at which trial `number` falls below the cut, None where it goes on."""
        courses = {n: course(t, self.metric, self.direction) for n, t in trials.items()}
        return decide(number, courses, self.rungs, self.reduction_factor, self.paired_error)


def _next_multiple(level: float, unit: float) -> float:
    count = round(level / unit)
    if not math.isclose(count * unit, level, rel_tol=1e-9):
        count = math.ceil(level / unit)
    return count * unit
