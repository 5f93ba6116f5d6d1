"""The rule by which a study stops its trials early, from its spec."""

from dataclasses import dataclass
from pathlib import Path

from search.generations import Generations
from search.hyperband import Hyperband, make_brackets
from search.median import MedianStopping
from search.paired import RungPoints
from search.scheduling import Halving, PairedError, rung_levels
from search.study import StudySpec
from search.waiting import AmongReplicates, ForPromotion


@dataclass(frozen=True, kw_only=True)
class EarlyStopping:
    """Who goes on.

    Attributes:
        rule: Who stops: a pure function of the ledger, and of the points of rungs where it is
            paired. None where trials are promoted instead, or are a population.
        waiting: Where runs wait at rungs; None where each trial has one run and is not promoted.
        points: Where the points of rungs are kept; None where the rule does not ask for them.
    """

    rule: Halving | Hyperband | MedianStopping | None
    waiting: AmongReplicates | ForPromotion | Generations | None = None
    points: RungPoints | None = None


def early_stopping(spec: StudySpec, output: Path) -> EarlyStopping | None:
    """Creates the rule of a study; None where every trial trains to its full budget."""
    scheduler, budget, objective = spec.scheduler, spec.budget, spec.objective
    if scheduler.population:
        return EarlyStopping(rule=None, waiting=Generations(spec))
    grace, factor = scheduler.grace_kimg, scheduler.reduction_factor
    if scheduler.kind == "none" or grace is None:
        return None
    rungs = rung_levels(grace, budget.kimg_per_trial, factor, budget.measure_kimg)
    if scheduler.mode == "promotion":
        waiting = ForPromotion(rungs, factor, objective.metric, objective.direction)
        return EarlyStopping(rule=None, waiting=waiting)
    points = None
    if scheduler.paired:
        replication = spec.replication
        folds, replicates = replication.folds, replication.replicates
        points = RungPoints(output, objective.metric, rungs, folds, replicates)
    rule = _rule(spec, grace, rungs, None if points is None else points.standard_error)
    several = spec.replication.replicates > 1
    waits = AmongReplicates(rule.levels) if several else None
    return EarlyStopping(rule=rule, waiting=waits, points=points)


def _rule(
    spec: StudySpec, grace: float, rungs: tuple[float, ...], paired_error: PairedError | None
) -> Halving | Hyperband | MedianStopping:
    budget, objective, factor = spec.budget, spec.objective, spec.scheduler.reduction_factor
    if spec.scheduler.kind == "median":
        return MedianStopping(
            metric=objective.metric, direction=objective.direction, grace_kimg=grace
        )
    if spec.scheduler.kind == "asha":
        return Halving(
            metric=objective.metric,
            direction=objective.direction,
            rungs=rungs,
            reduction_factor=factor,
            paired_error=paired_error,
        )
    return Hyperband(
        metric=objective.metric,
        direction=objective.direction,
        brackets=make_brackets(grace, budget.kimg_per_trial, factor, budget.measure_kimg),
        reduction_factor=factor,
        paired_error=paired_error,
    )
