"""What a sampler may know of a trial, of this study or of one before it."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from search.domains import Params
from search.objective import ObjectiveSection
from search.pareto import values_of
from search.trial import TrialState, TrialStateName


@dataclass(frozen=True, kw_only=True)
class SeenTrial:
    """One trial as samplers are told of it.

    Attributes:
        params: Its configuration.
        state: As it stands.
        stage_index: The stage that proposed it; -1 where it is of an earlier study.
        kimg: How far all its runs were trained.
        values: One an objective, of the measurement where the first is best; None where unknown.
        curve: The first objective by kimg.
        violations: How far it lies beyond each constraint there, 0 where it keeps it.
    """

    params: Params
    state: TrialStateName
    stage_index: int
    kimg: float
    values: tuple[float, ...] | None
    curve: Mapping[float, float]
    violations: Mapping[str, float]


def seen(trial: TrialState, objective: ObjectiveSection) -> SeenTrial:
    """Returns what samplers are told of a trial on the ledger."""
    metric = objective.metric
    scored = trial.objective(metric, objective.direction)
    metrics = scored.metrics if scored else {}
    return SeenTrial(
        params=trial.params,
        state=trial.state,
        stage_index=trial.stage_index,
        kimg=trial.kimg,
        values=values_of(trial, objective),
        curve={kimg: all_[metric] for kimg, all_ in trial.curve().items() if metric in all_},
        violations={str(bound): bound.violation(metrics) for bound in objective.bounds},
    )


def ranked(trials: Iterable[SeenTrial], objective: ObjectiveSection) -> list[SeenTrial]:
    """Sorts ended trials by the first objective, the best first: whole ones, then stopped ones.

    Those by how far they came: a score under a small budget is compared with its like only.
    Trials that break a constraint come after those that keep all, and diverged ones last.
    """
    sign = 1.0 if objective.direction == "maximize" else -1.0

    def merit(trial: SeenTrial) -> tuple[bool, bool, float, float]:
        if trial.values is None or trial.state == "INFEASIBLE":
            return (False, False, 0.0, 0.0)
        keeps = not any(trial.violations.values())
        return (True, keeps, trial.kimg, sign * trial.values[0])

    return sorted(trials, key=merit, reverse=True)
