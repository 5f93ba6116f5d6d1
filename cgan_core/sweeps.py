"""Optimiser updates of stacked parameters: one sweep, every lane with rates of its own.

PyTorch's fused updates take one rate for all. These are plain functions of tensors, so that
`torch.compile` can make each a single pass over memory; as they stand they are some ten. A lane
that is idle does not move, whatever its gradient holds.
"""

from collections.abc import Callable, Mapping

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from cgan_core.config import GANConfig
from cgan_core.networks.tape import Gradients
from cgan_core.optimizers import BUFFERS

Stack = Float[Tensor, "lanes values"]
OfLane = Float[Tensor, "lanes 1"]
Update = Callable[..., None]


def sgd(
    weight: Stack,
    gradient: Stack,
    velocity: Stack,
    idle: Bool[Tensor, "lanes 1"],
    rate: OfLane,
    inertia: OfLane,
) -> None:
    """Updates by v <- m v - r g, w <- w + v; idle lanes have m = 1."""
    velocity.mul_(inertia).sub_(rate * gradient.masked_fill(idle, 0))
    weight.add_(velocity.masked_fill(idle, 0))


def adam(
    weight: Stack,
    gradient: Stack,
    mean: Stack,
    square: Stack,
    idle: Bool[Tensor, "lanes 1"],
    rate: OfLane,
    gain1: OfLane,
    beta2: OfLane,
    gain2: OfLane,
    root: OfLane,
    epsilon: OfLane,
) -> None:
    """Updates by Adam (Kingma & Ba 2015); idle lanes have r = 0, beta2 = 1 and gains of 0.

    `rate` is r / (1 - beta1^s) and `root` the root of 1 - beta2^s, at the s-th update; the gains
    are 1 - beta, which float32 would not give to its last digits.
    """
    gradient = gradient.masked_fill(idle, 0)
    mean.lerp_(gradient, gain1)
    square.mul_(beta2).add_(gradient.square() * gain2)
    weight.sub_(rate * mean / (square.sqrt() / root + epsilon))


class Scalars:
    """Hyperparameters of an optimiser, one of each a lane.

    Args:
        capacity: lanes.
        device: where the lanes are.
    """

    NAMES = (
        *("learning_rate", "learning_rate_decay", "min_learning_rate", "d_rate_ratio"),
        *("momentum", "final_momentum", "momentum_epochs"),
        *("adam_beta1", "adam_beta2", "adam_epsilon"),
    )

    def __init__(self, capacity: int, device: torch.device) -> None:
        self._values = torch.ones(len(self.NAMES), capacity, dtype=torch.float64, device=device)

    def __getitem__(self, name: str) -> Float[Tensor, " lanes"]:
        return self._values[self.NAMES.index(name)]

    def fill(self, lane: int, config: GANConfig) -> None:
        """Takes the values of a lane's member."""
        values = [float(getattr(config, name)) for name in self.NAMES]
        self._values[:, lane] = torch.tensor(values, dtype=torch.float64)

    def rate(self, t: Int64[Tensor, " lanes"]) -> Float[Tensor, " lanes"]:
        """Returns `cgan_core.schedules.learning_rate` of each lane."""
        decayed = self["learning_rate"] * self["learning_rate_decay"] ** -t.double()
        return torch.maximum(decayed, self["min_learning_rate"])

    def inertia(self, epoch: Float[Tensor, " lanes"]) -> Float[Tensor, " lanes"]:
        """Returns `cgan_core.schedules.momentum` of each lane."""
        risen = (epoch / self["momentum_epochs"]).clamp(max=1)
        return self["momentum"] + (self["final_momentum"] - self["momentum"]).clamp(min=0) * risen


class StackedOptimizer:
    """`PlayerOptimizer` for stacked parameters, on buffers of the same names.

    Args:
        kind: `sgd` or `adam`.
        scalars: hyperparameters of the lanes.
        parameters: stacked, by name; updated in place.
        buffers: stacked, by position and kind.
        is_discriminator: whether rates are multiplied by `d_rate_ratio`.
    """

    def __init__(
        self,
        kind: str,
        scalars: Scalars,
        parameters: Mapping[str, Tensor],
        buffers: Mapping[str, Tensor],
        *,
        is_discriminator: bool,
    ) -> None:
        self._kind, self._scalars = kind, scalars
        self._parameters = {name: _flat(value) for name, value in parameters.items()}
        self._buffers = {
            name: [_flat(buffers[f"{position}.{kind}"]) for kind in BUFFERS[kind]]
            for position, name in enumerate(parameters)
        }
        self._counts = [value for name, value in buffers.items() if name.endswith("step")]
        self._is_discriminator = is_discriminator

    @torch.no_grad()
    def step(
        self,
        gradients: Gradients,
        t: Int64[Tensor, " lanes"],
        epoch: Float[Tensor, " lanes"],
        active: Bool[Tensor, " lanes"],
        update: Update,
    ) -> None:
        """Applies one update of the active lanes by `update`: `sgd`, `adam`, or one compiled."""
        rate = self._scalars.rate(t)
        if self._kind == "adam":
            own = self._adam_scalars(rate, active)
        else:
            own = [self._of_player(rate), self._kept(self._scalars.inertia(epoch), active)]
        idle = ~active.unsqueeze(1)
        for name, gradient in gradients:
            weight = self._parameters[name]
            columns = [value.unsqueeze(1).to(weight.dtype) for value in own]
            update(weight, _flat(gradient.formed()), *self._buffers[name], idle, *columns)

    def _adam_scalars(self, rate: Tensor, active: Tensor) -> list[Tensor]:
        running = active.float()
        torch._foreach_add_(self._counts, [running] * len(self._counts))
        count = self._counts[0].double().clamp(min=1)
        beta1, beta2 = self._scalars["adam_beta1"], self._scalars["adam_beta2"]
        return [
            self._of_player(rate) * active / (1 - beta1**count),
            (1 - beta1) * active,
            self._kept(beta2, active),
            (1 - beta2) * active,
            (1 - beta2**count).sqrt(),
            self._scalars["adam_epsilon"],
        ]

    def _of_player(self, rate: Tensor) -> Tensor:
        return rate * self._scalars["d_rate_ratio"] if self._is_discriminator else rate

    @staticmethod
    def _kept(factor: Tensor, active: Tensor) -> Tensor:
        return torch.where(active, factor, 1.0)


def _flat(stack: Tensor) -> Stack:
    return stack.detach().flatten(1)
