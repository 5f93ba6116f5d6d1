"""The paper's networks for MNIST (Mirza & Osindero 2014, section 4.1)."""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from cgan_core.configs.mlp import MLPConfig
from cgan_core.networks import player
from cgan_core.networks.layers import (
    ConditionKind,
    ConditionLayer,
    Conditions,
    Masks,
    drop,
    join,
    joint_width,
    maxout,
)
from cgan_core.networks.tape import Tape, apply_layer


class MLPGenerator(player.Generator):
    """G(z | y): noise and condition through ReLU layers of their own, a joint one, sigmoid pixels.

    At the paper's sizes (z 100 -> 200, y 10 -> 1000, joint 1200, 784 pixels) it has 2,413,984
    parameters. Without conditions the joint layer sees the noise's half alone.

    Args:
        config: sizes and dropout rates.
        image_shape: of an image; it is flattened.
        condition: kind and width of y, or None.
    """

    taped = True

    def __init__(
        self, config: MLPConfig, image_shape: tuple[int, ...], condition: ConditionKind | None
    ) -> None:
        super().__init__()
        self._config = config
        self._product = config.g_join == "product"
        self.noise = nn.Linear(config.noise_dim, config.g_noise_units)
        units = config.g_condition_units if condition else None
        self.condition = ConditionLayer(condition, units) if condition and units else None
        width = joint_width(config.g_noise_units, units, product=self._product)
        self.joint = nn.Linear(width, config.g_joint_units)
        self.image = nn.Linear(config.g_joint_units, math.prod(image_shape))
        common = config.g_dropout
        self.dropout = player.present(
            {
                "noise": (config.g_noise_units, _own(config.g_noise_dropout, common)),
                "condition": (config.g_condition_units, _own(config.g_condition_dropout, common)),
                "joint": (config.g_joint_units, _own(config.g_joint_dropout, common)),
            }
        )

    def initialize(self, random_of: player.RandomOf) -> None:
        """Draws weights from U(-a, a) and zeroes biases."""
        config = self._config
        _initialize(self, random_of, config.g_init_range, config.g_condition_init_range)

    def start_at(self, pixel_means: Float[Tensor, " pixels"]) -> None:
        """Makes the mean image its first one, as the code of Goodfellow et al. (2014) does."""
        with torch.no_grad():
            self.image.bias.copy_(torch.logit(pixel_means, eps=1e-4))

    def forward(
        self,
        noise: Float[Tensor, "rows noise_dim"],
        condition: Conditions | None,
        masks: Masks | None = None,
        tape: Tape | None = None,
    ) -> Float[Tensor, "rows pixels"]:
        """Generates images in [0, 1]; with a tape, in its precision and for its gradients."""
        hidden = functional.relu(apply_layer(self.noise, noise, "noise", tape))
        halves = [drop(hidden, masks, "noise")]
        if self.condition is not None and condition is not None:
            hidden = functional.relu(apply_layer(self.condition, condition, "condition", tape))
            halves.append(drop(hidden, masks, "condition"))
        joint = apply_layer(self.joint, join(halves, product=self._product), "joint", tape)
        hidden = drop(functional.relu(joint), masks, "joint")
        return torch.sigmoid(apply_layer(self.image, hidden, "image", tape))


class MLPDiscriminator(player.Discriminator):
    """D(x | y): maxout layers on image and condition, a joint maxout layer, one logit.

    At the paper's sizes (240 x 5, 50 x 5, joint 240 x 4) it has 1,224,351 parameters. The sigmoid
    belongs to the losses, which work on logits.
    """

    taped = True

    def __init__(
        self, config: MLPConfig, image_shape: tuple[int, ...], condition: ConditionKind | None
    ) -> None:
        super().__init__()
        self._config = config
        self._product = config.d_join == "product"
        pixels = math.prod(image_shape)
        self.image = nn.Linear(pixels, config.d_image_units * config.d_image_pieces)
        units = config.d_condition_units if condition else None
        self.condition = (
            ConditionLayer(condition, units * config.d_condition_pieces)
            if condition and units
            else None
        )
        width = joint_width(config.d_image_units, units, product=self._product)
        self.joint = nn.Linear(width, config.d_joint_units * config.d_joint_pieces)
        self.logit = nn.Linear(config.d_joint_units, 1)
        common = config.d_dropout
        self.dropout = player.present(
            {
                "input": (pixels, config.d_input_dropout),
                "image": (config.d_image_units, _own(config.d_image_dropout, common)),
                "condition": (config.d_condition_units, _own(config.d_condition_dropout, common)),
                "joint": (config.d_joint_units, _own(config.d_joint_dropout, common)),
            }
        )

    def initialize(self, random_of: player.RandomOf) -> None:
        """Draws weights from U(-a, a) and zeroes biases."""
        config = self._config
        _initialize(self, random_of, config.d_init_range, config.d_condition_init_range)

    def forward(
        self,
        images: Float[Tensor, "rows pixels"],
        condition: Conditions | None,
        masks: Masks | None = None,
        tape: Tape | None = None,
    ) -> Float[Tensor, " rows"]:
        """Returns the logit of "real" of each image."""
        config = self._config
        affine = apply_layer(self.image, drop(images, masks, "input"), "image", tape)
        halves = [drop(maxout(affine, config.d_image_pieces), masks, "image")]
        if self.condition is not None and condition is not None:
            affine = apply_layer(self.condition, condition, "condition", tape)
            halves.append(drop(maxout(affine, config.d_condition_pieces), masks, "condition"))
        joint = apply_layer(self.joint, join(halves, product=self._product), "joint", tape)
        hidden = drop(maxout(joint, config.d_joint_pieces), masks, "joint")
        return apply_layer(self.logit, hidden, "logit", tape).squeeze(1)


def _own(override: float | None, common: float) -> float:
    return common if override is None else override


def _initialize(
    network: player.Player, random_of: player.RandomOf, common: float, of_condition: float | None
) -> None:
    for name, parameter in network.named_parameters():
        limit = of_condition if name == "condition.weight" else None
        if name.endswith("bias"):
            nn.init.zeros_(parameter)
        else:
            player.draw_uniform(parameter, random_of(name), _own(limit, common))
