"""What a network's affine layers saw in one forward pass, to form their gradients from.

Convolutions are affine too (`cgan_core.networks.taped_convolution`).

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

from cgan_core.networks.gradients import Activations, FormedGradient, Gradient
from cgan_core.networks.layers import ConditionLayer
from cgan_core.networks.products import affine, matmul
from cgan_core.networks.taped_convolution import ConvGradient, Convolution, ConvRecord

__all__ = ["Activations", "FormedGradient", "Gradient", "Gradients", "Record", "Tape"]

Rows = Float[Tensor, "*members rows"]
Gradients = Iterable[tuple[str, Gradient | FormedGradient | ConvGradient]]
"""With the parameter's name in its network; gone through once, made without the weights."""


class AffineRecord(NamedTuple):
    """One use of y = x W^T + b; x and W as the product saw them."""

    output: Tensor
    input: Tensor
    weight: Tensor

    def weight_gradient(self, at_output: Activations) -> Gradient:
        """Returns u^T x."""
        return Gradient(at_output.to(self.input.dtype), self.input)

    def bias_gradient(self, at_output: Activations) -> Gradient:
        """Returns the sum of u over the rows."""
        return Gradient(at_output)

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

    def bias_gradient(self, at_output: Activations) -> Gradient:
        """Returns the sum of u over the rows."""
        return Gradient(at_output)


Record = AffineRecord | LookupRecord | ConvRecord


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
        """Applies an affine layer or a convolution, on activations or on conditions."""
        if isinstance(layer, ConditionLayer):
            return self._look_up(place, layer, x)
        if isinstance(layer, Convolution):
            record = self.records[place] = layer.recorded(x, self.dtype)
            return record.output
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
        yield f"{place}.bias", records[place].bias_gradient(scaled)
