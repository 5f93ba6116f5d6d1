"""Gradients of weights that are formed when they are used."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

Activations = Float[Tensor, "*members rows _"]


class Gradient(NamedTuple):
    """A weight's gradient a^T b over the rows, or a bias's: the sum of a's rows.

    It is multiplied out when it is used, so that it may go straight into an optimiser's buffer
    and what is used up at once stays in the cache.
    """

    a: Activations
    b: Activations | None = None

    def formed(self) -> Tensor:
        """Returns the gradient in float32, or in the precision of finer factors."""
        if self.b is None:
            return self.a.sum(-2)
        product = self.a.mT @ self.b
        return product.float() if product.dtype == torch.bfloat16 else product

    def add_to(self, buffer: Tensor, factor: float, decay: float) -> None:
        """Updates a buffer of one member to decay * buffer + factor * gradient."""
        if self.b is not None and self.b.dtype == buffer.dtype:
            torch.addmm(buffer, self.a.mT, self.b, beta=decay, alpha=factor, out=buffer)
        else:
            scaled = Gradient(self.a * factor, self.b).formed()  # a is the smallest to scale
            torch.add(scaled, buffer, alpha=decay, out=buffer)


class FormedGradient(NamedTuple):
    """A gradient that autograd has formed."""

    value: Tensor

    def formed(self) -> Tensor:
        """Returns it."""
        return self.value

    def add_to(self, buffer: Tensor, factor: float, decay: float) -> None:
        """Updates a buffer to decay * buffer + factor * gradient."""
        buffer.mul_(decay).add_(self.value, alpha=factor)
