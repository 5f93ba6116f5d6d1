"""Proposals by the evolution of a normal distribution over the space."""

from collections.abc import Sequence

import numpy as np
from cmaes import CMA

from search.domains import Params
from search.space import Space
from search.unit_cube import coordinates_of, point_at

_SPREAD = 0.3  # the first standard deviation, in widths of the space (Hansen 2016, section B)


def evolved_point(
    space: Space, ranked: Sequence[tuple[Params, int]], seed: int, start: Params | None = None
) -> Params:
    """Draws a point by CMA-ES (Hansen & Ostermeier 2001) on the space's unit cube.

    The distribution is built anew from the record: generation after generation of points is told
    in the order given, and only their ranks count. So it depends on nothing but its arguments.

    Args:
        space: the searched parameters; choices are cells of their coordinate.
        ranked: points that were tried, in order, each with its rank; the lowest is the best.
        seed: of the draw.
        start: where the first distribution is centred; by default in the middle.
    """
    dimensions = max(len(space), 2)  # what CMA-ES asks for; a coordinate too many means nothing
    evolution = CMA(
        mean=_padded(space, start, dimensions),
        sigma=_SPREAD,
        bounds=np.tile([0.0, 1.0], (dimensions, 1)),
        seed=seed,
    )
    size = evolution.population_size
    for first in range(0, len(ranked) - size + 1, size):
        generation = ranked[first : first + size]
        told = [(_padded(space, params, dimensions), float(rank)) for params, rank in generation]
        evolution.tell(told)
    return point_at(space, evolution.ask()[: len(space)].tolist())


def _padded(
    space: Space, params: Params | None, dimensions: int
) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    coordinates = np.full(dimensions, 0.5)
    if params is not None:
        coordinates[: len(space)] = coordinates_of(space, params)
    return coordinates
