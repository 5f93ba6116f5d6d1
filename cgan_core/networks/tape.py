"""What a network's affine layers saw in one forward pass, to form their gradients from.

Autograd carries gradients from layer to layer; those of the weights are formed here, from the
gradient u at a layer's output: dW = (s u)^T x and db = sum of s u over the rows, where s scales
rows. So one backward pass can serve two losses (`cgan_core.game`), products can be of another
precision than the weights, and the gradient at an input that nobody asks for is never made.

Leading axes, where there are any, are the members of a stacked population. `torch.func.vmap` may
return the records of a forward pass, for they are tuples of tensors.
"""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from cgan_core.networks.layers import ConditionLayer
from cgan_core.networks.products import affine, matmul

Rows = Float[Tensor, "*members rows"]
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


Gradients = Iterable[tuple[str, Gradient | FormedGradient]]
"""With the parameter's name in its network; gone through once, made without the weights."""


class AffineRecord(NamedTuple):
    """One use of y = x W^T + b; x and W as the product saw them."""

    output: Tensor
    input: Tensor
    weight: Tensor

    def weight_gradient(self, at_output: Activations) -> Gradient:
        """Returns u^T x."""
        return Gradient(at_output.to(self.input.dtype), self.input)

    def input_gradient(self, at_output: Activations) -> Activations:
        """Returns u W."""
        return matmul(at_output.to(self.weight.dtype), self.weight).to(at_output.dtype)


class LookupRecord(NamedTuple):
    """One use of y = x W + b, where x is one-hot or a vector."""

    output: Tensor
    input: Tensor

    def weight_gradient(self, at_output: Activations) -> Gradient:
        """Returns x^T u."""
        return Gradient(self.input.to(at_output.dtype), at_output)


Record = AffineRecord | LookupRecord


class Tape:
    """Applies a network's affine layers and keeps what their gradients need.

    Args:
        dtype: of the matrix products; None leaves it to the weights.

    Attributes:
        records: of affine layers, by place.
        statistics: mean and unbiased variance of a batch, by place.
        directions: of the power method, by buffer.
    """

    def __init__(self, dtype: torch.dtype | None = None, *noted: dict[str, Any]) -> None:
        self.dtype = dtype
        self.records: dict[str, Record] = {}
        self.statistics: dict[str, tuple[Tensor, Tensor]] = {}
        self.directions: dict[str, Tensor] = {}
        if noted:
            self.records, self.statistics, self.directions = noted

    def noted(self) -> tuple[dict[str, Any], ...]:
        """Returns all that it notes, as another takes it."""
        return self.records, self.statistics, self.directions

    def apply(self, place: str, layer: nn.Module, x: Tensor) -> Activations:
        """Applies an affine layer, on activations or on conditions."""
        if isinstance(layer, ConditionLayer):
            return self._look_up(place, layer, x)
        assert isinstance(layer, nn.Linear)
        return self._affine(place, layer, x)

    def _affine(self, place: str, layer: nn.Linear, x: Activations) -> Activations:
        weight = layer.weight.detach()
        dtype = self.dtype or weight.dtype
        x, weight = x.to(dtype), weight.to(dtype)
        output = affine(x, weight, layer.bias)
        self.records[place] = AffineRecord(output, x.detach(), weight)
        return output

    def _look_up(self, place: str, layer: ConditionLayer, condition: Tensor) -> Activations:
        output: Tensor = layer(condition)
        if not condition.dtype.is_floating_point:
            classes = torch.arange(layer.weight.shape[-2], device=condition.device)
            condition = condition.unsqueeze(-1) == classes
        self.records[place] = LookupRecord(output, condition)
        return output


def apply_layer(
    layer: nn.Module, x: Tensor, place: str, tape: Tape | None
) -> Float[Tensor, "rows _"]:
    """Applies an affine layer, on a tape where there is one."""
    output: Tensor = layer(x) if tape is None else tape.apply(place, layer, x)
    return output


def output_gradients(
    output: Tensor, cotangent: Tensor, records: Mapping[str, Record]
) -> dict[str, Activations]:
    """Returns the gradient at the output of each layer, by one backward pass."""
    outputs = [record.output for record in records.values()]
    gradients = torch.autograd.grad(output, outputs, cotangent)
    return dict(zip(records, gradients, strict=True))


def parameter_gradients(
    records: Mapping[str, Record],
    at_outputs: Mapping[str, Activations],
    scale: Rows | None = None,
) -> Gradients:
    """Yields the gradient of each weight and bias with its name, the rows scaled."""
    for place, u in at_outputs.items():
        scaled = u if scale is None else u * scale.unsqueeze(-1)
        yield f"{place}.weight", records[place].weight_gradient(scaled)
        yield f"{place}.bias", Gradient(scaled)
