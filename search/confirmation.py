"""Which of the best configurations is truly best, from trainings of each on fresh seeds."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from search.seed_effects import SeedEffects, fit
from search.shrinkage import probabilities_best

Scores = Mapping[int, Mapping[int, float]]
"""For each trial number the score of each fresh seed by its index, larger is better; minus
infinity where that seed diverged. A training that a fault of the machine ended is left out."""


@dataclass(frozen=True, kw_only=True)
class Standing:
    """What the fresh seeds say of one configuration; scores in nats, if those are.

    Attributes:
        number: The trial's number.
        mean: Mean score over its seeds, minus infinity if one of them diverged.
        standard_error: Of that mean, s / sqrt(seeds); None below two seeds or if one diverged.
        seeds: How many trainings there were.
        diverged: How many of them broke.
        behind: How much lower it lies than the winner, over the seeds of both; infinite if one of
            its own diverged.
        interval: 95 % of `behind`; None for the winner and where a seed diverged.
        probability_best: That its true mean is the highest of all that were confirmed.
    """

    number: int
    mean: float
    standard_error: float | None
    seeds: int
    diverged: int
    behind: float
    interval: tuple[float, float] | None
    probability_best: float


@dataclass(frozen=True, kw_only=True)
class Confirmation:
    """The configurations that were trained again, the best first.

    Attributes:
        standings: One for each configuration.
        noise: Standard deviation of one training's score about its configuration's mean, without
            what all configurations share under one seed index; None where nothing was compared.
        degrees_of_freedom: Behind `noise`; infinite where it was given.
    """

    standings: tuple[Standing, ...]
    noise: float | None
    degrees_of_freedom: float

    @property
    def winner(self) -> Standing | None:
        """The first, or None if each of them diverged under some seed."""
        return None if self.standings[0].diverged else self.standings[0]


def confirm(scores: Scores, noise: float | None = None) -> Confirmation:
    """Ranks configurations by their mean over fresh seeds, and says how sure that is.

    Scores are y_cj = mu_c + b_j + e_cj: what configuration c is worth, what seed index j means to
    all of them alike (the evaluation's noise is drawn anew for each j and common to them), and
    normal noise of one variance for all. Means are those of least squares, which are plain means
    where all have the same seeds. Differences to the winner have Student's 95 % interval, paired
    by seed index, with the variance pooled over all configurations; for two of them it is the
    paired t interval (Student, 1908). It is not widened for the winner's having been chosen: that
    a runner-up is better is what `probability_best` is about (`search.shrinkage`).

    A configuration of which any seed diverged cannot win. It ranks behind all others, by how few
    did, with probability 0, and tells nothing about the noise.

    The scores of the search are no part of this. Those of the best k were chosen for being high,
    so their order is in part luck, and the more so the more equal the trials; the claim would
    count that luck as evidence. (What that costs: benchmarks/README.md.)

    Args:
        scores: Of every configuration at least one seed; they may have unequal numbers of them.
        noise: Known standard deviation of e. It takes the place of the estimate, and is needed
            where there is none: with one seed nothing tells a difference from chance.

    Raises:
        ValueError: There is no score; the noise is unknown, or not above 0; or two
            configurations share no seed, even by way of others, so that nothing compares them.
    """
    if not scores or not all(scores.values()):
        raise ValueError(f"`scores` must hold a seed of each configuration, but got {scores}")
    if noise is not None and not noise > 0:
        raise ValueError(f"`noise > 0` must hold, but got noise={noise}")
    broken = {number: sum(y == -math.inf for y in own.values()) for number, own in scores.items()}
    whole = sorted(number for number, count in broken.items() if not count)
    last = sorted((number for number in scores if broken[number]), key=lambda n: (broken[n], n))
    effects = fit([scores[number] for number in whole], noise) if len(whole) > 1 else None
    chances = probabilities_best(effects) if effects else np.ones(len(whole))
    level = effects.means if effects else np.zeros(len(whole))
    order = sorted(range(len(whole)), key=lambda c: (-level[c], whole[c]))
    standings = [
        _standing(whole[c], scores[whole[c]], effects, (order[0], c), float(chances[c]))
        for c in order
    ]
    return Confirmation(
        standings=(*standings, *(_broken(number, scores[number]) for number in last)),
        noise=effects.noise if effects else noise,
        degrees_of_freedom=effects.degrees_of_freedom if effects else math.inf if noise else 0.0,
    )


def _standing(
    number: int,
    own: Mapping[int, float],
    effects: SeedEffects | None,
    pair: tuple[int, int],
    chance: float,
) -> Standing:
    values = list(own.values())
    winner, place = pair
    apart, half = effects.difference(winner, place) if effects else (0.0, 0.0)
    return Standing(
        number=number,
        mean=float(np.mean(values)),
        standard_error=_standard_error(values),
        seeds=len(values),
        diverged=0,
        behind=apart,
        interval=None if winner == place else (apart - half, apart + half),
        probability_best=chance,
    )


def _broken(number: int, own: Mapping[int, float]) -> Standing:
    return Standing(
        number=number,
        mean=-math.inf,
        standard_error=None,
        seeds=len(own),
        diverged=sum(y == -math.inf for y in own.values()),
        behind=math.inf,
        interval=None,
        probability_best=0.0,
    )


def _standard_error(values: Sequence[float]) -> float | None:
    if len(values) < 2:
        return None
    return float(np.std(values, ddof=1)) / math.sqrt(len(values))
