"""The paper's networks for MNIST (Mirza & Osindero 2014, section 4.1)."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from cgan_core.config import GANConfig
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


class Generator(nn.Module):
    """G(z | y): noise and condition through ReLU layers of their own, a joint one, sigmoid pixels.

    At the paper's sizes (z 100 -> 200, y 10 -> 1000, joint 1200, 784 pixels) it has 2,413,984
    parameters. Without conditions the joint layer sees the noise's half alone.

    Args:
        config: sizes and dropout rates.
        pixels: values of an image, height * width * channels.
        condition: kind and width of y, or None.
    """

    def __init__(self, config: GANConfig, pixels: int, condition: ConditionKind | None) -> None:
        super().__init__()
        self._product = config.g_join == "product"
        self.noise = nn.Linear(config.noise_dim, config.g_noise_units)
        units = config.g_condition_units if condition else None
        self.condition = ConditionLayer(condition, units) if condition and units else None
        width = joint_width(config.g_noise_units, units, product=self._product)
        self.joint = nn.Linear(width, config.g_joint_units)
        self.image = nn.Linear(config.g_joint_units, pixels)

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


class Discriminator(nn.Module):
    """D(x | y): maxout layers on image and condition, a joint maxout layer, one logit.

    At the paper's sizes (240 x 5, 50 x 5, joint 240 x 4) it has 1,224,351 parameters. The sigmoid
    belongs to the losses, which work on logits.
    """

    def __init__(self, config: GANConfig, pixels: int, condition: ConditionKind | None) -> None:
        super().__init__()
        self._config = config
        self._product = config.d_join == "product"
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

    def forward(
        self,
        image: Float[Tensor, "rows pixels"],
        condition: Conditions | None,
        masks: Masks | None = None,
        tape: Tape | None = None,
    ) -> Float[Tensor, " rows"]:
        """Returns the logit of "real" of each image."""
        config = self._config
        affine = apply_layer(self.image, drop(image, masks, "input"), "image", tape)
        halves = [drop(maxout(affine, config.d_image_pieces), masks, "image")]
        if self.condition is not None and condition is not None:
            affine = apply_layer(self.condition, condition, "condition", tape)
            halves.append(drop(maxout(affine, config.d_condition_pieces), masks, "condition"))
        joint = apply_layer(self.joint, join(halves, product=self._product), "joint", tape)
        hidden = drop(maxout(joint, config.d_joint_pieces), masks, "joint")
        return apply_layer(self.logit, hidden, "logit", tape).squeeze(1)


def _rate(override: float | None, common: float) -> float:
    return common if override is None else override


def generator_dropout(config: GANConfig) -> dict[str, tuple[int, float]]:
    """Returns width and dropout rate of each place of the generator that drops units."""
    places = {
        "noise": (config.g_noise_units, _rate(config.g_noise_dropout, config.g_dropout)),
        "condition": (
            config.g_condition_units,
            _rate(config.g_condition_dropout, config.g_dropout),
        ),
        "joint": (config.g_joint_units, _rate(config.g_joint_dropout, config.g_dropout)),
    }
    return {place: (width, rate) for place, (width, rate) in places.items() if rate > 0}


def discriminator_dropout(config: GANConfig, pixels: int) -> dict[str, tuple[int, float]]:
    """Returns width and dropout rate of each place of the discriminator that drops units."""
    common = config.d_dropout
    places = {
        "input": (pixels, config.d_input_dropout),
        "image": (config.d_image_units, _rate(config.d_image_dropout, common)),
        "condition": (config.d_condition_units, _rate(config.d_condition_dropout, common)),
        "joint": (config.d_joint_units, _rate(config.d_joint_dropout, common)),
    }
    return {place: (width, rate) for place, (width, rate) in places.items() if rate > 0}
