"""The bandwidth of a Parzen window: the best of a grid, or the maximum over all bandwidths.

With p = 1 / sigma^2, half squared distances q_ij and b_i the smallest of q_i., the mean over the
points of log p(x_i) is

    f(p) = mean_i log mean_j exp(-p q_ij) + D/2 log(p / 2 pi)

and, since a mean of N numbers is between their largest over N and their largest,

    c(p) - log N <= f(p) <= c(p) = -p mean_i b_i + D/2 log(p / 2 pi).

The ceiling c has one maximum, at p = D / (2 mean b), so a bandwidth whose ceiling is more than
log N below the highest cannot be the best one. That leaves a narrow interval (in 784 dimensions
about a tenth around the ceiling's maximum) that surely holds the global maximum, however many
others there are.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Literal

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from cgan_core.distances import (
    MIN_EXPONENT,
    full_precision,
    product_tile,
    relative,
    rows_per_tile,
)
from cgan_core.vectors import center, check_vectors, common_dtype

Method = Literal["grid", "exact"]
GRID = tuple(10 ** (k / 9 - 1) for k in range(10))  # logspace(-1, 0, 10), Goodfellow et al. 2014
BOUNDS = (0.01, 10.0)
CACHE_BYTES = 512 * 2**20
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
    with full_precision(points.device):
        curve = Curve(points, centers)
        return {m: curve.best_of(GRID) if m == "grid" else curve.maximum(*bounds) for m in methods}


class Curve:
    """Mean log-likelihood of the points as a function of the bandwidth.

    Distances are computed once and kept in `CACHE_BYTES`; where they do not fit, each evaluation
    computes them again, block by block.
    """

    def __init__(
        self, points: Float[Tensor, "points dim"], centers: Float[Tensor, "centers dim"]
    ) -> None:
        dtype = common_dtype(points, centers)
        self._points = points
        self._mean = centers.mean(0, dtype=dtype)
        self._centers = center(centers, self._mean)
        self._size = rows_per_tile(len(centers), dtype, points.device)
        fits = len(points) * len(centers) * dtype.itemsize <= CACHE_BYTES
        self._cache = [(base, rest.clone()) for base, rest in self._compute()] if fits else None
        bases = [base for base, _ in self._blocks()]
        self.mean_base = float(torch.cat(bases).mean())

    def best_of(self, bandwidths: Sequence[float]) -> float:
        """The best of a few bandwidths."""
        ceilings = [self.ceiling(bandwidth) for bandwidth in bandwidths]
        enough = max(ceilings) - math.log(len(self._centers)) - 1e-6 * abs(max(ceilings))
        hopeful = [b for b, c in zip(bandwidths, ceilings, strict=True) if c >= enough]
        values = [value for value, _, _ in self.evaluate(hopeful)]
        return hopeful[values.index(max(values))]

    def maximum(self, low: float, high: float) -> float:
        """The best bandwidth from `low` to `high`, never worse than one of `GRID` there."""
        left, right = self._interval(low, high)
        steps = max(2, math.ceil(math.log(right / left) / math.log(SCAN_RATIO)))
        scan = [*(left * (right / left) ** (k / steps) for k in range(steps)), right]
        best = self.best_of([*scan, *(b for b in GRID if left < b < right)])
        return self._refine(best, max(best / SCAN_RATIO, left), min(best * SCAN_RATIO, right))

    def ceiling(self, bandwidth: float) -> float:
        """No less than the mean log-likelihood, and by no more than log(number of centres)."""
        return -self.mean_base * bandwidth**-2 - self._log_volume(bandwidth)

    def evaluate(self, bandwidths: Sequence[float]) -> list[tuple[float, float, float]]:
        """Mean log-likelihood and its two derivatives in log p, at each bandwidth."""
        sums = torch.zeros(len(bandwidths), 3, dtype=torch.float64)
        for base, rest in self._blocks():
            terms = torch.empty_like(rest)
            for row, bandwidth in zip(sums, bandwidths, strict=True):
                row += _block_sums(base, rest, bandwidth**-2, terms).cpu()
        means = sums / len(self._points)
        half_dim = self._points.shape[1] / 2
        correction = math.log(len(self._centers))
        return [
            (value - correction - self._log_volume(b), half_dim + first, first + second)
            for b, (value, first, second) in zip(bandwidths, means.tolist(), strict=True)
        ]

    def _log_volume(self, bandwidth: float) -> float:
        return self._points.shape[1] / 2 * math.log(2 * math.pi * bandwidth**2)

    def _interval(self, low: float, high: float) -> tuple[float, float]:
        """The bandwidths whose ceiling is within log N of the highest."""
        peak = math.sqrt(2 * self.mean_base / self._points.shape[1])
        peak = min(max(peak, low), high)
        enough = self.ceiling(peak) - math.log(len(self._centers)) - 1e-3
        return self._crossing(low, peak, enough), self._crossing(high, peak, enough)

    def _crossing(self, outer: float, inner: float, enough: float) -> float:
        """Where the ceiling falls below `enough` on the way out, or `outer`."""
        if self.ceiling(outer) >= enough:
            return outer
        for _ in range(40):
            middle = math.sqrt(outer * inner)
            if self.ceiling(middle) >= enough:
                inner = middle
            else:
                outer = middle
        return outer

    def _refine(self, start: float, low: float, high: float) -> float:
        """Newton's method in log p from `start`, kept within a bracket by bisection."""
        bandwidth, best, best_value = start, start, -math.inf
        for _ in range(MAX_STEPS):
            value, slope, curvature = self.evaluate([bandwidth])[0]
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

    def _blocks(self) -> Iterator[tuple[Float64[Tensor, " rows"], Float[Tensor, "rows centers"]]]:
        return iter(self._cache) if self._cache is not None else self._compute()

    def _compute(self) -> Iterator[tuple[Float64[Tensor, " rows"], Float[Tensor, "rows centers"]]]:
        """Half squared distances of each block of points; the next block overwrites them."""
        out = self._mean.new_empty(min(self._size, len(self._points)), len(self._centers))
        for block in self._points.split(self._size):
            vectors = center(block, self._mean)
            tile = product_tile(vectors, self._centers, out)
            distances = relative(tile, vectors, self._centers, math.inf)
            yield distances.base, distances.rest


def _block_sums(
    base: Float64[Tensor, " rows"],
    rest: Float[Tensor, "rows centers"],
    precision: float,
    terms: Float[Tensor, "rows centers"],
) -> Float64[Tensor, "3"]:
    """Sums over rows of log sum_j exp(-p q_j), and of its first and second derivative parts.

    With weights w_j = exp(-p q_j) / sum: -p mean_w q, and p^2 var_w q.
    """
    torch.mul(rest, -precision, out=terms).clamp_min_(MIN_EXPONENT).exp_()
    total = terms.sum(1).double()
    first = terms.mul_(rest).sum(1).double() / total
    second = terms.mul_(rest).sum(1).double() / total
    return torch.stack(
        [
            (total.log() - precision * base).sum(),
            -precision * (base + first).sum(),
            precision**2 * (second - first.square()).sum(),
        ]
    )
