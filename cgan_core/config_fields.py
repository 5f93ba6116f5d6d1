"""How a field of a configuration says its unit, its interval and what it reaches."""

import dataclasses
import math
from dataclasses import field
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

Scope = Literal["shape", "start", "step"]
"""What a field reaches: a tensor's shape or which operations there are, so that only members that
agree in it can be stacked; a member's first weights alone; or a number in each of its steps."""


class ConfigError(ValueError):
    """A hyperparameter is unknown, missing or out of its range."""

    def __init__(self, message: str, key: str) -> None:
        super().__init__(message)
        self.key = key


def ranged(
    unit: str,
    low: float,
    high: float = math.inf,
    *,
    low_open: bool = False,
    high_open: bool = False,
    scope: Scope = "shape",
    **default: Any,
) -> Any:
    """Declares a numeric field with its unit and interval."""
    bounds = {"low": low, "high": high, "low_open": low_open, "high_open": high_open}
    return field(metadata={"unit": unit, "scope": scope, **bounds}, **default)


def rate(**default: Any) -> Any:
    """Declares a rate of dropout."""
    unit = "fraction of units dropped"
    return ranged(unit, 0.0, 1.0, high_open=True, scope="step", **default)


def width(default: int) -> Any:
    """Declares a number of units."""
    return ranged("units", 1.0, default=default)


def init_range(default: float) -> Any:
    """Declares the half width of the interval that weights are drawn from."""
    return ranged("half width of U(-a, a)", 0.0, low_open=True, scope="start", default=default)


def own_init_range(common: str) -> Any:
    """Declares that of the layer on y, which follows the common one where it is not given."""
    unit = f"half width of U(-a, a) in the layer on y; None = {common}"
    return ranged(unit, 0.0, low_open=True, scope="start", default=None)


def check_type(name: str, value: object, hint: Any) -> None:
    """Raises ConfigError if a value is not of the type that its field declares."""
    if get_origin(hint) in (UnionType, Union):  # a type | None
        if value is None:
            return
        hint = get_args(hint)[0]
    if get_origin(hint) is Literal:
        if value not in get_args(hint):
            choices = ", ".join(map(str, get_args(hint)))
            raise ConfigError(f"`{name}` must be one of {choices}, but got {name}={value!r}", name)
        return
    allowed = (int, float) if hint is float else (hint,)
    if not isinstance(value, allowed) or (isinstance(value, bool) and hint is not bool):
        message = f"`{name}` must be of type {hint.__name__}, but got {name}={value!r}"
        raise ConfigError(message, name)


def check_range(spec: "dataclasses.Field[Any]", value: Any) -> None:
    """Raises ConfigError if a number is outside its field's interval."""
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
