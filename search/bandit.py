"""Where a drifting reward is to be sought next: an upper confidence bound, maximised."""

import math
from collections.abc import Sequence

import numpy as np

from search.time_varying_gp import Points, TimeVaryingGP, Values

_CANDIDATES = 512
_NEAR = 64  # further ones around the best so far, at each of these widths
_WIDTHS = (0.2, 0.1, 0.05, 0.02, 0.01)


def best_first(
    process: TimeVaryingGP,
    start: Values,
    free: Sequence[int],
    time: float,
    pending: Points,
    rng: np.random.Generator,
) -> Points:
    """Returns points of the unit cube in falling order of their upper confidence bound.

        mean(x, t) + sqrt(beta) sd(x, t),    beta = 0.2 + max(0, log 0.4 n),

    for n observations, with the constants of the authors of PB2 (Parker-Holder et al. 2020), and
    sd as it will be once the pending rewards are known. The bound is maximised over points drawn
    evenly and then ever closer around the best of them. A point that is best by more than rounding
    is the same on every machine, for it is drawn, not iterated to.

    Args:
        process: That of the rewards.
        start: A point; the others differ from it in the free coordinates only.
        free: Which coordinates may change.
        time: When the reward will be had, in intervals.
        pending: Points whose rewards of that time are awaited.
        rng: For all that is drawn.
    """
    beta = 0.2 + max(0.0, math.log(0.4 * len(process.rewards)))
    points, bounds = np.empty((0, len(start))), np.empty(0)
    for width in (None, *_WIDTHS):
        if width is None:
            drawn = rng.random((_CANDIDATES, len(free)))
        else:
            best = points[bounds.argmax(), free]
            drawn = best + width * rng.standard_normal((_NEAR, len(free)))
        new = np.tile(start, (len(drawn), 1))
        new[:, free] = np.clip(drawn, 0.0, 1.0)
        mean, deviation = process.posterior(new, time, pending)
        points = np.concatenate([points, new])
        bounds = np.concatenate([bounds, mean + math.sqrt(beta) * deviation])
    return np.asarray(points[np.argsort(-bounds, kind="stable")])
