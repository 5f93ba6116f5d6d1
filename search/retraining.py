"""What follows a simulated search: racing, confirmation, and the winner that they choose."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import fmean

import numpy as np

from search.priced_curves import NOISE, SEED_NOISE
from search.racing import undecided
from search.simulation import Outcome
from search.study import StudySpec

ONE_TRAINING = math.hypot(NOISE, SEED_NOISE)  # nats of chance in its score, by the formula


@dataclass(frozen=True, kw_only=True)
class Ending:
    """How a simulated study ended: the runs that racing added, and the winner's regret in nats."""

    raced: int
    regret: float


def finish(spec: StudySpec, search: Outcome, rng: np.random.Generator) -> Ending:
    """Races and confirms the trials of a simulated search as the spec has it."""
    if not (spec.replication.adaptive or spec.confirm.seeds):
        return Ending(raced=0, regret=search.regret)
    feasible = {n: t for n, t in search.trials.items() if t.state != "INFEASIBLE" and t.measured}
    if not feasible:
        return Ending(raced=0, regret=search.regret)
    truths = {number: trial.truth for number, trial in feasible.items()}
    means = {number: trial.best for number, trial in feasible.items()}
    raced = 0
    if spec.replication.adaptive and not search.cut_short:
        scores = {n: [t.best] for n, t in feasible.items() if t.state == "COMPLETED"}
        raced = race(spec, scores, truths, rng)
        means |= {number: fmean(own) for number, own in scores.items()}
    winner = confirm(spec, means, truths, rng)
    return Ending(raced=raced, regret=search.optimum - truths[winner])


def race(
    spec: StudySpec,
    scores: Mapping[int, list[float]],
    truths: Mapping[int, float],
    rng: np.random.Generator,
) -> int:
    """Trains those with further seeds that `undecided` names, until none is left or has a seed.

    Args:
        spec: The study.
        scores: The score of each trial by each of its seeds, to which new ones are added.
        truths: What each is worth.
        rng: Chance.

    Returns:
        How many runs were added, one in each fold for each seed.
    """
    replication, added = spec.replication, 0
    error = ONE_TRAINING / math.sqrt(replication.folds)
    while True:
        rounds = {n: [(0, score) for score in own] for n, own in scores.items()}
        racing = [n for n in sorted(undecided(rounds)) if len(scores[n]) < replication.seeds]
        if not racing:
            return added * replication.folds
        for number in racing:
            scores[number].append(rng.normal(truths[number], error))
        added += len(racing)


def confirm(
    spec: StudySpec,
    means: Mapping[int, float],
    truths: Mapping[int, float],
    rng: np.random.Generator,
) -> int:
    """Returns the winner: of the best, who has the highest mean over fresh seeds, if there are."""
    top, seeds = spec.confirm.top, spec.confirm.seeds
    ranked = sorted(means, key=lambda number: (-means[number], number))
    if not seeds:
        return ranked[0]
    error = ONE_TRAINING / math.sqrt(seeds)
    fresh = {number: rng.normal(truths[number], error) for number in ranked[:top]}
    return max(fresh, key=fresh.__getitem__)
