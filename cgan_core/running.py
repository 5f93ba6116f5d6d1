"""What follows a player's updates: running statistics, the average of a generator, directions."""

from collections.abc import Mapping

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from cgan_core.passes import Statistics

Idle = Bool[Tensor, " members"] | None
"""Members that do not move."""


def move_running(
    buffers: Mapping[str, Float[Tensor, "*members units"]],
    statistics: Statistics,
    momentum: float,
    idle: Idle = None,
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
            _approach(buffers[f"{place}.{name}"], moment, momentum, idle)


def move_average(
    average: Mapping[str, Tensor], values: Mapping[str, Tensor], share: float, idle: Idle = None
) -> None:
    """Moves a generator's average towards its values by a <- a + s (w - a).

    Args:
        average: by name.
        values: parameters and running statistics, by the same names.
        share: s.
        idle: members that do not move.
    """
    for name, value in average.items():
        _approach(value, values[name], share, idle)


def keep(buffers: Mapping[str, Tensor], found: Mapping[str, Tensor], idle: Idle = None) -> None:
    """Replaces buffers by what was found."""
    for name, value in found.items():
        _approach(buffers[name], value, 1.0, idle)


@torch.no_grad()
def _approach(buffer: Tensor, target: Tensor, share: float, idle: Idle) -> None:
    moved = target if share == 1 else buffer + share * (target - buffer)
    if idle is not None:
        moved = torch.where(idle.view(-1, *[1] * (buffer.dim() - 1)), buffer, moved)
    buffer.copy_(moved)
