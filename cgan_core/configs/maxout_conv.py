"""The hyperparameters of the face study's networks."""

from dataclasses import dataclass
from typing import Any, Literal

from cgan_core.config import GANConfig
from cgan_core.config_fields import ConfigError, init_range, ranged, rate, width


@dataclass(frozen=True, kw_only=True)
class MaxoutConvConfig(GANConfig):
    """The networks of Gauthier (2015) for faces: a deconvolution against maxout convolutions.

    Raises:
        ConfigError: if a value is of the wrong type or out of its range.
    """

    family: Literal["maxout_conv"] = "maxout_conv"

    # Generator
    g_hidden_units: int = width(8000)
    g_maps: int = ranged("maps that the deconvolution reads", 1.0, default=80)
    g_kernel: int = ranged("pixels, of its kernel's side", 1.0, default=5)
    g_stride: int = ranged("pixels from one value of a map to the next", 1.0, default=3)
    g_init_range: float = init_range(0.05)
    g_dropout: float = rate(default=0.0)

    # Discriminator
    d_first_filters: int = ranged("maps after the first convolution", 1.0, default=64)
    d_second_filters: int = ranged("maps after the second one", 1.0, default=64)
    d_third_filters: int = ranged("maps after the third one", 1.0, default=192)
    d_filter_pieces: int = ranged("linear pieces per map", 1.0, default=2)
    d_hidden_units: int = width(500)
    d_hidden_pieces: int = ranged("linear pieces per unit", 1.0, default=5)
    d_join: Literal["joint", "product", "additive"] = "joint"
    d_joint_units: int = width(240)
    d_joint_pieces: int = ranged("linear pieces per unit", 1.0, default=4)
    d_init_range: float = init_range(0.005)
    d_condition_init_range: float = init_range(1.0)  # of V; d_join=product alone has it
    d_dropout: float = rate()
    d_input_dropout: float = rate(default=0.2)
    d_filter_dropout: float | None = rate(default=None)  # of convolutions; None = d_dropout

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.g_kernel < self.g_stride:
            raise ConfigError(
                "`g_stride <= g_kernel` must hold, or no weight reaches some pixels, but got "
                f"g_stride={self.g_stride}, g_kernel={self.g_kernel}",
                "g_stride",
            )

    @classmethod
    def paper(cls, **changes: Any) -> "MaxoutConvConfig":
        """Creates the setting of Gauthier (2015) for faces, with the given changes.

        What that paper does not say is as in the code that it builds on (Goodfellow et al. 2014).
        """
        setting = {
            "learning_rate": 0.004,
            "learning_rate_decay": 1.000004,
            "batch_size": 128,
            "noise": "gaussian",
            "update": "simultaneous",
            "d_loss": "half_sum",
            "d_join": "additive",
            "d_dropout": 0.5,
        }
        return cls(**{**setting, **changes})
