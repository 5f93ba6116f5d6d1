"""What no other trial beats in every objective at once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from search.ledger import Ledger
from search.objective import Aim, ObjectiveSection
from search.trial import TrialState


@dataclass(frozen=True)
class FrontTrial:
    """A trial on the Pareto front.

    Attributes:
        number: Of the trial.
        values: By metric, all of one measurement.
    """

    number: int
    values: Mapping[str, float]


def pareto_front(values: Sequence[Sequence[float]], aims: Sequence[Aim]) -> list[int]:
    """Returns the places of the points that no other dominates, in order.

    A point dominates another if it is no worse in any objective and better in one (Pareto; Deb
    et al. 2002, section II). Equal points do not dominate each other.

    Args:
        values: One point a trial, shape (n, m).
        aims: The m objectives.
    """
    signs = [1.0 if aim.direction == "maximize" else -1.0 for aim in aims]
    points = np.asarray(values, dtype=np.float64).reshape(-1, len(signs)) * signs
    return [
        place
        for place, point in enumerate(points)
        if not np.any((points >= point).all(axis=1) & (points > point).any(axis=1))
    ]


def values_of(trial: TrialState, objective: ObjectiveSection) -> tuple[float, ...] | None:
    """Returns a trial's value in each objective, all where the first is best.

    There the generator that is kept was measured: the best of each objective would be values
    that no one generator has. Of several runs it is the mean over each one's best measurement.
    None before all were measured, and where one has no such metric.
    """
    scored = trial.objective(objective.metric, objective.direction)
    if scored is None or any(aim.metric not in scored.metrics for aim in objective.also):
        return None
    return (scored.value, *(scored.metrics[aim.metric] for aim in objective.also))


def front_of(ledger: Ledger, objective: ObjectiveSection, untrained: float) -> list[FrontTrial]:
    """Returns the front of the trials that may win, the best by the first objective first.

    Of equals by that the lowest number.
    """
    ranking = ledger.ranking(objective.metric, objective.direction, untrained, objective.bounds)
    measured = [(t.number, values) for t in ranking if (values := values_of(t, objective))]
    metrics = [aim.metric for aim in objective.aims]
    return [
        FrontTrial(measured[place][0], dict(zip(metrics, measured[place][1], strict=True)))
        for place in pareto_front([values for _, values in measured], objective.aims)
    ]
