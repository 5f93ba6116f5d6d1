"""The hyperparameters that every family of conditional adversarial nets has."""

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_type_hints

from cgan_core.config_fields import ConfigError, check_range, check_type, ranged

__all__ = ["ConfigError", "GANConfig"]


@dataclass(frozen=True, kw_only=True)
class GANConfig:
    """What a conditional adversarial net has of hyperparameters whatever its networks are.

    Each family adds its own (`cgan_core.families`). Defaults are those of Mirza & Osindero (2014,
    section 4.1) and, where that paper is silent, of the code of Goodfellow et al. (2014) or as
    `docs/protocol.md` argues. What every search moves has no default, so that a sampled value
    can never be ignored unseen.

    Raises:
        ConfigError: if a value is of the wrong type or out of its range.
    """

    # Of the labels of fakes, where `condition_sampler` is None.
    label_sampler: ClassVar[Literal["empirical", "uniform"]] = "empirical"

    family: str

    # Optimisation
    learning_rate: float = ranged("per update, at t = 0", 0.0, 100.0, low_open=True, scope="step")
    momentum: float = ranged(
        "fraction, at t = 0, for SGD", 0.0, 1.0, high_open=True, scope="step", default=0.5
    )
    optimizer: Literal["sgd", "adam"] = "sgd"
    batch_size: int = ranged("images", 1.0, default=100)
    d_rate_ratio: float = ranged(
        "D's rate over learning_rate", 0.0, low_open=True, scope="step", default=1.0
    )
    learning_rate_decay: float = ranged(
        "divisor per update", 1.0, 2.0, scope="step", default=1.00004
    )
    min_learning_rate: float = ranged("per update", 0.0, scope="step", default=1e-6)
    final_momentum: float = ranged("fraction", 0.0, 1.0, high_open=True, scope="step", default=0.7)
    momentum_epochs: float = ranged(
        "epochs of rising", 0.0, low_open=True, scope="step", default=250.0
    )
    adam_beta1: float = ranged("fraction", 0.0, 1.0, high_open=True, scope="step", default=0.5)
    adam_beta2: float = ranged("fraction", 0.0, 1.0, high_open=True, scope="step", default=0.999)
    adam_epsilon: float = ranged(
        "added to the root of v", 0.0, low_open=True, scope="step", default=1e-8
    )
    precision: Literal["float32", "bfloat16"] = "float32"  # of the products

    # The generator that is scored and saved: as it is, or its exponential moving average
    # (Karras et al. 2018, "Progressive growing of GANs").
    g_average_kimg: float = ranged("half-life of the average; 0 = none", 0.0, default=0.0)

    # The game
    update: Literal["alternating", "simultaneous", "generator_first"] = "alternating"
    generator_loss: Literal["non_saturating", "minimax", "least_squares", "hinge"] = (
        "non_saturating"
    )
    d_loss: Literal["sum", "half_sum", "least_squares", "hinge"] = "sum"
    d_steps: int = ranged("discriminator updates per generator update (k)", 1.0, default=1)
    fresh_noise: bool | None = None  # becomes true under alternating, else false
    condition: Literal["given", "none"] = "given"  # none: the plain net on the same images
    # Of the conditions of fakes; None is `label_sampler` for labels and kde for vectors.
    condition_sampler: Literal["kde", "empirical", "uniform"] | None = None
    noise: Literal["uniform", "gaussian"] = "uniform"
    noise_dim: int = ranged("values", 1.0, default=100)

    def __post_init__(self) -> None:
        hints = get_type_hints(type(self))
        for spec in dataclasses.fields(self):
            check_type(spec.name, getattr(self, spec.name), hints[spec.name])
        for spec in dataclasses.fields(self):
            check_range(spec, getattr(self, spec.name))
        self._settle_fresh_noise()

    def _settle_fresh_noise(self) -> None:
        if self.fresh_noise is None:
            object.__setattr__(self, "fresh_noise", self.update == "alternating")
        if self.fresh_noise and self.update == "simultaneous":
            raise ConfigError(
                "`fresh_noise=False` must hold for update=simultaneous, where both players learn "
                "from the same fakes, but got fresh_noise=True (leave it out to follow `update`)",
                "fresh_noise",
            )

    def to_mapping(self) -> dict[str, Any]:
        """Returns every field by name, ready for JSON."""
        return dataclasses.asdict(self)
