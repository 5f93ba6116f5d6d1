"""Training examples on the device, shared by every member of a population."""

import functools

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from cgan_core.config import GANConfig
from cgan_core.data import DataSplits
from cgan_core.data.conditions import (
    ConditionDensity,
    SamplerKind,
    VectorSampler,
    settled_kind,
    vector_sampler,
)
from cgan_core.data.standardization import Standardization
from cgan_core.networks import ConditionKind
from cgan_core.streams import stream


class Examples:
    """The training split as tensors: images stay bytes until a mini-batch is formed.

    Args:
        splits: whose training split it is.
    """

    def __init__(self, splits: DataSplits) -> None:
        train = splits.train
        flat = np.ascontiguousarray(train.images.reshape(len(train.images), -1))
        self.images: UInt8[Tensor, "n pixels"] = torch.from_numpy(flat)
        self.pixels = flat.shape[1]
        self.image_shape = splits.image_shape
        self.conditions = train.condition_tensor
        self.kind = condition_kind(splits)
        self._splits = splits
        self._samplers: dict[SamplerKind, VectorSampler] = {}

    def standardization_for(self, config: GANConfig) -> Standardization | None:
        """Returns how the conditions of a configuration's networks were standardised."""
        return None if config.condition == "none" else self._splits.standardization

    def kind_for(self, config: GANConfig) -> ConditionKind | None:
        """Returns what a configuration's networks are conditioned on."""
        return None if config.condition == "none" else self.kind

    def sampler_for(self, config: GANConfig) -> SamplerKind | None:
        """Returns how a configuration has the conditions of fakes drawn; None for no wish."""
        labels = self.kind is not None and self.kind.labels
        return config.condition_sampler or (config.label_sampler if labels else None)

    def __len__(self) -> int:
        return len(self.images)

    @functools.cached_property
    def pixel_means(self) -> Float[Tensor, " pixels"]:
        """Mean of each pixel over the training images, in [0, 1]."""
        return (self.images.double().mean(0) / 255).float()

    def batch(
        self, indices: Int[Tensor, " rows"]
    ) -> tuple[Float[Tensor, "rows pixels"], Tensor | None]:
        """Returns images in [0, 1] and their conditions."""
        images = self.images.index_select(0, indices).float().div_(255)
        return images, None if self.conditions is None else self.conditions[indices]

    @property
    def density(self) -> ConditionDensity | None:
        """The density of condition vectors; None for labels, parts of pictures, or nothing."""
        if self.kind is None or self.kind.labels or self._splits.mask is not None:
            return None
        density = self.vector_sampler("kde")
        assert isinstance(density, ConditionDensity)
        return density

    def vector_sampler(self, kind: SamplerKind | None = None) -> VectorSampler:
        """What draws condition vectors of the training split; made when first asked for.

        Raises:
            DataError: if there is no such way for these conditions.
        """
        settled = settled_kind(kind, self._splits)
        if settled not in self._samplers:
            conditions = self._splits.train.conditions
            assert conditions is not None
            rng = stream(0, "condition density")
            self._samplers[settled] = vector_sampler(settled, conditions, rng)
        return self._samplers[settled]

    def grid_vectors(self) -> Float[Tensor, "rows width"] | None:
        """Returns ten condition vectors for a grid of pictures, or None where they are none."""
        if self.kind is None or self.kind.labels:
            return None
        return self.draw_conditions(stream(0, "grid y"), 10)

    def draw_conditions(
        self, rng: np.random.Generator, rows: int, kind: SamplerKind | None = None
    ) -> Tensor | None:
        """Draws conditions for generated images, independently of any real batch.

        `empirical` ones are those of training images, `uniform` labels give every class the same
        chance, and `uniform` vectors lie anywhere in the box of the training ones. Vectors come
        from a density (`kde`) unless something else is asked for, so that no training vector is
        handed to the generator as it is (Gauthier 2015); visible parts of pictures are those of
        training images.

        Raises:
            DataError: if there is no such way for these conditions.
        """
        if self.conditions is None:
            return None
        if self._splits.num_classes is None:
            return torch.from_numpy(self.vector_sampler(kind).sample(rows, rng))
        if settled_kind(kind, self._splits) == "uniform":
            return torch.from_numpy(rng.integers(self._splits.num_classes, size=rows))
        return self.conditions[torch.from_numpy(rng.integers(len(self), size=rows))]


def condition_kind(splits: DataSplits) -> ConditionKind | None:
    """Returns what the networks of this data are conditioned on."""
    if splits.train.conditions is None:
        return None
    if splits.num_classes is not None:
        return ConditionKind(splits.num_classes, labels=True)
    return ConditionKind(splits.train.conditions.shape[1], labels=False)
