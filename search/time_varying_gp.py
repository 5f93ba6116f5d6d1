"""A Gaussian process over functions that drift: what was seen long ago says less of today."""

import math
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import Any, Self

import numpy as np
from jaxtyping import Float
from scipy.linalg import solve_triangular
from scipy.spatial.distance import cdist

Points = Float[np.ndarray, "points coordinates"]
Values = Float[np.ndarray, " points"]

_LENGTHSCALES = (0.1, 0.2, 0.4, 0.8, 1.6, 3.2)  # in sides of the cube
_FORGETTINGS = (0.0, 0.02, 0.1, 0.25, 0.5)
_NOISES = (1e-3, 1e-2, 1e-1, 1.0)  # in signal variances
_VARIANCES = (0.1, 10.0)  # in those of the rewards


@dataclass(frozen=True, kw_only=True)
class TimeVaryingGP:
    """The process with zero mean whose covariance fades with distance and with time.

    Observations are y_i = f(x_i, t_i) + e_i with e_i ~ N(0, s^2 n), and f has

        k((x, t), (x', t')) = s^2 exp(-|x - x'|^2 / 2 l^2) (1 - eps)^(|t - t'| / 2)

    (Bogunovic, Scarlett & Cevher 2016, "Time-varying Gaussian process bandit optimization"; used
    for populations by Parker-Holder, Nguyen & Roberts 2020, "Provably efficient online
    hyperparameter optimization with population-based bandits"). All in float64.

    Args:
        points: x of the observations, in the unit cube.
        times: t of each, in intervals.
        rewards: y of each, standardised.
        lengthscale: l.
        forgetting: eps in [0, 1); at 0 time does not matter.
        noise: n, the noise's variance in that of the signal.
        variance: s^2.
    """

    points: Points
    times: Values
    rewards: Values
    lengthscale: float
    forgetting: float
    noise: float
    variance: float

    @classmethod
    def fit(cls, points: Points, times: Values, rewards: Values) -> Self:
        """Returns the process of the highest marginal likelihood on a coarse, bounded grid.

        To each l, eps and n of the grid belongs the best s^2 = y'C^-1 y / N, kept in its bounds,
        with s^2 C the covariance of the N observations. A grid has no starting point and no
        precision, so rounding does not move it.
        """
        squares, ages = _squares(points, points), _ages(times, times)
        decays = {eps: _decay(ages, eps) for eps in _FORGETTINGS}
        best, kept = -math.inf, (_LENGTHSCALES[0], _FORGETTINGS[0], _NOISES[-1], 1.0)
        for length in _LENGTHSCALES:
            near = np.exp(-squares / (2 * length**2))
            for eps, noise in product(_FORGETTINGS, _NOISES):
                factor = _factor(near * decays[eps], noise)
                quadratic = float((_solved(factor, rewards) ** 2).sum())
                variance = min(max(quadratic / len(rewards), _VARIANCES[0]), _VARIANCES[1])
                likelihood = _log_likelihood(factor, quadratic, variance)
                if likelihood > best:
                    best, kept = likelihood, (length, eps, noise, variance)
        length, eps, noise, variance = kept
        return cls(
            points=points,
            times=times,
            rewards=rewards,
            lengthscale=length,
            forgetting=eps,
            noise=noise,
            variance=variance,
        )

    @property
    def log_likelihood(self) -> float:
        """The log marginal likelihood of the observations, in nats."""
        quadratic = float((self._whitened**2).sum())
        return _log_likelihood(self._cholesky, quadratic, self.variance)

    def posterior(
        self, points: Points, time: float, pending: Points | None = None
    ) -> tuple[Values, Values]:
        """Returns mean and standard deviation of f at points and one time.

        With K the covariance of the observations and k that with the points:

            mean = k'(K + s^2 n I)^-1 y,    sd^2 = s^2 - k'(K + s^2 n I)^-1 k

        Where rewards are awaited, the mean is imputed for them: that leaves the mean everywhere as
        it is, and the deviation is the one after them (GP-BUCB: Desautels, Krause & Burdick 2014,
        "Parallelizing exploration-exploitation tradeoffs in Gaussian process bandit
        optimization").

        Args:
            points: Where.
            time: When, in intervals.
            pending: Where rewards of that time are awaited.
        """
        half = _solved(self._cholesky, self._across(points, time))
        mean, known = half.T @ self._whitened, (half**2).sum(0)
        if pending is not None and len(pending):
            before = _solved(self._cholesky, self._across(pending, time))
            left = self._near(pending, pending) - before.T @ before
            cross = self._near(pending, points) - before.T @ half
            known = known + (_solved(_factor(left, self.noise), cross) ** 2).sum(0)
        return mean, np.sqrt(self.variance * np.maximum(1 - known, 0.0))

    @cached_property
    def _cholesky(self) -> Points:
        return _factor(self._similarity(self.points, self.times), self.noise)

    @cached_property
    def _whitened(self) -> Values:
        return np.asarray(_solved(self._cholesky, self.rewards))

    def _across(self, points: Points, time: float) -> Points:
        return self._similarity(points, np.full(len(points), float(time)))

    def _similarity(self, points: Points, times: Values) -> Points:
        """The kernel over s^2, observations by points."""
        decay = _decay(_ages(self.times, times), self.forgetting)
        return np.asarray(self._near(self.points, points) * decay)

    def _near(self, left: Points, right: Points) -> Points:
        return np.asarray(np.exp(-_squares(left, right) / (2 * self.lengthscale**2)))


def _squares(left: Points, right: Points) -> Points:
    return np.asarray(cdist(left, right, "sqeuclidean"))


def _ages(left: Values, right: Values) -> Points:
    return np.asarray(np.abs(left[:, None] - right[None]))


def _decay(ages: Points, forgetting: float) -> Points:
    return np.asarray((1 - forgetting) ** (ages / 2))


def _factor(similarity: Points, noise: float) -> Points:
    """The lower Cholesky factor of C, which the noise keeps well conditioned."""
    return np.asarray(np.linalg.cholesky(similarity + noise * np.eye(len(similarity))))


def _solved(factor: Points, right: np.ndarray[Any, np.dtype[np.float64]]) -> Any:
    return solve_triangular(factor, right, lower=True, check_finite=False)


def _log_likelihood(factor: Points, quadratic: float, variance: float) -> float:
    """Of rewards y at covariance s^2 C = s^2 F F', from F and y'C^-1 y."""
    log_determinant = 2 * float(np.log(np.diag(factor)).sum())
    constant = len(factor) * math.log(2 * math.pi * variance)
    return -(quadratic / variance + log_determinant + constant) / 2
