"""Curves that behave as those of adversarial nets do: dips, seeds that differ, rates too high."""

import math
from array import array
from collections.abc import Mapping

import numpy as np

from cgan_core.streams import stream
from search.domains import FloatDomain, IntDomain, Params, Scalar
from search.learning_curves import LearningCurve
from search.space import Space
from search.unit_cube import coordinates_of

BEST = 130.0
MEAN_IMAGE = -57.0  # what an untrained net scores, and one that broke is worth
DIP = 150.0
WEIGHTS = {  # of the squared distance from the optimum in the unit cube, in nats
    "d_dropout": 80.0,
    "d_rate_ratio": 120.0,
    "g_dropout": 40.0,
    "learning_rate": 240.0,
    "units": 20.0,
}
SAFE, RISKY = 0.3, 0.2  # the unit cube's rate beyond the best one: safe so far, then a band


class GanLike:
    """The digits of docs/protocol.md as a formula, in nats.

    With x the point in the unit cube (rates and units by their logarithm) and x* the optimum,
    which the seed puts anywhere in the middle half of each side, a configuration's plateau is

        f = 130 - sum_i w_i (x_i - x*_i)^2 - 80 (x_rate - x*_rate) (x_ratio - x*_ratio).

    After t of T kimg a training scores f - (f + 57) e(t/c) - 150 d(t) (1 - t/T), where e is
    exp(-t/c) made to end at 0 and d = (2 t/c) exp(1 - 2 t/c) is the dip. A low rate learns slowly:
    c = T/8 10^((x*_rate - x_rate)/2), so that early scores flatter high rates. From 0.3 above the
    best rate on a share p of all seeds diverges, before t = 2 c; p rises from 0 to 1 within 0.2. A
    configuration is worth (1 - p) f - 57 p.

    Noise (docs/protocol.md, benchmarks/README.md): each training has an offset of its own, normal,
    4 nats at the end and three times as much at first; each measurement 2 nats; each draw of the
    evaluation's noise 2 nats, common to all that are scored on it.

    Args:
        seed: Of the optimum and of all noise.
        kimg_per_trial: Full budget of a training, T.
        measurements: How many it has.
    """

    seed_noise, measurement_noise, evaluation_noise = 4.0, 2.0, 2.0

    def __init__(
        self, seed: int, *, kimg_per_trial: float = 300.0, measurements: int = 12
    ) -> None:
        self.space: Space = {
            "learning_rate": (FloatDomain(type="float", low=1e-4, high=1e-2, log=True),),
            "d_rate_ratio": (FloatDomain(type="float", low=0.1, high=1.0, log=True),),
            "d_dropout": (FloatDomain(type="float", low=0.0, high=0.7),),
            "g_dropout": (FloatDomain(type="float", low=0.0, high=0.5),),
            "units": (IntDomain(type="int", low=100, high=1000, log=True),),
        }
        self.optimum = BEST
        self.kimg_per_trial, self.measure_kimg = kimg_per_trial, kimg_per_trial / measurements
        self._seed = seed
        self._best = 0.25 + 0.5 * stream(seed, "optimum").random(len(WEIGHTS))
        self._weights = np.array([WEIGHTS[name] for name in sorted(WEIGHTS)])
        self._rate, self._ratio = map(sorted(WEIGHTS).index, ("learning_rate", "d_rate_ratio"))
        self._at = np.arange(1, measurements + 1) * self.measure_kimg
        self._kimg = self._at.tolist()

    def truth(self, params: Mapping[str, Scalar]) -> float:
        """The mean over seeds, those that diverge counted as an untrained net."""
        apart = self._apart(params)
        share = self._diverging(apart)
        return (1 - share) * self._plateau(apart) + share * MEAN_IMAGE

    def curve(self, number: int, params: Params, replicate: int = 0) -> LearningCurve:
        """One training of a configuration."""
        apart = self._apart(params)
        rng = stream(self._seed, f"noise/{replicate}", number)
        own, fate, end = rng.standard_normal(), rng.random(), 0.3 + 1.7 * rng.random()
        measured = rng.standard_normal(len(self._at)) * self.measurement_noise
        common = stream(self._seed, "evaluation", replicate).standard_normal()
        scale = self.kimg_per_trial / 8 * 10.0 ** (-0.5 * apart[self._rate])
        left, last = np.exp(-self._at / scale), math.exp(-self.kimg_per_trial / scale)
        plateau, dip = self._plateau(apart), 2 * self._at / scale
        values = plateau - (plateau - MEAN_IMAGE) * (left - last) / (1 - last)
        values -= DIP * dip * np.exp(1 - dip) * (1 - self._at / self.kimg_per_trial)
        values += own * self.seed_noise * (1 + 2 * left) + measured
        values += common * self.evaluation_noise
        diverges = fate < self._diverging(apart)
        count = len(self._at)
        if diverges:
            count = min(max(1, round(end * scale / self.measure_kimg)), count - 1)
        return LearningCurve(
            kimg=self._kimg[:count],
            values=array("d", values[:count].tobytes()),
            seconds=self._kimg[:count],
            truth=self.truth(params),
            infeasible=diverges,
        )

    def standard_error(self, number: int, rival: int, rung: float) -> float | None:
        """That of a difference of two trainings: a rung's points do not know of the seeds."""
        return math.sqrt(2) * self.measurement_noise

    def _apart(self, params: Mapping[str, Scalar]) -> np.ndarray:
        return np.array(coordinates_of(self.space, params)) - self._best

    def _plateau(self, apart: np.ndarray) -> float:
        together = 80 * apart[self._rate] * apart[self._ratio]
        return BEST - float(self._weights @ apart**2 + together)

    def _diverging(self, apart: np.ndarray) -> float:
        return min(max((float(apart[self._rate]) - SAFE) / RISKY, 0.0), 1.0)
