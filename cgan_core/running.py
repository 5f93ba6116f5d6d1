"""Running statistics of a generator's layers, which stand in for a batch's when it is used."""

from collections.abc import Mapping

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from cgan_core.passes import Statistics


@torch.no_grad()
def move_running(
    buffers: Mapping[str, Float[Tensor, "*members units"]],
    statistics: Statistics,
    momentum: float,
    idle: Bool[Tensor, "members 1"] | None = None,
) -> None:
    """Moves each layer's running mean and variance towards a batch's, by r <- r + m (b - r).

    Args:
        buffers: by `PLACE.running_mean` and `PLACE.running_var`.
        statistics: mean and unbiased variance of a batch, by place.
        momentum: m.
        idle: members that do not move.
    """
    for place, moments in statistics.items():
        for name, moment in zip(("running_mean", "running_var"), moments, strict=True):
            buffer = buffers[f"{place}.{name}"]
            step = momentum * (moment.detach() - buffer)
            buffer.add_(step if idle is None else step.masked_fill(idle, 0))
