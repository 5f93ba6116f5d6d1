"""The density of continuous conditions, from which a generator's conditions are drawn.

Gauthier (2015, "Conditional generative adversarial nets for convolutional face generation")
draws them from a kernel density of the training set's, so that the generator never sees a
training vector as it is, and takes the kernel's width by the likelihood of held-out vectors.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float32, Float64

from cgan_core.parzen import select_bandwidth

HELD_OUT_SHARE = 0.2


@dataclass(frozen=True, eq=False)
class ConditionDensity:
    """A Gaussian kernel density p_y over the training split's conditions.

    Attributes:
        centers: The training conditions.
        scale: Standard deviation of each column over them.
        bandwidth: Standard deviation of each kernel, in units of `scale`.
    """

    centers: Float32[np.ndarray, "images columns"]
    scale: Float64[np.ndarray, " columns"]
    bandwidth: float

    @classmethod
    def fit(
        cls, conditions: Float32[np.ndarray, "images columns"], generator: np.random.Generator
    ) -> "ConditionDensity":
        """Fits the width to the likelihood of held-out rows of the training conditions.

        Args:
            conditions: Finite, at least two rows, not all equal.
            generator: Decides which rows are held out.
        """
        scale = conditions.std(axis=0, dtype=np.float64)
        varying = scale > 0  # a constant column says nothing about the width
        standard = (conditions - conditions.mean(axis=0, dtype=np.float64))[:, varying]
        rows = torch.from_numpy(generator.permutation(standard / scale[varying]))
        held_out = max(1, round(len(rows) * HELD_OUT_SHARE))
        bandwidth = select_bandwidth(rows[:held_out], rows[held_out:], method="exact")
        return cls(conditions, scale, bandwidth)

    def sample(
        self, count: int, generator: np.random.Generator
    ) -> Float32[np.ndarray, "count columns"]:
        """Draws `count` conditions: a random training row plus Gaussian noise of the width."""
        rows = self.centers[generator.integers(len(self.centers), size=count)]
        noise = generator.standard_normal(rows.shape) * self.scale * self.bandwidth
        drawn: Float32[np.ndarray, "count columns"] = (rows + noise).astype(np.float32)
        return drawn
