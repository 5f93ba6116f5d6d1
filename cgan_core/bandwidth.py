"""The bandwidth of a Parzen window: the best of a grid, or the maximum over all bandwidths.

Of the curve f and its ceiling c (curve.py), N the number of centres and D the dimension:
The ceiling c has one maximum, at p = D / (2 mean b), so a bandwidth whose ceiling is more than
log N below the highest cannot be the best one. That leaves a narrow interval (in 784 dimensions
about a tenth around the ceiling's maximum) that surely holds the global maximum, however many
others there are.
"""

import math
from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from cgan_core.curve import Curve
from cgan_core.distances import wide_accumulation
from cgan_core.vectors import check_vectors

Method = Literal["grid", "exact"]
GRID = tuple(10 ** (k / 9 - 1) for k in range(10))  # logspace(-1, 0, 10), Goodfellow et al. 2014
BOUNDS = (0.01, 10.0)
SCAN_RATIO = 10 ** (1 / 9)  # of neighbouring bandwidths, that of the grid
RELATIVE_TOLERANCE = 1e-6
MAX_STEPS = 60  # bisection alone needs 30 from the widest bracket


def check_bandwidth(bandwidth: float, name: str = "bandwidth") -> None:
    """Checks a bandwidth.

    Raises:
        ValueError: if it is not a positive finite number.
    """
    if not bandwidth > 0:
        raise ValueError(f"`{name} > 0` must hold, but got {name}={bandwidth:g}")
    if math.isinf(bandwidth):
        raise ValueError(f"`{name}` finite must hold, but got {name}={bandwidth:g}")


def select_bandwidth(
    points: Float[Tensor, "points dim"],
    centers: Float[Tensor, "centers dim"],
    method: Method = "exact",
    bounds: tuple[float, float] = BOUNDS,
) -> float:
    """Bandwidth under which the points are most probable on average.

    `grid` takes the best of the 10 points of logspace(-1, 0), as published tables do; `exact` the
    global maximum within `bounds`, to a relative 1e-6. Where every point is also a centre the
    likelihood grows without end as sigma -> 0, and the answer is the lower bound.

    Args:
        points: x, held-out data.
        centers: s_j, where the Gaussians sit.
        method: `grid` or `exact`.
        bounds: smallest and largest sigma that `exact` may give, in the units of the points.

    Raises:
        ValueError: if a value is not finite, there is no point, or the bounds are not
            0 < low < high.
    """
    return select_bandwidths(points, centers, (method,), bounds)[method]


@torch.no_grad()
def select_bandwidths(
    points: Float[Tensor, "points dim"],
    centers: Float[Tensor, "centers dim"],
    methods: Sequence[Method] = ("grid", "exact"),
    bounds: tuple[float, float] = BOUNDS,
) -> dict[Method, float]:
    """Bandwidth by each method, from one pass over the distances; see `select_bandwidth`."""
    check_vectors(points, centers)
    for method in methods:
        if method not in ("grid", "exact"):
            raise ValueError(f"`method in (grid, exact)` must hold, but got method={method}")
    if len(points) == 0:
        raise ValueError("`len(points) >= 1` must hold, but got len(points)=0")
    low, high = bounds
    if not 0 < low < high < math.inf:
        raise ValueError(f"`0 < low < high` must hold, but got bounds=({low:g}, {high:g})")
    with wide_accumulation(points.device):
        curve = Curve(points, centers)
        return {
            m: _best_of(curve, GRID) if m == "grid" else _maximum(curve, low, high)
            for m in methods
        }


def _best_of(curve: Curve, bandwidths: Sequence[float]) -> float:
    """The best of a few bandwidths."""
    ceilings = [curve.ceiling(bandwidth) for bandwidth in bandwidths]
    enough = max(ceilings) - curve.log_num_centers - 1e-6 * abs(max(ceilings))
    hopeful = [b for b, c in zip(bandwidths, ceilings, strict=True) if c >= enough]
    values = [value.mean for value in curve.evaluate(hopeful)]
    return hopeful[values.index(max(values))]


def _maximum(curve: Curve, low: float, high: float) -> float:
    """The best bandwidth from `low` to `high`, never worse than one of `GRID` there."""
    left, right = _interval(curve, low, high)
    steps = max(2, math.ceil(math.log(right / left) / math.log(SCAN_RATIO)))
    scan = [*(left * (right / left) ** (k / steps) for k in range(steps)), right]
    best = _best_of(curve, [*scan, *(b for b in GRID if left < b < right)])
    return _refine(curve, best, max(best / SCAN_RATIO, left), min(best * SCAN_RATIO, right))


def _interval(curve: Curve, low: float, high: float) -> tuple[float, float]:
    """The bandwidths whose ceiling is within log N of the highest."""
    peak = min(max(curve.highest_ceiling(), low), high)
    enough = curve.ceiling(peak) - curve.log_num_centers - 1e-3
    return _crossing(curve, low, peak, enough), _crossing(curve, high, peak, enough)


def _crossing(curve: Curve, outer: float, inner: float, enough: float) -> float:
    """Where the ceiling falls below `enough` on the way out, or `outer`."""
    if curve.ceiling(outer) >= enough:
        return outer
    for _ in range(40):
        middle = math.sqrt(outer * inner)
        if curve.ceiling(middle) >= enough:
            inner = middle
        else:
            outer = middle
    return outer


def _refine(curve: Curve, start: float, low: float, high: float) -> float:
    """Newton's method in log p from `start`, kept within a bracket by bisection."""
    bandwidth, best, best_value = start, start, -math.inf
    for _ in range(MAX_STEPS):
        value, slope, curvature = curve.evaluate([bandwidth])[0]
        if value > best_value:
            best, best_value = bandwidth, value
        if slope > 0:  # more likely at a larger p, a smaller bandwidth
            high = bandwidth
        else:
            low = bandwidth
        proposed = math.sqrt(low * high)
        if curvature < 0 and abs(slope / curvature) < 1:
            newton = bandwidth * math.exp(slope / curvature / 2)  # log sigma = -log(p) / 2
            if low <= newton <= high:
                proposed = newton
        if abs(math.log(proposed / bandwidth)) < RELATIVE_TOLERANCE:
            break
        bandwidth = proposed
    return best
