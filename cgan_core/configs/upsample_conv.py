"""The hyperparameters of the nets that enlarge by repeating pixels."""

from dataclasses import dataclass
from typing import Literal

from cgan_core.config_fields import ranged, rate
from cgan_core.configs.convolutional import ConvolutionalConfig


@dataclass(frozen=True, kw_only=True)
class UpsampleConvConfig(ConvolutionalConfig):
    """Nearest-neighbour upsampling and 3x3 convolutions, as tutorials teach DCGANs.

    Their batch normalisation has a momentum of 0.2 (they mean 0.8 the other way round, and pass
    it as eps by mistake), their generator learns first, the discriminator from the same fakes by
    half the sum of its cross-entropies. In the published form there is no condition.

    Raises:
        ConfigError: if a value is of the wrong type or out of its range.
    """

    family: Literal["upsample_conv"] = "upsample_conv"

    batch_size: int = ranged("images", 1.0, default=64)
    update: Literal["alternating", "simultaneous", "generator_first"] = "generator_first"
    d_loss: Literal["sum", "half_sum", "least_squares", "hinge"] = "half_sum"
    batch_norm_momentum: float = ranged(
        "share of a new batch in the running statistics", 0.0, 1.0, low_open=True, default=0.2
    )
    d_dropout: float = rate(default=0.25)  # of whole maps

    g_maps: int = ranged("maps at a quarter and half of the size; half at full", 2.0, default=128)
    d_maps: int = ranged("maps of the first block, doubled by each", 1.0, default=16)
