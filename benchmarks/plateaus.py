"""Quite another problem than `gan_like`: branches, plateaus of equals, seeds with heavy tails."""

import math
from collections.abc import Mapping

import numpy as np

from cgan_core.streams import stream
from search.domains import CategoricalDomain, FloatDomain, IntDomain, Params, Scalar, When
from search.learning_curves import LearningCurve
from search.space import Space

BEST = 95.0
CHANCE = 10.0


class Plateaus:
    """A classifier's accuracy in percent.

    A configuration is worth 95 - floor(L), so that all with a loss L below 1 are equally good:

        L = 3 |log10 rate - r*| + |depth - d*|    for the kinds `linear` and `boosted`,
        L = 12 |strength - s*| + |depth - d*|     for `kernel`,

    and 2 more for each of two kinds that the seed picks; r*, d* and s* are the seed's too. After a
    share t of the training a score lacks (95 - 10) (t^(-1/2) - 1) / 9 of that: a power law, the
    same for all, so that early scores say who is better. Nothing diverges. A training has an
    offset of Student's t with 3 degrees of freedom, times 0.5; a measurement has normal noise of
    0.2, and a draw of the evaluation 0.3, common to all that are scored on it.

    Args:
        seed: Of the optimum and of all noise.
        measurements: How many a training has, 1 kimg apart.
    """

    kinds = ("boosted", "kernel", "linear")

    def __init__(self, seed: int, *, measurements: int = 27) -> None:
        rates: When = {"kind": ("boosted", "linear")}
        kernels: When = {"kind": ("kernel",)}
        self.space: Space = {
            "kind": (CategoricalDomain(type="categorical", choices=self.kinds),),
            "rate": (FloatDomain(type="float", low=1e-4, high=1.0, log=True, when=rates),),
            "strength": (FloatDomain(type="float", low=0.0, high=1.0, when=kernels),),
            "depth": (IntDomain(type="int", low=1, high=12),),
        }
        self.optimum = BEST
        self.kimg_per_trial, self.measure_kimg = float(measurements), 1.0
        self._seed = seed
        rng = stream(seed, "optimum")
        self._kind = self.kinds[int(rng.integers(3))]
        self._rate, self._strength = -3.5 + 3 * rng.random(), 0.1 + 0.8 * rng.random()
        self._depth = int(rng.integers(2, 12))
        at = np.arange(1, measurements + 1)
        self._kimg = at.astype(float).tolist()
        self._lacking = (BEST - CHANCE) * ((at / measurements) ** -0.5 - 1) / 9

    def truth(self, params: Mapping[str, Scalar]) -> float:
        """The accuracy of a full training, the mean over seeds."""
        loss = abs(float(params["depth"]) - self._depth)
        if params["kind"] == "kernel":
            loss += 12 * abs(float(params["strength"]) - self._strength)
        else:
            loss += 3 * abs(math.log10(float(params["rate"])) - self._rate)
        return BEST - math.floor(loss) - (0 if params["kind"] == self._kind else 2)

    def curve(self, number: int, params: Params, replicate: int = 0) -> LearningCurve:
        """One training of a configuration."""
        rng = stream(self._seed, f"noise/{replicate}", number)
        truth = self.truth(params)
        values = truth - self._lacking + 0.5 * rng.standard_t(3)
        values += 0.2 * rng.standard_normal(len(values))
        values += 0.3 * stream(self._seed, "evaluation", replicate).standard_normal()
        return LearningCurve(
            kimg=self._kimg, values=values.tolist(), seconds=self._kimg, truth=truth
        )

    def standard_error(self, number: int, rival: int, rung: float) -> float | None:
        """That of the measurements."""
        return math.sqrt(2) * 0.2
