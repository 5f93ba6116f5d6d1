"""Affine layers in the precision and by the library that suit them.

PyTorch hands float32 products to MKL. On the AMD processor that this was written on oneDNN, which
PyTorch brings along too, is 5 to 15 % faster at mini-batches of 100 to 200, but dearer to call
(benchmarks/README.md).
"""

import platform
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

_ONEDNN = (
    platform.machine() in ("x86_64", "AMD64")
    and torch.backends.mkldnn.is_available()
    and hasattr(torch.ops.mkldnn, "_linear_pointwise")
)
_ONEDNN_VALUES = 500_000  # of the weight, from which on its products repay the dearer call

Matrix = Float[Tensor, "*members _ _"]


def affine(x: Matrix, weight: Matrix, bias: Float[Tensor, "*members _"]) -> Matrix:
    """Returns x W^T + b in the bias's precision, the product in that of x and W.

    Autograd sees through to x alone.
    """
    if _suits_onednn(x, weight):
        product: Tensor = _OneDNNAffine.apply(x, weight, bias)  # type: ignore[no-untyped-call]
        return product
    if x.dtype == bias.dtype:
        return functional.linear(x, weight, bias)
    return functional.linear(x, weight).to(bias.dtype) + bias


def matmul(a: Matrix, b: Matrix) -> Matrix:
    """Returns a b; autograd does not see through it."""
    return _onednn(a, b.mT) if _suits_onednn(a, b) else a @ b


def _suits_onednn(x: Tensor, weight: Tensor) -> bool:
    on_cpu = x.device.type == "cpu" and x.dtype == torch.float32
    large = weight.ndim == 2 and weight.numel() >= _ONEDNN_VALUES
    return _ONEDNN and on_cpu and large and not torch._C._functorch.is_batchedtensor(weight)


def _onednn(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    product: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return product


class _OneDNNAffine(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(weight)
        return _onednn(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, *at_output: Tensor) -> tuple[Tensor | None, None, None]:
        (weight,) = ctx.saved_tensors
        return matmul(at_output[0], weight) if ctx.needs_input_grad[0] else None, None, None
