"""What a searched parameter may be: a range of reals, a range of integers or a list of choices."""

import math
from decimal import Decimal
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from search.spec_errors import Problem, ProblemsError, raise_any, show

Scalar = float | int | str | bool

_DIGITS = 12  # as in search.cell.cell_key: levels that print alike are one cell


class StrictModel(BaseModel):
    """A frozen part of a study; unknown keys and look-alike types are refused."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)


def _scalar(value: Any) -> Any:
    if not isinstance(value, bool | int | float | str):
        raise ValueError(f"must be a number, text, true or false, but got {show(value)}")
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"must be finite, but got {show(value)}")
    return value


def as_tuple(value: Any) -> Any:
    """Turns a list as YAML and JSON have it into what a frozen model keeps."""
    return tuple(value) if isinstance(value, list) else value


def as_values(value: Any) -> Any:
    """Turns a list, or a lone value, into what a frozen model keeps."""
    return tuple(value) if isinstance(value, list | tuple) else (value,)


Value = Annotated[bool | int | float | str, BeforeValidator(_scalar)]
Values = Annotated[tuple[Value, ...], BeforeValidator(as_tuple), Field(min_length=1)]
When = dict[str, Annotated[tuple[Value, ...], BeforeValidator(as_values), Field(min_length=1)]]
Params = dict[str, Scalar]


def same(left: object, right: object) -> bool:
    """Whether two values are one: 1 and 1.0 are, 1 and true are not."""
    return left == right and isinstance(left, bool) == isinstance(right, bool)


class FloatDomain(StrictModel):
    """The reals of [low, high], or those of them at whole steps from `low`.

    Attributes:
        log: Whether values are drawn and spaced evenly in their logarithm.
        step: Distance between allowed values; None allows them all.
        when: The other parameters' values for which this domain applies; empty means always.
    """

    type: Literal["float"]
    low: float
    high: float
    log: bool = False
    step: Annotated[float, Field(gt=0)] | None = None
    when: When = {}

    @model_validator(mode="after")
    def _check(self) -> Self:
        raise_any(_range_problems(self.low, self.high, log=self.log))
        if self.step is not None:
            if self.log:
                message = "`step` must be left out where `log` is true, but got both"
                raise ProblemsError([Problem(("step",), message)])
            _check_step(self.low, self.high, self.step)
        return self

    def canonical(self, name: str, value: object) -> float:
        """Returns the value as a float on the domain's steps.

        Raises:
            ValueError: It is no number, or out of bounds.
        """
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueError(f"must be a number, but got {name}={show(value)}")
        _check_bounds(name, value, self.low, self.high)
        snapped = self._snapped(float(value))
        if self.step is not None and not math.isclose(snapped, value, abs_tol=1e-9 * self.step):
            constraint = f"`{name} = {self.low} + k * {self.step}`"
            raise ValueError(f"{constraint} must hold, but got {name}={show(value)}")
        return snapped

    def corners(self) -> tuple[float, ...]:
        """The two ends."""
        return (self.low, self.high)

    def spread(self, count: int) -> tuple[float, ...]:
        """Returns distinct levels from end to end, evenly spaced; one level is the middle."""
        levels = _spaced(self.low, self.high, count, log=self.log)
        return tuple(dict.fromkeys(self._snapped(level) for level in levels))

    def _snapped(self, value: float) -> float:
        if self.step is None:
            return value
        low, step = Decimal(repr(self.low)), Decimal(repr(self.step))
        return float(low + round((value - self.low) / self.step) * step)


class IntDomain(StrictModel):
    """The integers of [low, high], both ends included, or those at whole steps from `low`.

    Attributes:
        log: Whether values are drawn and spaced evenly in their logarithm.
        step: Distance between allowed values.
        when: The other parameters' values for which this domain applies; empty means always.
    """

    type: Literal["int"]
    low: int
    high: int
    log: bool = False
    step: Annotated[int, Field(ge=1)] = 1
    when: When = {}

    @model_validator(mode="after")
    def _check(self) -> Self:
        raise_any(_range_problems(self.low, self.high, log=self.log))
        if self.log and self.step != 1:
            message = "`step` must be left out where `log` is true, but got both"
            raise ProblemsError([Problem(("step",), message)])
        _check_step(self.low, self.high, self.step)
        return self

    def canonical(self, name: str, value: object) -> int:
        """Returns the value as an integer.

        Raises:
            ValueError: It is no whole number, out of bounds, or between two steps.
        """
        if isinstance(value, bool) or not isinstance(value, int | float) or value % 1 != 0:
            raise ValueError(f"must be a whole number, but got {name}={show(value)}")
        _check_bounds(name, value, self.low, self.high)
        if (value - self.low) % self.step:
            constraint = f"`{name} = {self.low} + k * {self.step}`"
            raise ValueError(f"{constraint} must hold, but got {name}={show(value)}")
        return int(value)

    def corners(self) -> tuple[int, ...]:
        """The two ends."""
        return (self.low, self.high)

    def spread(self, count: int) -> tuple[int, ...]:
        """Returns distinct levels from end to end, evenly spaced; one level is the middle."""
        levels = _spaced(self.low, self.high, count, log=self.log)
        steps = (round((level - self.low) / self.step) for level in levels)
        return tuple(dict.fromkeys(self.low + step * self.step for step in steps))


class CategoricalDomain(StrictModel):
    """A list of choices.

    Attributes:
        choices: Distinct values.
        when: The other parameters' values for which this domain applies; empty means always.
    """

    type: Literal["categorical"]
    choices: Values
    when: When = {}

    @model_validator(mode="after")
    def _check(self) -> Self:
        for position, choice in enumerate(self.choices):
            if choice in self.choices[:position]:  # also 1 and true: Optuna takes them for one
                message = f"choices must differ, but {show(choice)} is there twice"
                raise ProblemsError([Problem(("choices",), message)])
        return self

    def canonical(self, name: str, value: object) -> Scalar:
        """Returns the choice that a value stands for.

        Raises:
            ValueError: It is none of the choices.
        """
        for choice in self.choices:
            if same(choice, value):
                return choice
        choices = ", ".join(map(repr, self.choices))
        raise ValueError(f"must be one of {choices}, but got {name}={show(value)}")

    def corners(self) -> tuple[Scalar, ...]:
        """All choices."""
        return self.choices


Domain = Annotated[FloatDomain | IntDomain | CategoricalDomain, Field(discriminator="type")]
Branches = Annotated[tuple[Domain, ...], BeforeValidator(as_values), Field(min_length=1)]


def _range_problems(low: float, high: float, *, log: bool) -> list[Problem]:
    if low > high:
        message = f"`low <= high` must hold, but got low={low}, high={high}"
        return [Problem(("low",), message)]
    if log and low <= 0:
        return [Problem(("low",), f"`low > 0` must hold where `log` is true, but got low={low}")]
    return []


def _check_step(low: float, high: float, step: float) -> None:
    if (Decimal(repr(high)) - Decimal(repr(low))) % Decimal(repr(step)):
        got = f"low={low}, high={high}, step={step}"
        message = f"`high - low` must be a multiple of `step`, but got {got}"
        raise ProblemsError([Problem(("step",), message)])


def _check_bounds(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise ValueError(f"`{low} <= {name} <= {high}` must hold, but got {name}={value!r}")


def _spaced(low: float, high: float, count: int, *, log: bool) -> list[float]:
    if low == high:
        return [low]
    fractions = [0.5] if count == 1 else [i / (count - 1) for i in range(count)]
    return [_between(low, high, fraction, log=log) for fraction in fractions]


def _between(low: float, high: float, fraction: float, *, log: bool) -> float:
    if fraction in (0.0, 1.0):
        return (low, high)[int(fraction)]  # the ends exactly, without rounding
    if log:
        value = math.exp(math.log(low) * (1 - fraction) + math.log(high) * fraction)
    else:
        value = low * (1 - fraction) + high * fraction
    return min(max(float(f"{value:.{_DIGITS}g}"), low), high)
