"""The players' optimisers: PyTorch's fused ones under this project's schedules."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from cgan_core.config import GANConfig
from cgan_core.schedules import learning_rate, momentum

SMALLEST_MOMENTUM = 1e-30  # at exactly 0, PyTorch would drop the buffer that a later rise needs


class PlayerOptimizer:
    """Updates one player's parameters by SGD with momentum, or by Adam.

    SGD holds the rate inside the velocity, v <- m v - r_t g and w <- w + v, as the code of
    Goodfellow et al. (2014) does. PyTorch's buffer b leaves it outside, w <- w - r_t b; with
    b = -v / r_t the two agree when b's momentum is m r_{t-1} / r_t.

    Args:
        config: rates and kind of optimiser.
        parameters: the player's parameters, updated in place.
        rate_ratio: this player's rate over `learning_rate`.
    """

    def __init__(
        self, config: GANConfig, parameters: Iterable[nn.Parameter], rate_ratio: float = 1.0
    ) -> None:
        self._config, self._rate_ratio = config, rate_ratio
        self.parameters = list(parameters)
        self._optimizer: torch.optim.Optimizer
        if config.optimizer == "adam":
            betas = (config.adam_beta1, config.adam_beta2)
            self._optimizer = torch.optim.Adam(
                self.parameters, betas=betas, eps=config.adam_epsilon, fused=True
            )
        else:
            self._optimizer = torch.optim.SGD(
                self.parameters, momentum=SMALLEST_MOMENTUM, fused=True
            )

    def step(
        self, gradients: Iterable[Tensor], t: int, epoch: float, *, first_of_t: bool = True
    ) -> None:
        """Applies one update at time t; `first_of_t` is false for the later ones of k."""
        rate = learning_rate(self._config, t)
        (group,) = self._optimizer.param_groups
        group["lr"] = rate * self._rate_ratio
        if self._config.optimizer == "sgd":
            before = learning_rate(self._config, t - 1) if first_of_t and t > 0 else rate
            ratio = before / rate if rate > 0 else 1.0  # a rate of 0 moves nothing, whatever b is
            group["momentum"] = max(momentum(self._config, epoch) * ratio, SMALLEST_MOMENTUM)
        for parameter, gradient in zip(self.parameters, gradients, strict=True):
            parameter.grad = gradient
        self._optimizer.step()

    def state_dict(self) -> dict[str, Tensor]:
        """Returns the buffers by flat name."""
        return {
            f"{position}.{name}": value
            for position, parameter in enumerate(self.parameters)
            for name, value in self._optimizer.state.get(parameter, {}).items()
        }

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Takes over buffers that `state_dict` gave."""
        self._optimizer.state.clear()
        for key, value in state.items():
            position, name = key.split(".", 1)
            self._optimizer.state[self.parameters[int(position)]][name] = value.clone()
