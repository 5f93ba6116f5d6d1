"""Convolutions on flat rows, and the gradients of their weights.

A row holds maps of height x width x channels, the channels last, as an image does, so that no
pass over memory turns one into the other.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import vmap
from torch.utils import _pytree as pytree

from cgan_core.networks.gradients import Activations, Gradient

MapShape = tuple[int, int, int]  # height, width, channels


@dataclass(frozen=True)
class Geometry:
    """What a convolution is, its values apart.

    Args:
        input: height, width and channels.
        output: likewise.
        kernel: side of the square kernel.
        stride: of both axes.
        padding: zeros at each end of the input; of a transposed convolution, what is cut off at
            each end of its output.
        output_padding: of a transposed convolution: rows and columns that are cut off once less.
        transposed: whether it is one.
        biases: one a channel, or one for each value of the output.
    """

    input: MapShape
    output: MapShape
    kernel: int
    stride: int
    padding: tuple[int, int]
    output_padding: tuple[int, int]
    transposed: bool
    biases: int

    @property
    def weight_shape(self) -> tuple[int, int, int, int]:
        """As PyTorch has it: the side with the larger stride's grid first."""
        channels = self.input[2], self.output[2]
        first, second = channels if self.transposed else channels[::-1]
        return first, second, self.kernel, self.kernel

    def maps(self, x: Activations, weight: Tensor) -> Float[Tensor, "rows _"]:
        """Applies it, without the bias, to flat rows."""
        found = torch.convolution(
            _maps(x, self.input),
            weight,
            None,
            (self.stride, self.stride),
            self.padding,
            (1, 1),
            self.transposed,
            self.output_padding,
            1,
        )
        return _rows(found)

    def backward(
        self, at_output: Activations, x: Activations, weight: Tensor, *, for_input: bool
    ) -> Tensor:
        """Returns the gradient at the flat input, or that of the weight."""
        at_input, of_weight, _ = torch.ops.aten.convolution_backward(
            _maps(at_output, self.output),
            _maps(x, self.input),
            weight,
            None,
            (self.stride, self.stride),
            self.padding,
            (1, 1),
            self.transposed,
            self.output_padding,
            1,
            (for_input, not for_input, False),
        )
        found: Tensor = _rows(at_input) if for_input else of_weight
        return found


pytree.register_constant(Geometry)  # vmap passes it through a record as it is


def convolution(shape: MapShape, channels: int, kernel: int, padding: int) -> Geometry:
    """Returns a convolution of stride 1 with a bias a channel."""
    height, width = (side + 2 * padding - kernel + 1 for side in shape[:2])
    both = (padding, padding)
    output = (height, width, channels)
    return Geometry(shape, output, kernel, 1, both, (0, 0), transposed=False, biases=channels)


def deconvolution(shape: MapShape, channels: int, kernel: int, stride: int) -> Geometry:
    """Returns a transposed convolution onto maps of a shape, with a bias for each of its values.

    n sides of input reach (n - 1) stride + kernel of output, so that n = ceil((s - kernel) /
    stride) + 1 is the least that reach s; what there is too much is cut off, the first row and
    column before the last.
    """
    sides = [max(-(-(side - kernel) // stride), 0) + 1 for side in shape[:2]]
    extra = [
        (count - 1) * stride + kernel - side for count, side in zip(sides, shape[:2], strict=True)
    ]
    padding = (-(-extra[0] // 2), -(-extra[1] // 2))
    output_padding = (extra[0] % 2, extra[1] % 2)
    return Geometry(
        (sides[0], sides[1], channels),
        shape,
        kernel,
        stride,
        padding,
        output_padding,
        transposed=True,
        biases=math.prod(shape),
    )


class Convolution(nn.Module):
    """A convolution, or a transposed one, from flat rows to flat rows."""

    def __init__(self, geometry: Geometry) -> None:
        super().__init__()
        self.geometry = geometry
        self.weight = nn.Parameter(torch.empty(geometry.weight_shape))
        self.bias = nn.Parameter(torch.empty(geometry.biases))

    def forward(self, x: Float[Tensor, "rows _"]) -> Float[Tensor, "rows _"]:
        """Applies it."""
        return _biased(self.geometry.maps(x, self.weight), self.bias)

    def recorded(self, x: Float[Tensor, "rows _"], dtype: torch.dtype | None) -> "ConvRecord":
        """Applies it with products of a precision, and keeps what its gradients need."""
        weight = self.weight.detach()
        x, weight = x.to(dtype or weight.dtype), weight.to(dtype or weight.dtype)
        output = _biased(self.geometry.maps(x, weight).to(self.bias.dtype), self.bias)
        return ConvRecord(output, x.detach(), weight, self.geometry)


class ConvGradient(NamedTuple):
    """The gradient of a convolution's weight, formed when it is used."""

    at_output: Activations
    input: Activations
    weight: Tensor  # as the product saw it; of its shape alone something is asked
    geometry: Geometry

    def formed(self) -> Tensor:
        """Returns the gradient in float32, or in the precision of finer factors."""

        def of_one(at_output: Tensor, x: Tensor, weight: Tensor) -> Tensor:
            return self.geometry.backward(at_output, x, weight, for_input=False)

        form = vmap(of_one) if self.input.ndim == 3 else of_one
        gradient: Tensor = form(self.at_output, self.input, self.weight).contiguous()
        return gradient.float() if gradient.dtype == torch.bfloat16 else gradient

    def add_to(self, buffer: Tensor, factor: float, decay: float) -> None:
        """Updates a buffer of one member to decay * buffer + factor * gradient."""
        buffer.mul_(decay).add_(self.formed(), alpha=factor)


class ConvRecord(NamedTuple):
    """One use of a convolution; x and W as the product saw them."""

    output: Tensor
    input: Tensor
    weight: Tensor
    geometry: Geometry

    def weight_gradient(self, at_output: Activations) -> ConvGradient:
        """Returns the correlation of u with x."""
        return ConvGradient(at_output.to(self.input.dtype), self.input, self.weight, self.geometry)

    def bias_gradient(self, at_output: Activations) -> Gradient:
        """Returns the sum of u over rows, and over the places that share a bias."""
        return Gradient(at_output.unflatten(-1, (-1, self.geometry.biases)).flatten(-3, -2))

    def input_gradient(self, at_output: Activations) -> Activations:
        """Returns u carried back through W, of as many of the last rows as u has."""
        rows = at_output.shape[-2]

        def of_one(u: Tensor, x: Tensor, weight: Tensor) -> Tensor:
            return self.geometry.backward(u, x, weight, for_input=True)

        form = vmap(of_one) if at_output.ndim == 3 else of_one
        u = at_output.to(self.weight.dtype)
        gradient: Tensor = form(u, self.input[..., -rows:, :], self.weight)
        return gradient.to(at_output.dtype)


def _maps(rows: Tensor, shape: MapShape) -> Tensor:
    maps: Tensor = rows.unflatten(-1, shape)
    return maps.movedim(-1, -3)


def _rows(maps: Tensor) -> Tensor:
    return maps.movedim(-3, -1).flatten(-3)


def _biased(maps: Tensor, bias: Tensor) -> Tensor:
    apart: Tensor = maps.unflatten(-1, (-1, len(bias)))
    return (apart + bias).flatten(-2)
