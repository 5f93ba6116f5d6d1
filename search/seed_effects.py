"""Least squares of scores by configuration and seed: means, and what is left as noise."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy import stats

_ROUNDING = 1e-9
_TWO_SIDED_5_PERCENT = 0.975


@dataclass(frozen=True, kw_only=True, eq=False)
class SeedEffects:
    """The fit of y_cj = mu_c + b_j + e_cj, of which only differences between the mu are known.

    With X and Z the indicators of configurations and seeds and P the projection off Z, the normal
    equations are A mu = h with A = X'PX and h = X'Py (Searle, 1971, "Linear Models", chapter 7).
    A has rank one less than there are configurations.

    Attributes:
        means: mu, summing to zero.
        axes: Eigenvectors of A for its positive eigenvalues, a column each.
        weights: Those eigenvalues: how many seeds stand behind each axis.
        along: h along the axes.
        total: y'Py, the sum of squares about the seeds' means.
        residual: That about the fit.
        degrees_of_freedom: Of the residual; infinite where the noise was given.
        noise: Standard deviation of e, estimated or given.
    """

    means: Float[np.ndarray, " configurations"]
    axes: Float[np.ndarray, "configurations axes"]
    weights: Float[np.ndarray, " axes"]
    along: Float[np.ndarray, " axes"]
    total: float
    residual: float
    degrees_of_freedom: float
    noise: float

    def difference(self, left: int, right: int) -> tuple[float, float]:
        """mu_left - mu_right, and half its 95 % interval by Student's t (1908)."""
        apart = self.axes[left] - self.axes[right]
        standard_error = self.noise * math.sqrt(float(np.sum(apart**2 / self.weights)))
        quantile = float(stats.t.ppf(_TWO_SIDED_5_PERCENT, self.degrees_of_freedom))
        return float(self.means[left] - self.means[right]), quantile * standard_error


def fit(scores: Sequence[Mapping[int, float]], noise: float | None = None) -> SeedEffects:
    """Fits the scores of at least two configurations, each by the index of its seed.

    Args:
        scores: Finite; a configuration may lack seeds that others have.
        noise: Known standard deviation of e; None estimates it.

    Raises:
        ValueError: Nothing is left to tell the noise by, or two configurations share no seed,
            even by way of others.
    """
    seeds = sorted(set().union(*scores))
    there = np.array([[float(seed in own) for seed in seeds] for own in scores])
    y = np.array([[own.get(seed, 0.0) for seed in seeds] for own in scores])
    off = there * (y - y.sum(0) / there.sum(0))
    normal = np.diag(there.sum(1)) - there / there.sum(0) @ there.T
    values, vectors = np.linalg.eigh(normal)
    if values[1] < _ROUNDING * values[-1] or values[-1] < _ROUNDING:
        raise ValueError("`scores` must pair configurations by their seeds, but some share none")
    weights, axes = values[1:], vectors[:, 1:]
    along = axes.T @ off.sum(1)
    left = int(there.sum()) - len(seeds) - (len(scores) - 1)
    if noise is None and left < 1:
        raise ValueError("`noise` must be given where no two configurations share two seeds")
    total = float(np.sum(off**2))
    explained = float(np.sum(along**2 / weights))
    residual = max(total - explained, 0.0)
    if residual < _ROUNDING * total:
        residual = 0.0
    return SeedEffects(
        means=axes @ (along / weights),
        axes=axes,
        weights=weights,
        along=along,
        total=total,
        residual=residual,
        degrees_of_freedom=left if noise is None else math.inf,
        noise=math.sqrt(residual / left) if noise is None else noise,
    )
