"""The hyperparameters of a conditional adversarial net."""

import dataclasses
import difflib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import UnionType
from typing import Any, Literal, Self, get_args, get_origin, get_type_hints


class ConfigError(ValueError):
    """A hyperparameter is unknown, missing or out of its range."""

    def __init__(self, message: str, key: str) -> None:
        super().__init__(message)
        self.key = key


def _ranged(
    unit: str,
    low: float,
    high: float = math.inf,
    *,
    low_open: bool = False,
    high_open: bool = False,
    **default: Any,
) -> Any:
    """Declare a numeric field with its unit and interval."""
    bounds = {"low": low, "high": high, "low_open": low_open, "high_open": high_open}
    return field(metadata={"unit": unit, **bounds}, **default)


def _rate(**default: Any) -> Any:
    return _ranged("fraction of units dropped", 0.0, 1.0, high_open=True, **default)


def _own_range(common: str) -> Any:
    unit = f"half width of U(-a, a) in the layer on y; None = {common}"
    return _ranged(unit, 0.0, low_open=True, default=None)


def _width(default: int) -> Any:
    return _ranged("units", 1.0, default=default)


@dataclass(frozen=True, kw_only=True)
class GANConfig:
    """Every hyperparameter of a conditional adversarial net and of its training.

    Defaults are those of Mirza & Osindero (2014, section 4.1) and, where that paper is silent,
    of the code of Goodfellow et al. (2014) or as `docs/protocol.md` argues. The two that every
    search moves have no default, so that a sampled value can never be ignored unseen.

    Raises:
        ConfigError: if a value is of the wrong type or out of its range.
    """

    family: Literal["mlp"] = "mlp"

    # Optimisation
    learning_rate: float = _ranged("per update, at t = 0", 0.0, 100.0, low_open=True)
    momentum: float = _ranged("fraction, at t = 0, for SGD", 0.0, 1.0, high_open=True, default=0.5)
    optimizer: Literal["sgd", "adam"] = "sgd"
    batch_size: int = _ranged("images", 1.0, default=100)
    d_rate_ratio: float = _ranged("D's rate over learning_rate", 0.0, low_open=True, default=1.0)
    learning_rate_decay: float = _ranged("divisor per update", 1.0, 2.0, default=1.00004)
    min_learning_rate: float = _ranged("per update", 0.0, default=1e-6)
    final_momentum: float = _ranged("fraction", 0.0, 1.0, high_open=True, default=0.7)
    momentum_epochs: float = _ranged("epochs of rising", 0.0, low_open=True, default=250.0)
    adam_beta1: float = _ranged("fraction", 0.0, 1.0, high_open=True, default=0.5)
    adam_beta2: float = _ranged("fraction", 0.0, 1.0, high_open=True, default=0.999)
    adam_epsilon: float = _ranged("added to the root of v", 0.0, low_open=True, default=1e-8)
    precision: Literal["float32", "bfloat16"] = "float32"  # of the matrix products

    # The game
    update: Literal["alternating", "simultaneous"] = "alternating"
    generator_loss: Literal["non_saturating", "minimax", "least_squares", "hinge"] = (
        "non_saturating"
    )
    d_loss: Literal["sum", "half_sum", "least_squares", "hinge"] = "sum"
    d_steps: int = _ranged("discriminator updates per generator update (k)", 1.0, default=1)
    fresh_noise: bool | None = None  # becomes true under alternating, false under simultaneous
    fake_labels: Literal["empirical", "uniform"] = "empirical"

    # Generator
    noise: Literal["uniform", "gaussian"] = "uniform"
    noise_dim: int = _width(100)
    g_noise_units: int = _width(200)
    g_condition_units: int = _width(1000)
    g_joint_units: int = _width(1200)
    g_join: Literal["concat", "product"] = "concat"
    g_init_range: float = _ranged("half width of U(-a, a)", 0.0, low_open=True, default=0.05)
    g_condition_init_range: float | None = _own_range("g_init_range")
    g_dropout: float = _rate(default=0.5)
    g_noise_dropout: float | None = _rate(default=None)
    g_condition_dropout: float | None = _rate(default=None)
    g_joint_dropout: float | None = _rate(default=None)

    # Discriminator
    d_image_units: int = _width(240)
    d_image_pieces: int = _ranged("linear pieces per unit", 1.0, default=5)
    d_condition_units: int = _width(50)
    d_condition_pieces: int = _ranged("linear pieces per unit", 1.0, default=5)
    d_joint_units: int = _width(240)
    d_join: Literal["concat", "product"] = "concat"
    d_joint_pieces: int = _ranged("linear pieces per unit", 1.0, default=4)
    d_init_range: float = _ranged("half width of U(-a, a)", 0.0, low_open=True, default=0.005)
    d_condition_init_range: float | None = _own_range("d_init_range")
    d_dropout: float = _rate()
    d_input_dropout: float = _rate(default=0.0)
    d_image_dropout: float | None = _rate(default=None)
    d_condition_dropout: float | None = _rate(default=None)
    d_joint_dropout: float | None = _rate(default=None)

    def __post_init__(self) -> None:
        for name, hint in get_type_hints(type(self)).items():
            _check_type(name, getattr(self, name), hint)
        for spec in dataclasses.fields(self):
            _check_range(spec, getattr(self, spec.name))
        self._check_equal_widths("g_join", "g_noise_units", "g_condition_units")
        self._check_equal_widths("d_join", "d_image_units", "d_condition_units")
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

    def _check_equal_widths(self, join: str, left: str, right: str) -> None:
        a, b = getattr(self, left), getattr(self, right)
        if getattr(self, join) == "product" and a != b:
            constraint = f"`{left} == {right}` must hold for {join}=product"
            raise ConfigError(f"{constraint}, but got {left}={a}, {right}={b}", left)

    @classmethod
    def paper(cls, **changes: Any) -> Self:
        """Creates the setting of Mirza & Osindero (2014) for MNIST, with the given changes."""
        return cls(**{"learning_rate": 0.1, "d_dropout": 0.5, **changes})

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any]) -> Self:
        """Creates a configuration from flat names and values.

        Raises:
            ConfigError: if a name is unknown, missing, or its value is out of range.
        """
        known = {spec.name: spec for spec in dataclasses.fields(cls)}
        for name in mapping:
            if name not in known:
                raise ConfigError(_unknown(name, known), name)
        for name, spec in known.items():
            if spec.default is dataclasses.MISSING and name not in mapping:
                raise ConfigError(f"`{name}` must be given: it has no default", name)
        return cls(**mapping)

    def to_mapping(self) -> dict[str, Any]:
        """Returns every field by name, ready for JSON."""
        return dataclasses.asdict(self)


