"""Points that fill a space more evenly than random ones do."""

from scipy.stats.qmc import Sobol

from search.domains import Params
from search.space import Space
from search.unit_cube import point_at


def sobol_point(space: Space, seed: int, index: int) -> Params:
    """Returns one point of the space's Sobol' sequence, scrambled by the seed.

    Sobol' (1967), scrambled as by Matoušek (1998). The point depends on seed and index alone, so
    a study that goes on after a stop takes up the sequence where it was.
    """
    sequence = Sobol(d=len(space), scramble=True, rng=seed)
    if index:  # SciPy cannot skip nothing
        sequence.fast_forward(index)
    (coordinates,) = sequence.random(1)
    return point_at(space, coordinates.tolist())
