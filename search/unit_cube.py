"""A space as the unit cube: one coordinate a parameter, whichever of its branches applies."""

import math
from collections.abc import Mapping, Sequence

from search.domains import CategoricalDomain, Domain, FloatDomain, Params, Scalar
from search.space import Space, active_domain, dependency_order

_MIDDLE = 0.5  # where a parameter that does not apply is put


def point_at(space: Space, coordinates: Sequence[float]) -> Params:
    """Returns the point of the space at coordinates in [0, 1], in the order of dependence."""
    params: Params = {}
    for name, fraction in zip(dependency_order(space), coordinates, strict=True):
        domain = active_domain(space[name], params)
        if domain is not None:
            params[name] = domain.canonical(name, value_at(domain, fraction))
    return params


def coordinates_of(space: Space, params: Mapping[str, Scalar]) -> list[float]:
    """Returns coordinates at which `point_at` gives the point again, up to rounding."""
    coordinates = []
    for name in dependency_order(space):
        domain = active_domain(space[name], params)
        coordinates.append(_MIDDLE if domain is None else _fraction_of(domain, params[name]))
    return coordinates


def value_at(domain: Domain, fraction: float) -> Scalar:
    """Returns a domain's value at a coordinate in [0, 1], but for rounding to its steps."""
    if isinstance(domain, CategoricalDomain):
        return domain.choices[_cell(fraction, len(domain.choices))]
    if domain.log:
        low, high = _log_ends(domain)
        value = math.exp(low + fraction * (high - low))
        whole = value if isinstance(domain, FloatDomain) else math.floor(value)
        return min(max(whole, domain.low), domain.high)
    if domain.step is None:
        return min(domain.low + fraction * (domain.high - domain.low), domain.high)
    values = round((domain.high - domain.low) / domain.step) + 1
    return min(domain.low + _cell(fraction, values) * domain.step, domain.high)


def _fraction_of(domain: Domain, value: Scalar) -> float:
    if isinstance(domain, CategoricalDomain):
        return (domain.choices.index(value) + 0.5) / len(domain.choices)
    number = float(value)
    if domain.low == domain.high:
        return _MIDDLE
    if domain.log:
        low, high = _log_ends(domain)
        middle = number if isinstance(domain, FloatDomain) else number + 0.5
        return (math.log(middle) - low) / (high - low)
    if domain.step is None:
        return (number - domain.low) / (domain.high - domain.low)
    values = round((domain.high - domain.low) / domain.step) + 1
    return (round((number - domain.low) / domain.step) + 0.5) / values


def _log_ends(domain: Domain) -> tuple[float, float]:
    """The ends in logarithms; a whole number n stands for [n, n + 1)."""
    assert not isinstance(domain, CategoricalDomain)
    width = 0 if isinstance(domain, FloatDomain) else 1
    return math.log(domain.low), math.log(domain.high + width)


def _cell(fraction: float, cells: int) -> int:
    return min(int(fraction * cells), cells - 1)
