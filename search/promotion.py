"""Successive halving by promotion: trials pause at every rung, and the best are taken further."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from search.scheduling import Course, rung_values


class Promotion(NamedTuple):
    """A paused trial that trains on past the rung of this index."""

    number: int
    rung: int


def promote(
    courses: Mapping[int, Course],
    passed: Mapping[int, int],
    rungs: Sequence[float],
    reduction_factor: int,
) -> Promotion | None:
    """The trial that a free worker should train on; None where it should begin a new one.

    `get_job` of Li et al. (2020, "A System for Massively Parallel Hyperparameter Tuning",
    Algorithm 2): from the highest rung down, the best trial that is in the top
    floor(n / factor) of the n that were recorded there and has not been promoted from it. Of
    equals the lowest number. An INFEASIBLE trial is never promoted; it counts as minus infinity
    up to the rung that it would have met next.

    Args:
        courses: Every trial that has measured something or broke, by number.
        passed: From how many rungs each trial was promoted; who is not there from none.
        rungs: Levels in kimg, ascending.
        reduction_factor: One in so many goes on at each rung.
    """
    for index in reversed(range(len(rungs))):
        ranked = sorted(rung_values(courses, rungs, index), key=lambda pair: (-pair[0], pair[1]))
        for _, number in ranked[: len(ranked) // reduction_factor]:
            if passed.get(number, 0) <= index and courses[number].feasible:
                return Promotion(number, index)
    return None
