"""Condition vectors brought to mean 0 and standard deviation 1."""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32, Float64


@dataclass(frozen=True, eq=False)
class Standardization:
    """(y - mean) / scale of each column, both taken from the training split.

    Attributes:
        mean: Of each column.
        scale: Standard deviation of each column; 1 where a column is constant, which becomes 0.
    """

    mean: Float64[np.ndarray, " columns"]
    scale: Float64[np.ndarray, " columns"]

    @classmethod
    def fit(cls, vectors: Float[np.ndarray, "images columns"]) -> "Standardization":
        """Takes both from finite vectors, at least one.

        Sums are rounded once (`math.fsum`), so that the digest of what is standardised is the
        same on every machine: an ordinary sum depends on the width of its vector registers.
        """
        columns = vectors.astype(np.float64).T
        mean = np.array([math.fsum(column) / len(column) for column in columns])
        variance = [
            math.fsum((column - m) ** 2) / len(column)
            for column, m in zip(columns, mean, strict=True)
        ]
        scale = np.sqrt(np.array(variance))
        scale[columns.min(1) == columns.max(1)] = 1.0  # rounding of a mean is no variation
        return cls(mean, scale)

    def apply(
        self, vectors: Float[np.ndarray, "images columns"]
    ) -> Float32[np.ndarray, "images columns"]:
        """Standardises vectors as they were measured."""
        standard: Float32[np.ndarray, "images columns"]
        standard = ((vectors.astype(np.float64) - self.mean) / self.scale).astype(np.float32)
        return standard
