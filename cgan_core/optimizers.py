"""The players' optimisers under this project's schedules."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from cgan_core.config import GANConfig
from cgan_core.networks.tape import Gradients
from cgan_core.schedules import learning_rate, momentum

BUFFERS = {"sgd": ("velocity",), "adam": ("exp_avg", "exp_avg_sq")}


class PlayerOptimizer:
    """Updates one player's parameters by SGD with momentum, or by Adam.

    SGD holds the rate inside the velocity, v <- m v - r_t g and w <- w + v, as the code of
    Goodfellow et al. (2014) does; PyTorch's leaves it outside, so that there a falling rate also
    slows what the velocity already holds.

    Args:
        config: rates and kind of optimiser.
        network: the player, whose parameters are updated in place.
        rate_ratio: this player's rate over `learning_rate`.
    """

    def __init__(self, config: GANConfig, network: nn.Module, rate_ratio: float = 1.0) -> None:
        self._config, self._rate_ratio = config, rate_ratio
        self._parameters = dict(network.named_parameters())
        self._buffers = {name: self._zeros(value) for name, value in self._parameters.items()}

    def _zeros(self, parameter: Tensor) -> dict[str, Tensor]:
        kinds = BUFFERS[self._config.optimizer]
        buffers = {kind: torch.zeros_like(parameter, requires_grad=False) for kind in kinds}
        return buffers | ({"step": torch.zeros(())} if self._config.optimizer == "adam" else {})

    @torch.no_grad()
    def step(self, gradients: Gradients, t: int, epoch: float) -> None:
        """Applies one update at time t; gradients are used up one by one."""
        rate = learning_rate(self._config, t) * self._rate_ratio
        inertia = momentum(self._config, epoch)
        for name, gradient in gradients:
            if self._config.optimizer == "adam":
                self._adam(name, gradient.formed(), rate)
            else:
                velocity = self._buffers[name]["velocity"]
                gradient.add_to(velocity, factor=-rate, decay=inertia)
                self._parameters[name].add_(velocity)

    def _adam(self, name: str, gradient: Tensor, rate: float) -> None:
        buffers, config = self._buffers[name], self._config
        buffers["step"] += 1
        torch._fused_adam_(
            [self._parameters[name]],
            [gradient],
            [buffers["exp_avg"]],
            [buffers["exp_avg_sq"]],
            [],
            [buffers["step"]],
            lr=rate,
            beta1=config.adam_beta1,
            beta2=config.adam_beta2,
            weight_decay=0.0,
            eps=config.adam_epsilon,
            amsgrad=False,
            maximize=False,
        )

    def state_dict(self) -> dict[str, Tensor]:
        """Returns the buffers by flat name."""
        return {
            f"{position}.{kind}": value
            for position, buffers in enumerate(self._buffers.values())
            for kind, value in buffers.items()
        }

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Takes over buffers that `state_dict` gave; what it does not name starts anew."""
        for key, value in self.state_dict().items():
            if key in state:
                value.copy_(state[key])
            else:
                value.zero_()

    def move(self, places: Mapping[str, Tensor]) -> None:
        """Goes on with these buffers, whose values are its own."""
        for position, buffers in enumerate(self._buffers.values()):
            for kind in buffers:
                buffers[kind] = places[f"{position}.{kind}"]
