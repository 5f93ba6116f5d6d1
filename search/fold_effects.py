"""Least squares of scores by trial and fold: how far trials lie apart, and what is noise."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

_ROUNDING = 1e-9

FoldScore = tuple[int, float]
"""The fold of a run, 0 where there is one only, and its score."""


@dataclass(frozen=True, kw_only=True, eq=False)
class FoldEffects:
    """The fit of y_cfr = mu_c + b_f + e_cfr: trial c in round r, its score on fold f.

    A fold may be harder than another for all trials alike; without b that would pass for chance.

    Attributes:
        means: mu of each trial by its number, up to what all share.
        noise: Standard deviation of e; 0 without degrees of freedom.
        degrees_of_freedom: Runs less trials less folds, plus one where folds are compared.
    """

    means: Mapping[int, float]
    noise: float
    degrees_of_freedom: int
    _counts: Mapping[int, int]
    _shares: Mapping[int, Float[np.ndarray, " folds"]]  # of each trial's runs, those of each fold
    _spread: Float[np.ndarray, "folds folds"]

    def difference(self, left: int, right: int) -> tuple[float, float]:
        """mu_left - mu_right and its standard error.

        That is s sqrt(1 / n_left + 1 / n_right) where both have the same share of each fold.
        """
        unlike = self._shares[left] - self._shares[right]
        variance = 1 / self._counts[left] + 1 / self._counts[right]
        variance += float(unlike @ self._spread @ unlike)
        return self.means[left] - self.means[right], self.noise * math.sqrt(variance)


def fit(values: Mapping[int, Sequence[FoldScore]]) -> FoldEffects:
    """Fits the scores of trials, of which each has at least one.

    What a fold is worth is fitted within trials (Frisch & Waugh 1933), so that the means are plain
    ones where all trials have the same share of each fold.
    """
    folds = sorted({fold for own in values.values() for fold, _ in own})
    there = {n: np.array([[f == fold for f in folds] for fold, _ in values[n]]) for n in values}
    scores = {n: np.array([score for _, score in values[n]]) for n in values}
    shares = {n: there[n].mean(0) for n in values}
    within = np.concatenate([there[n] - shares[n] for n in values])
    y = np.concatenate([scores[n] - scores[n].mean() for n in values])
    worth, _, rank, _ = np.linalg.lstsq(within, y, rcond=_ROUNDING)
    left = len(y) - len(values) - int(rank)
    residual = float(np.sum((y - within @ worth) ** 2))
    return FoldEffects(
        means={n: float(scores[n].mean() - shares[n] @ worth) for n in values},
        noise=math.sqrt(residual / left) if left else 0.0,
        degrees_of_freedom=left,
        _counts={n: len(values[n]) for n in values},
        _shares=shares,
        _spread=np.linalg.pinv(within.T @ within, rcond=_ROUNDING),
    )
