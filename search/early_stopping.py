"""The rule by which a study stops its trials early, from its spec."""

from dataclasses import dataclass
from pathlib import Path

from search.hyperband import Hyperband, make_brackets
from search.median import MedianStopping
from search.paired import RungPoints
from search.scheduling import Halving, rung_levels
from search.study import StudySpec


@dataclass(frozen=True, kw_only=True)
class EarlyStopping:
    """Who goes on.

    Attributes:
        rule: A pure function of the ledger, and of the points of rungs where it is paired.
        points: Where those are kept; None where the rule does not ask for them.
    """

    rule: Halving | Hyperband | MedianStopping
    points: RungPoints | None = None


def early_stopping(spec: StudySpec, output: Path) -> EarlyStopping | None:
    """Creates the rule of a study; None where every trial trains to its full budget."""
    scheduler, budget, objective = spec.scheduler, spec.budget, spec.objective
    grace, factor = scheduler.grace_kimg, scheduler.reduction_factor
    if scheduler.kind == "none" or grace is None:
        return None
    if scheduler.kind == "median":
        return EarlyStopping(
            rule=MedianStopping(
                metric=objective.metric, direction=objective.direction, grace_kimg=grace
            )
        )
    rungs = rung_levels(grace, budget.kimg_per_trial, factor, budget.measure_kimg)
    points = RungPoints(output, objective.metric, rungs) if scheduler.paired else None
    paired_error = None if points is None else points.standard_error
    rule: Halving | Hyperband
    if scheduler.kind == "asha":
        rule = Halving(
            metric=objective.metric,
            direction=objective.direction,
            rungs=rungs,
            reduction_factor=factor,
            paired_error=paired_error,
        )
    else:
        rule = Hyperband(
            metric=objective.metric,
            direction=objective.direction,
            brackets=make_brackets(grace, budget.kimg_per_trial, factor, budget.measure_kimg),
            reduction_factor=factor,
            paired_error=paired_error,
        )
    return EarlyStopping(rule=rule, points=points)
