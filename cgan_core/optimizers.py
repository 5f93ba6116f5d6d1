"""The players' optimisers: PyTorch's fused updates under this project's schedules."""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from cgan_core.config import GANConfig
from cgan_core.pages import zeros
from cgan_core.schedules import learning_rate, momentum

SMALLEST_MOMENTUM = 1e-30  # at exactly 0, PyTorch would drop the buffer that a later rise needs


class PlayerOptimizer:
    """Updates one player's parameters by SGD with momentum, or by Adam.

    SGD holds the rate inside the velocity, v <- m v - r_t g and w <- w + v, as the code of
    Goodfellow et al. (2014) does. PyTorch's buffer b leaves it outside, w <- w - r_t b; with
    b = -v / r_t the two agree when b's momentum is m r_{t-1} / r_t.

    Args:
        config: rates and kind of optimiser.
        network: the player, whose parameters are updated in place.
        rate_ratio: this player's rate over `learning_rate`.
    """

    def __init__(self, config: GANConfig, network: nn.Module, rate_ratio: float = 1.0) -> None:
        self._config, self._rate_ratio = config, rate_ratio
        self._parameters = dict(network.named_parameters())
        self._buffers = self._fresh_buffers()

    def _fresh_buffers(self) -> dict[str, dict[str, Tensor]]:
        kinds = (
            ["momentum_buffer"] if self._config.optimizer == "sgd" else ["exp_avg", "exp_avg_sq"]
        )
        shapes = [value.shape for value in self._parameters.values()]
        blocks = [zeros(shapes) for _ in kinds]
        buffers = {
            name: dict(zip(kinds, own, strict=True))
            for name, *own in zip(self._parameters, *blocks, strict=True)
        }
        if self._config.optimizer == "adam":
            for own in buffers.values():
                own["step"] = torch.zeros(())
        return buffers

    def step(
        self,
        gradients: Iterable[tuple[str, Tensor]],
        t: int,
        epoch: float,
        *,
        first_of_t: bool = True,
    ) -> None:
        """Applies one update at time t; `first_of_t` is false for the later ones of k.

        Gradients are used up one by one, so that each may be made when its turn comes.
        """
        rate = learning_rate(self._config, t)
        if self._config.optimizer == "adam":
            for name, gradient in gradients:
                self._adam(name, gradient, rate * self._rate_ratio)
            return
        before = learning_rate(self._config, t - 1) if first_of_t and t > 0 else rate
        ratio = before / rate if rate > 0 else 1.0  # a rate of 0 moves nothing, whatever b is
        inertia = max(momentum(self._config, epoch) * ratio, SMALLEST_MOMENTUM)
        for name, gradient in gradients:
            self._sgd(name, gradient, rate * self._rate_ratio, inertia)

    @torch.no_grad()
    def _sgd(self, name: str, gradient: Tensor, rate: float, inertia: float) -> None:
        torch._fused_sgd_(
            [self._parameters[name]],
            [gradient],
            [self._buffers[name]["momentum_buffer"]],
            weight_decay=0.0,
            momentum=inertia,
            lr=rate,
            dampening=0.0,
            nesterov=False,
            maximize=False,
            is_first_step=False,
        )

    @torch.no_grad()
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
