"""The hyperparameters of the paper's networks."""

from dataclasses import dataclass
from typing import Any, Literal

from cgan_core.config import GANConfig
from cgan_core.config_fields import ConfigError, init_range, own_init_range, ranged, rate, width


@dataclass(frozen=True, kw_only=True)
class MLPConfig(GANConfig):
    """The networks of Mirza & Osindero (2014, section 4.1): affine layers on image and condition.

    Raises:
        ConfigError: if a value is of the wrong type or out of its range.
    """

    family: Literal["mlp"] = "mlp"

    # Generator
    g_noise_units: int = width(200)
    g_condition_units: int = width(1000)
    g_joint_units: int = width(1200)
    g_join: Literal["concat", "product"] = "concat"
    g_init_range: float = init_range(0.05)
    g_condition_init_range: float | None = own_init_range("g_init_range")
    g_dropout: float = rate(default=0.5)
    g_noise_dropout: float | None = rate(default=None)
    g_condition_dropout: float | None = rate(default=None)
    g_joint_dropout: float | None = rate(default=None)

    # Discriminator
    d_image_units: int = width(240)
    d_image_pieces: int = ranged("linear pieces per unit", 1.0, default=5)
    d_condition_units: int = width(50)
    d_condition_pieces: int = ranged("linear pieces per unit", 1.0, default=5)
    d_joint_units: int = width(240)
    d_join: Literal["concat", "product"] = "concat"
    d_joint_pieces: int = ranged("linear pieces per unit", 1.0, default=4)
    d_init_range: float = init_range(0.005)
    d_condition_init_range: float | None = own_init_range("d_init_range")
    d_dropout: float = rate()
    d_input_dropout: float = rate(default=0.0)
    d_image_dropout: float | None = rate(default=None)
    d_condition_dropout: float | None = rate(default=None)
    d_joint_dropout: float | None = rate(default=None)

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_equal_widths("g_join", "g_noise_units", "g_condition_units")
        self._check_equal_widths("d_join", "d_image_units", "d_condition_units")

    def _check_equal_widths(self, join: str, left: str, right: str) -> None:
        a, b = getattr(self, left), getattr(self, right)
        if getattr(self, join) == "product" and a != b:
            constraint = f"`{left} == {right}` must hold for {join}=product"
            raise ConfigError(f"{constraint}, but got {left}={a}, {right}={b}", left)

    @classmethod
    def paper(cls, **changes: Any) -> "MLPConfig":
        """Creates the setting of Mirza & Osindero (2014) for MNIST, with the given changes."""
        return cls(**{"learning_rate": 0.1, "d_dropout": 0.5, **changes})
