"""Samples of a generator, as the evaluation takes them."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


class SampleError(ValueError):
    """Samples are not finite, or not in [0, 1]."""


@dataclass(frozen=True)
class Samples:
    """Images in [0, 1] with the conditions that they were generated for, or None."""

    images: Float[Tensor, "samples pixels"]
    conditions: Tensor | None

    def __getitem__(self, rows: slice) -> "Samples":
        return Samples(
            self.images[rows], None if self.conditions is None else self.conditions[rows]
        )

    def to(self, device: torch.device) -> "Samples":
        """Returns them on a device; what is there already is not copied."""
        conditions = None if self.conditions is None else self.conditions.to(device)
        return Samples(self.images.to(device), conditions)


def checked(samples: Samples) -> Samples:
    """Returns the samples, or raises SampleError if one is not finite or not in [0, 1].

    In [-1, 1] every score would be off by D log 2 (543 nats for MNIST).
    """
    low, high = samples.images.aminmax()
    if not (low >= 0 and high <= 1):  # also false for NaN
        message = f"`0 <= sample <= 1` must hold, but got values from {low:g} to {high:g}"
        raise SampleError(message)
    return samples
