"""Layers that the families share."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

Masks = Mapping[str, Float[Tensor, "*members rows _"]]
"""Inverted-dropout masks by the place that they multiply, each as wide as its place.

An absent place is left alone.
"""

Conditions = Int[Tensor, " rows"] | Float[Tensor, "rows width"]
"""Labels 0 … classes-1, or condition vectors."""


@dataclass(frozen=True)
class ConditionKind:
    """What the networks are conditioned on.

    Args:
        width: number of classes, or length of the condition vector.
        labels: whether conditions are labels (one-hot y) rather than vectors.
    """

    width: int
    labels: bool


class ConditionLayer(nn.Module):
    """An affine layer on the condition y: W^T y + b.

    For labels y is one-hot, so the product is a row of W and is looked up instead of multiplied.
    """

    def __init__(self, kind: ConditionKind, units: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(kind.width, units))
        self.bias = nn.Parameter(torch.empty(units))

    def forward(self, condition: Conditions) -> Float[Tensor, "rows units"]:
        """Applies the layer to labels or vectors."""
        if condition.dtype.is_floating_point:
            return condition @ self.weight + self.bias
        return functional.embedding(condition, self.weight) + self.bias


def as_vectors(condition: Conditions, kind: ConditionKind) -> Tensor:
    """Returns conditions as vectors: labels one-hot."""
    if not kind.labels:
        return condition
    return condition.unsqueeze(-1) == torch.arange(kind.width, device=condition.device)


def maxout(affine: Float[Tensor, "rows pieces_units"], pieces: int) -> Float[Tensor, "rows units"]:
    """Returns max_k of the pieces of each unit (Goodfellow et al. 2013, "Maxout networks").

    The pieces of one unit lie `units` apart, so that the maximum runs over whole vectors. Pieces
    that tie share the gradient evenly.
    """
    largest: Tensor = _Maxout.apply(affine.unflatten(1, (pieces, -1)))  # type: ignore[no-untyped-call]
    return largest


class _Maxout(torch.autograd.Function):
    """`amax(-2)` whose backward is three passes over memory instead of PyTorch's seven.

    Two pieces are compared as wholes, which is ten times faster where units are few, as the maps
    of a convolution are: a reduction has its loop over them innermost.
    """

    @staticmethod
    def forward(by_piece: Tensor) -> Tensor:
        if by_piece.shape[-2] == 2:
            return torch.maximum(*by_piece.unbind(-2))
        return by_piece.amax(-2)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        ctx.save_for_backward(inputs[0], output)

    @staticmethod
    def backward(ctx: Any, *at_output: Tensor) -> Tensor:
        by_piece, largest = ctx.saved_tensors
        if by_piece.shape[-2] == 2:
            return _of_two(by_piece, at_output[0])
        chosen = torch.empty_like(by_piece)
        torch.eq(by_piece, largest.unsqueeze(-2), out=chosen)  # numbers: booleans would be slower
        return chosen.mul_((at_output[0] / chosen.sum(-2)).unsqueeze(-2))

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int], by_piece: Tensor) -> tuple[Tensor, int]:
        return _Maxout.apply(by_piece.movedim(in_dims[0], 0)), 0  # type: ignore[no-untyped-call]


def _of_two(by_piece: Tensor, at_largest: Tensor) -> Tensor:
    """Half the gradient goes to each of two pieces, and moves from the smaller to the larger."""
    first, second = by_piece.unbind(-2)
    half = at_largest * 0.5
    moved = torch.sub(first, second).sign_().mul_(half)
    return torch.stack([half + moved, half - moved], -2)


def drop(
    hidden: Float[Tensor, "rows units"], masks: Masks | None, place: str
) -> Float[Tensor, "rows units"]:
    """Multiplies a hidden layer's output by its mask, where it has one."""
    if masks is None or place not in masks:
        return hidden
    return hidden * masks[place]


def join(halves: list[Float[Tensor, "rows _"]], *, product: bool) -> Float[Tensor, "rows joint"]:
    """Joins the image's (or noise's) half with the condition's."""
    if len(halves) == 1:
        return halves[0]
    return halves[0] * halves[1] if product else torch.cat(halves, 1)


def joint_width(first: int, second: int | None, *, product: bool) -> int:
    """Returns the width of what `join` gives."""
    return first if second is None or product else first + second
