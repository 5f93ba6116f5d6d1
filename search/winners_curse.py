"""How much better than it is the best of many noisy scores looks."""

import math
from collections.abc import Sequence
from statistics import fmean, median

from scipy import integrate, stats

_FAR = 12.0  # a standard normal is never beyond


def expected_maximum(count: int) -> float:
    """E[max of n standard normals], the integral of x n phi(x) Phi(x)^(n-1) over x.

    Raises:
        ValueError: There are none.
    """
    if count < 1:
        raise ValueError(f"`count >= 1` must hold, but got count={count}")

    def density(x: float) -> float:
        return x * count * math.exp(stats.norm.logpdf(x) + (count - 1) * stats.norm.logcdf(x))

    return float(integrate.quad(density, -_FAR, _FAR, points=(0.0, 3.0), limit=200)[0])


def winners_curse(num_trials: int, noise: float, spread: float) -> float:
    """How far the best of n scores is expected to exceed what its configuration is worth.

    Scores are x_i = theta_i + e_i with theta_i ~ N(m, tau^2) and e_i ~ N(0, noise^2). Given its
    score, a configuration is worth noise^2 / s^2 less of what the score lies above the mean, with
    s^2 = tau^2 + noise^2 the variance of the scores; the best of n is expected s E_n above it, E_n
    being `expected_maximum`. So the excess is

        E[max_i x_i - theta_best] = noise^2 / s E_n

    (Smith & Winkler, 2006, "The optimizer's curse", section 2.3). Where all are equally good s is
    the noise, and the excess noise E_n; scores that spread by less than the noise count as that.

    Args:
        num_trials: How many scores the best was chosen from, n.
        noise: Standard deviation of a score about what its configuration is worth.
        spread: Standard deviation of the scores, s. The search leaves it a long tail of poor
            ones, which no normal has and from which no winner comes: `upper_spread` is meant.

    Raises:
        ValueError: There is no trial, or a deviation is negative or not finite.
    """
    for name, value in (("noise", noise), ("spread", spread)):
        if not 0 <= value < math.inf:
            raise ValueError(f"`0 <= {name} < inf` must hold, but got {name}={value}")
    if noise == 0:
        return 0.0
    return noise**2 / max(spread, noise) * expected_maximum(num_trials)


def upper_spread(scores: Sequence[float]) -> float:
    """The standard deviation of the normal whose upper half the scores above their median show.

    The square root of the mean squared distance of those from the median.

    Raises:
        ValueError: There is no score.
    """
    if not scores:
        raise ValueError("`scores` must hold at least one score, but got none")
    middle = median(scores)
    return math.sqrt(fmean((score - middle) ** 2 for score in scores if score >= middle))
