"""Traits of pictures that no network is told, read from conditions or from pixels: for judging.

A condition such as an attribute vector says little to a reader. Whether samples heed it can be
told by a trait that it implies: what a linear model reads from y, a classifier of real pictures
should find in G(z | y).
"""

import dataclasses
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float32, Float64, Int
from torch.nn import functional

from cgan_core.data import DataSplits, LabeledImages

UNKNOWN = -1
RIDGE = 1.0  # penalty on squared weights beside the sum of the losses
ITERATIONS = 200


@dataclass(frozen=True)
class LinearTrait:
    """Logistic regression of a trait on condition vectors: log-odds w . y + b.

    Attributes:
        weights: w.
        bias: b.
    """

    weights: Float64[np.ndarray, " columns"]
    bias: float

    @classmethod
    def fit(
        cls, conditions: Float32[np.ndarray, "images columns"], trait: Int[np.ndarray, " images"]
    ) -> "LinearTrait":
        """Minimises the cross-entropy plus |w|^2 / 2 over the images whose trait is known."""
        known = trait != UNKNOWN
        y = torch.from_numpy(conditions[known]).double()
        target = torch.from_numpy(trait[known]).double()
        w = torch.zeros(y.shape[1] + 1, dtype=torch.float64, requires_grad=True)
        optimizer = torch.optim.LBFGS([w], max_iter=ITERATIONS, line_search_fn="strong_wolfe")

        def loss() -> torch.Tensor:
            optimizer.zero_grad()
            logits = y @ w[:-1] + w[-1]
            value = functional.binary_cross_entropy_with_logits(logits, target, reduction="sum")
            value = value + RIDGE / 2 * w[:-1].square().sum()
            value.backward()
            return value

        with torch.enable_grad():
            optimizer.step(loss)
        found = w.detach().numpy()
        return cls(found[:-1], float(found[-1]))

    def log_odds(
        self, conditions: Float32[np.ndarray, "rows columns"]
    ) -> Float64[np.ndarray, " rows"]:
        """Returns w . y + b."""
        odds: Float64[np.ndarray, " rows"] = conditions @ self.weights + self.bias
        return odds

    def has(self, conditions: Float32[np.ndarray, "rows columns"]) -> Bool[np.ndarray, " rows"]:
        """Returns whether each condition has the trait rather than not."""
        return self.log_odds(conditions) > 0

    def towards(
        self, conditions: Float32[np.ndarray, "rows columns"], log_odds: float
    ) -> Float32[np.ndarray, "rows columns"]:
        """Moves conditions along w, and no other way, until they have these log-odds."""
        lacking = log_odds - self.log_odds(conditions)
        steps = lacking[:, None] * self.weights / self.weights.dot(self.weights)
        moved: Float32[np.ndarray, "rows columns"] = (conditions + steps).astype(np.float32)
        return moved


def trait_splits(splits: DataSplits, name: str) -> DataSplits:
    """Returns the images whose trait is known, with it as label, as a classifier takes them."""
    return dataclasses.replace(
        splits,
        train=_labelled(splits.train, name),
        validation=_labelled(splits.validation, name),
        test=_labelled(splits.test, name),
        name=f"{splits.name} by {name}",
        num_classes=2,
        standardization=None,
        mask=None,
    )


def _labelled(part: LabeledImages, name: str) -> LabeledImages:
    trait = part.traits[name]
    known = np.flatnonzero(trait != UNKNOWN)
    return LabeledImages(part.images[known], trait[known])