def _unknown(name: str, known: Mapping[str, Any]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"; did you mean `{near[0]}`?" if near else ""
    return f"`{name}` is not a hyperparameter of the model{hint}"


def _check_type(name: str, value: object, hint: Any) -> None:
    if get_origin(hint) is Literal:
        if value not in get_args(hint):
            choices = ", ".join(map(str, get_args(hint)))
            raise ConfigError(f"`{name}` must be one of {choices}, but got {name}={value!r}", name)
        return
    if get_origin(hint) is UnionType:  # a type | None
        if value is None:
            return
        hint = get_args(hint)[0]
    allowed = (int, float) if hint is float else (hint,)
    if not isinstance(value, allowed) or (isinstance(value, bool) and hint is not bool):
        message = f"`{name}` must be of type {hint.__name__}, but got {name}={value!r}"
        raise ConfigError(message, name)


def _check_range(spec: "dataclasses.Field[Any]", value: Any) -> None:
    if value is None or "low" not in spec.metadata:
        return
    low, high = spec.metadata["low"], spec.metadata["high"]
    left = "<" if spec.metadata["low_open"] else "<="
    right = "<" if spec.metadata["high_open"] or math.isinf(high) else "<="
    above = value > low if left == "<" else value >= low
    below = value < high if right == "<" else value <= high
    if not (above and below):
        upper = "" if math.isinf(high) else f" {right} {high:g}"
        constraint = f"`{low:g} {left} {spec.name}{upper}`"
        message = f"{constraint} must hold, but got {spec.name}={value!r}"
        raise ConfigError(message, spec.name)
