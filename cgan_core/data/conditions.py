"""What a generator's condition vectors are drawn from: three ways, all of the training split.

Gauthier (2015, "Conditional generative adversarial nets for convolutional face generation")
draws them from a kernel density of the training set's, so that the generator never sees a
training vector as it is, and takes the kernel's width by the likelihood of held-out vectors.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float32, Float64, Int64

from cgan_core.data.errors import DataError
from cgan_core.data.images import DataSplits
from cgan_core.parzen import select_bandwidth

SamplerKind = Literal["kde", "empirical", "uniform"]
HELD_OUT_SHARE = 0.2


@dataclass(frozen=True, eq=False)
class ConditionDensity:
    """A Gaussian kernel density p_y over the training conditions, with their mean and variance.

    A training row c_i plus noise of width h (in standard deviations s) has 1 + h^2 times the
    variance of the data: with the 30 columns of LFWcrop a discriminator could tell fakes by the
    length of y alone. So draws are those of the smoothed bootstrap with its variance corrected
    (Silverman 1986, "Density estimation for statistics and data analysis", section 6.4.1):

        y = m + (c_i - m + h s e) / sqrt(1 + h^2),    e normal,

    of which m and s are the training rows' mean and standard deviation. Gauthier has no
    correction: y = c_i + h s e. A constant column stays as it is.

    Attributes:
        centers: The training conditions c_i.
        scale: Standard deviation s of each column over them.
        bandwidth: h, the width under which held-out rows are likeliest in the density without
            the correction.
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
        scale[np.ptp(conditions, axis=0) == 0] = 0.0  # rounding of a mean is no variation
        varying = scale > 0  # a constant column says nothing about the width
        standard = (conditions - conditions.mean(axis=0, dtype=np.float64))[:, varying]
        rows = torch.from_numpy(generator.permutation(standard / scale[varying]))
        held_out = max(1, round(len(rows) * HELD_OUT_SHARE))
        bandwidth = select_bandwidth(rows[:held_out], rows[held_out:], method="exact")
        return cls(conditions, scale, bandwidth)

    @cached_property
    def kernel_centers(self) -> Float32[np.ndarray, "images columns"]:
        """Where the kernels sit: m + (c_i - m) / sqrt(1 + h^2)."""
        mean = self.centers.mean(axis=0, dtype=np.float64)
        drawn_in = mean + (self.centers - mean) / np.sqrt(1 + self.bandwidth**2)
        seats: Float32[np.ndarray, "images columns"]
        seats = np.where(self.scale > 0, drawn_in, self.centers).astype(np.float32)
        return seats

    @property
    def kernel_widths(self) -> Float64[np.ndarray, " columns"]:
        """Standard deviation of the kernels in each column: h s / sqrt(1 + h^2)."""
        widths: Float64[np.ndarray, " columns"]
        widths = self.scale * self.bandwidth / np.sqrt(1 + self.bandwidth**2)
        return widths

    def sample(
        self, count: int, generator: np.random.Generator
    ) -> Float32[np.ndarray, "count columns"]:
        """Draws `count` conditions."""
        return self.sample_with_rows(count, generator)[0]

    def sample_with_rows(
        self, count: int, generator: np.random.Generator
    ) -> tuple[Float32[np.ndarray, "count columns"], Int64[np.ndarray, " count"]]:
        """The same draws, and the training row i that each was made from."""
        rows = generator.integers(len(self.centers), size=count)
        seats = self.kernel_centers[rows]
        noise = generator.standard_normal(seats.shape) * self.kernel_widths
        return (seats + noise).astype(np.float32), rows


@dataclass(frozen=True, eq=False)
class EmpiricalConditions:
    """The training conditions as they are, each with the same chance.

    A generator can then learn to give back each picture by its condition.

    Attributes:
        rows: The training conditions.
    """

    rows: Float32[np.ndarray, "images columns"]

    def sample(
        self, count: int, generator: np.random.Generator
    ) -> Float32[np.ndarray, "count columns"]:
        """Draws `count` conditions."""
        return self.rows[generator.integers(len(self.rows), size=count)]


@dataclass(frozen=True, eq=False)
class UniformConditions:
    """Every column on its own, uniform over its range in the training split.

    Attributes:
        low: Smallest value of each column.
        high: Largest value.
    """

    low: Float32[np.ndarray, " columns"]
    high: Float32[np.ndarray, " columns"]

    def sample(
        self, count: int, generator: np.random.Generator
    ) -> Float32[np.ndarray, "count columns"]:
        """Draws `count` conditions."""
        shares = generator.random((count, len(self.low)), dtype=np.float32)
        drawn: Float32[np.ndarray, "count columns"] = self.low + shares * (self.high - self.low)
        np.minimum(drawn, self.high, out=drawn)  # rounding may step over it
        return drawn


VectorSampler = ConditionDensity | EmpiricalConditions | UniformConditions


def settled_kind(kind: SamplerKind | None, splits: DataSplits) -> SamplerKind:
    """How conditions of these data are drawn: as asked for, or as suits them where it is open.

    Labels and visible parts of pictures are drawn as they come (`empirical`), vectors from the
    kernel density.

    Raises:
        DataError: If labels are asked from a density, or visible parts of pictures from anything
            but pictures: noise on pixels makes no picture.
    """
    labelled, masked = splits.num_classes is not None, splits.mask is not None
    if kind is None:
        return "empirical" if labelled or masked else "kde"
    allowed = ("empirical",) if masked else ("empirical", "uniform") if labelled else None
    if allowed is not None and kind not in allowed:
        what = "visible parts of pictures" if masked else "labels"
        raise DataError(
            f"condition_sampler must be {' or '.join(allowed)} where conditions are {what}, "
            f"but got {kind}; correct it or leave it out"
        )
    return kind


def vector_sampler(
    kind: SamplerKind,
    conditions: Float32[np.ndarray, "images columns"],
    generator: np.random.Generator,
) -> VectorSampler:
    """Makes what draws condition vectors.

    Args:
        kind: Which of the three.
        conditions: Of the training images that are learnt from, and of no others.
        generator: Decides which rows the density's width is chosen by.
    """
    if kind == "kde":
        return ConditionDensity.fit(conditions, generator)
    if kind == "empirical":
        return EmpiricalConditions(conditions)
    return UniformConditions(conditions.min(axis=0), conditions.max(axis=0))
