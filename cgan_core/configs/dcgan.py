"""The hyperparameters of the deep convolutional nets."""

from dataclasses import dataclass
from typing import Literal

from cgan_core.config_fields import ranged
from cgan_core.configs.convolutional import ConvolutionalConfig


@dataclass(frozen=True, kw_only=True)
class DCGANConfig(ConvolutionalConfig):
    """Transposed convolutions (Radford et al. 2015) with a label, judged by least squares.

    The losses are those of Mao et al. (2017, "Least squares generative adversarial networks"):
    targets 1 and 0 of the logit itself. `d_loss: sum` with `generator_loss: non_saturating` are
    the logistic ones.

    Raises:
        ConfigError: if a value is of the wrong type or out of its range.
    """

    family: Literal["dcgan"] = "dcgan"

    batch_size: int = ranged("images", 1.0, default=128)
    generator_loss: Literal["non_saturating", "minimax", "least_squares", "hinge"] = (
        "least_squares"
    )
    d_loss: Literal["sum", "half_sum", "least_squares", "hinge"] = "least_squares"

    g_maps: int = ranged("maps at half the picture's size; twice at each half", 1.0, default=64)
    g_label_maps: int = ranged("4x4 maps made of the condition", 1.0, default=1)
    d_maps: int = ranged("maps at half the picture's size; twice at each half", 1.0, default=64)
    kernel: Literal[4, 5] = 4
