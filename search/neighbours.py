"""The nearest of some points of a search space, over numbers, choices and branches."""

import math
from collections.abc import Iterable

import numpy as np
from jaxtyping import Float

from search.domains import CategoricalDomain, FloatDomain, IntDomain, Params, same
from search.space import Space, active_domain, dependency_order

_HALF = math.sqrt(0.5)  # two indicators that differ make a squared distance of 1


class Neighbours:
    """Finds the nearest of some points in a space scaled to the unit cube.

    A number's coordinate is its share of the way from `low` to `high`, of the logarithm where
    `log`. Two choices of a categorical parameter are 1 apart; so, at least, are a parameter that
    applies and one that does not, and two branches of it.

    Args:
        space: The searched parameters.
        points: What to choose from, at least one.
    """

    def __init__(self, space: Space, points: Iterable[Params]) -> None:
        self._space = space
        self._first: dict[str, list[int]] = {}
        width = 0
        for name in dependency_order(space):
            self._first[name] = []
            for domain in space[name]:
                self._first[name].append(width)
                width += len(domain.choices) if isinstance(domain, CategoricalDomain) else 2
            self._first[name].append(width)  # the indicator of "does not apply"
            width += 1
        self._width = width
        self._places = np.stack([self.coordinates(point) for point in points])

    def nearest(self, params: Params) -> int:
        """Returns the place of the nearest point; of equals the first."""
        apart = self._places - self.coordinates(params)
        return int(np.argmin(np.einsum("nc,nc->n", apart, apart)))

    def coordinates(self, params: Params) -> Float[np.ndarray, " width"]:
        """Returns a point's coordinates."""
        point = np.zeros(self._width)
        for name, first in self._first.items():
            branches = self._space[name]
            domain = active_domain(branches, params) if name in params else None
            if domain is None:
                point[first[-1]] = _HALF
                continue
            column = first[branches.index(domain)]
            if isinstance(domain, CategoricalDomain):
                value = params[name]
                point[column + next(i for i, c in enumerate(domain.choices) if same(c, value))] = (
                    _HALF
                )
            else:
                point[column] = _HALF
                point[column + 1] = _share_of(domain, float(params[name])) - 0.5
        return point


def _share_of(domain: FloatDomain | IntDomain, value: float) -> float:
    low, high = float(domain.low), float(domain.high)
    if low == high:
        return 0.5
    if domain.log:
        return math.log(value / low) / math.log(high / low)
    return (value - low) / (high - low)
