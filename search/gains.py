"""What each trial of a population gained in each interval of its training."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from search.ledger import Ledger
from search.objective import ObjectiveSection
from search.space import Space
from search.time_varying_gp import Points, Values
from search.trial import TrialState
from search.unit_cube import coordinates_of

_CLIP = 2.0  # standard deviations


@dataclass(frozen=True)
class Gains:
    """One observation for each trial and interval that it was trained in.

    Attributes:
        points: The trial's parameters in the unit cube, in the space's order of dependence.
        intervals: Which interval it was: 0, 1, 2, ...
        rewards: By how much the objective's score became better, in standard deviations of that
            interval from its mean, at most 2.
    """

    points: Points
    intervals: Values
    rewards: Values


def gains_of(
    ledger: Ledger,
    space: Space,
    objective: ObjectiveSection,
    levels: Sequence[float],
    most: int = 200,
) -> Gains:
    """Returns the gains of the intervals that end at the levels, of many the newest.

    They are standardised interval by interval, for nets gain less and less, and regret compares
    what could have been done at the same time. So the first interval counts too: before it every
    net is untrained, and what they all start from falls out. One that diverged has the lowest gain
    of its interval; one that was ended otherwise has none.
    """
    rows = [row for index in range(len(levels)) for row in _of(ledger, objective, levels, index)]
    kept = rows[-most:]
    points = [coordinates_of(space, trial.params) for trial, _, _ in kept]
    return Gains(
        np.array(points).reshape(len(kept), len(space)),
        np.array([float(index) for _, index, _ in kept]),
        np.array([reward for _, _, reward in kept]),
    )


def score_at(trial: TrialState, level: float, objective: ObjectiveSection) -> float:
    """The score at a point, to be maximised; minus infinity for who has not come there."""
    sign = 1.0 if objective.direction == "maximize" else -1.0
    here = [m.metrics for m in trial.first.measurements if math.isclose(m.kimg, level)]
    metric = objective.metric
    return sign * here[-1][metric] if here and metric in here[-1] else -math.inf


def _of(
    ledger: Ledger, objective: ObjectiveSection, levels: Sequence[float], index: int
) -> Iterator[tuple[TrialState, int, float]]:
    """The trials that were trained in an interval, each with its reward."""
    trained, diverged = {}, []
    for trial in ledger.trials.values():
        before = _before(trial, ledger, objective, levels, index)
        gain = score_at(trial, levels[index], objective) - before if before > -math.inf else None
        if gain is not None and gain > -math.inf:
            trained[trial.number] = gain
        elif gain is not None and trial.state == "INFEASIBLE":
            diverged.append(trial.number)
    if not trained:
        return
    found = trained | dict.fromkeys(diverged, min(trained.values()))
    mean, spread = np.mean(list(found.values())), np.std(list(found.values()))
    for number, gain in sorted(found.items()):
        reward = (gain - mean) / spread if spread > 0 else 0.0
        yield ledger.trials[number], index, float(np.clip(reward, -_CLIP, _CLIP))


def _before(
    trial: TrialState,
    ledger: Ledger,
    objective: ObjectiveSection,
    levels: Sequence[float],
    index: int,
) -> float:
    """The score that a trial began an interval with; minus infinity for who was not there."""
    if index == 0:
        return 0.0 if trial.donor is None else -math.inf
    if trial.donor is not None and math.isclose(trial.donor.kimg, levels[index - 1]):
        trial = ledger.trials[trial.donor.number]
    return score_at(trial, levels[index - 1], objective)
