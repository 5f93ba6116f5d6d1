"""What training asks of a network that plays, whatever its family."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from cgan_core.networks.layers import Conditions, Masks
from cgan_core.networks.tape import Tape

RandomOf = Callable[[str], np.random.Generator]
"""A parameter's name to the stream that its first values are drawn from."""


class Player(nn.Module, ABC):
    """A generator or a discriminator.

    A tape given to its call says that it trains: batch statistics are taken and noted there, and
    products are of the tape's precision. Without one it is used as it is.

    Attributes:
        taped: whether every parameter belongs to an affine layer that it applies through the
            tape, and each row's result depends on that row alone, so that gradients can be formed
            by `cgan_core.networks.tape`; else autograd forms them.
        dropout: width and rate of each place that drops units.
    """

    taped: ClassVar[bool] = False
    dropout: Mapping[str, tuple[int, float]]

    @abstractmethod
    def initialize(self, random_of: RandomOf) -> None:
        """Draws the first values of all parameters."""


class Generator(Player):
    """G(z | y).

    Attributes:
        statistics_momentum: of its running statistics (see `cgan_core.running`), if it has any.
    """

    statistics_momentum: float = 0.1

    @abstractmethod
    def forward(
        self,
        noise: Float[Tensor, "rows noise_dim"],
        condition: Conditions | None,
        masks: Masks | None = None,
        tape: Tape | None = None,
    ) -> Float[Tensor, "rows pixels"]:
        """Generates images in [0, 1], flat, the channels last."""

    def start_at(self, pixel_means: Float[Tensor, " pixels"]) -> None:
        """May take the mean training image, in [0, 1], as the image it begins with."""


class Discriminator(Player):
    """D(x | y).

    Attributes:
        r1_weight: of the penalty on its slope at real images (see `cgan_core.passes`), which only
            one that is not `taped` can have.
    """

    r1_weight: float = 0.0

    @abstractmethod
    def forward(
        self,
        images: Float[Tensor, "rows pixels"],
        condition: Conditions | None,
        masks: Masks | None = None,
        tape: Tape | None = None,
    ) -> Float[Tensor, " rows"]:
        """Returns the logit of "real" of each image in [0, 1]; real ones come first."""


def draw_uniform(parameter: nn.Parameter, rng: np.random.Generator, limit: float) -> None:
    """Draws a parameter from U(-limit, limit)."""
    values = rng.uniform(-limit, limit, tuple(parameter.shape))
    with torch.no_grad():
        parameter.copy_(torch.from_numpy(values))


def draw_normal(values: Tensor, rng: np.random.Generator, mean: float, std: float) -> None:
    """Draws values from N(mean, std^2)."""
    drawn = rng.normal(mean, std, tuple(values.shape))
    with torch.no_grad():
        values.copy_(torch.from_numpy(drawn))


def initialize_uniform(network: Player, random_of: RandomOf, limit: float) -> None:
    """Draws weights from U(-limit, limit) and zeroes biases."""
    for name, parameter in network.named_parameters():
        if name.endswith("bias"):
            nn.init.zeros_(parameter)
        else:
            draw_uniform(parameter, random_of(name), limit)


def present(places: Mapping[str, tuple[int, float]]) -> dict[str, tuple[int, float]]:
    """Returns the places that drop anything."""
    return {place: (width, rate) for place, (width, rate) in places.items() if rate > 0}
