"""The mean log-likelihood of points under a Parzen window, as a function of the bandwidth.

With p = 1 / sigma^2, half squared distances q_ij and b_i the smallest of q_i., the mean over the
points of log p(x_i) is

    f(p) = mean_i log mean_j exp(-p q_ij) + D/2 log(p / 2 pi)

and, since a mean of N numbers is between their largest over N and their largest,

    c(p) - log N <= f(p) <= c(p) = -p mean_i b_i + D/2 log(p / 2 pi).
"""

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from cgan_core.distances import MIN_EXPONENT, half_square_tiles
from cgan_core.screen import Near, Scores, Screen
from cgan_core.vectors import common_dtype

CACHE_BYTES = 256 * 2**20  # for the scores, and as much for distances in full
TAIL = 1e-8  # nats that centres left out may cost: a maximum is flat, so its place needs more


class Block(NamedTuple):
    """Half squared distances of some points: the smallest, and those worth a term less it."""

    base: Float64[Tensor, " points"]
    rest: Float[Tensor, "points near"]


class Value(NamedTuple):
    """Mean log-likelihood in nats, and its two derivatives in log p."""

    mean: float
    slope: float
    curvature: float


class Curve:
    """f, from one pass over the products.

    Of each point only the centres are kept that matter at some bandwidth asked for so far; where
    these are too many, or values are float64, all its distances are. What does not fit into
    `CACHE_BYTES` is computed again at each call.

    Args:
        points: x, at least one.
        centers: s_j, where the Gaussians sit.
    """

    def __init__(
        self, points: Float[Tensor, "points dim"], centers: Float[Tensor, "centers dim"]
    ) -> None:
        self._points, self._centers = points, centers
        self._dtype = common_dtype(points, centers)
        self._screen = Screen(centers.float()) if self._dtype == torch.float32 else None
        self._scores: list[tuple[Int64[Tensor, " rows"], Scores]] | None = None
        self._in_full = torch.zeros(len(points), dtype=torch.bool, device=points.device)
        self._full: list[_FullRows] = []
        self._near: list[Block] = []
        if self._screen is None:
            self._take_in_full(torch.arange(len(points), device=points.device))
        elif len(points) * self._screen.bytes_per_point <= CACHE_BYTES:
            self._scores = list(self._score())
        self._measure(0.0)
        bases = [block.base for block in self._blocks()]
        self.mean_base = float(torch.cat(bases).mean())
        self.log_num_centers = math.log(len(centers))

    def ceiling(self, bandwidth: float) -> float:
        """c: no less than the mean log-likelihood, and by no more than log N."""
        return -self.mean_base * bandwidth**-2 - self._log_volume(bandwidth)

    def highest_ceiling(self) -> float:
        """The bandwidth where c has its one maximum, p = D / (2 mean b)."""
        return math.sqrt(2 * self.mean_base / self._points.shape[1])

    def evaluate(self, bandwidths: Sequence[float]) -> list[Value]:
        """The mean and its derivatives at each bandwidth."""
        if max(bandwidths) > self._widest:
            self._measure(max(bandwidths))
        sums = torch.zeros(len(bandwidths), 3, dtype=torch.float64, device=self._points.device)
        for block in self._blocks():
            terms = torch.empty_like(block.rest)
            for row, bandwidth in zip(sums, bandwidths, strict=True):
                row += _block_sums(block, bandwidth**-2, terms)
        half_dim = self._points.shape[1] / 2
        return [
            Value(
                value - self.log_num_centers - self._log_volume(bandwidth),
                half_dim + first,
                first + second,
            )
            for bandwidth, (value, first, second) in zip(
                bandwidths, (sums / len(self._points)).tolist(), strict=True
            )
        ]

    def _log_volume(self, bandwidth: float) -> float:
        return self._points.shape[1] / 2 * math.log(2 * math.pi * bandwidth**2)

    def _measure(self, widest: float) -> None:
        """Keeps the centres that matter up to the bandwidth `widest`; see `TAIL`."""
        self._widest, self._near = widest, []
        reach = math.log(len(self._centers) / TAIL) * widest**2
        beyond = reach - 2 * MIN_EXPONENT * widest**2  # no bandwidth sees it
        if self._screen is None:
            return
        for rows, scores in self._scores if self._scores is not None else self._score():
            near = self._screen.near(self._points[rows].float(), scores, reach)
            self._take_in_full(rows[near.crowded & ~self._in_full[rows]])
            self._near.append(_block(near, ~self._in_full[rows], beyond))

    def _take_in_full(self, rows: Int64[Tensor, " rows"]) -> None:
        if len(rows) == 0:
            return
        self._in_full[rows] = True
        size = int(self._in_full.sum()) * len(self._centers) * self._dtype.itemsize
        full = _FullRows(self._points[rows], self._centers, self._dtype, size <= CACHE_BYTES)
        self._full.append(full)

    def _score(self) -> Iterator[tuple[Int64[Tensor, " rows"], Scores]]:
        assert self._screen is not None
        everyone = torch.arange(len(self._points), device=self._points.device)
        for rows in everyone.split(self._screen.rows_per_tile):
            yield rows, self._screen.scores(self._points[rows].float())

    def _blocks(self) -> Iterator[Block]:
        yield from self._near
        for full in self._full:
            yield from full.blocks()


class _FullRows:
    """All distances of some points, kept or computed again at each call."""

    def __init__(
        self,
        points: Float[Tensor, "points dim"],
        centers: Float[Tensor, "centers dim"],
        dtype: torch.dtype,
        keep: bool,
    ) -> None:
        self._points, self._centers, self._dtype = points, centers, dtype
        self._cache = list(self._compute()) if keep else None

    def blocks(self) -> Iterator[Block]:
        """The points block by block."""
        return iter(self._cache) if self._cache is not None else self._compute()

    def _compute(self) -> Iterator[Block]:
        for _, tile in half_square_tiles(self._points, self._centers):
            base = tile.amin(1)
            yield Block(base, (tile - base[:, None]).to(self._dtype))


def _block(near: Near, rows: Tensor, beyond: float) -> Block:
    half_squares = near.half_squares[rows]
    base = half_squares.amin(1)
    return Block(base, (half_squares - base[:, None]).clamp_(max=beyond))


def _block_sums(
    block: Block, precision: float, terms: Float[Tensor, "rows near"]
) -> Float64[Tensor, "3"]:
    """Sums over rows of log sum_j exp(-p q_j), and of its first and second derivative parts.

    With weights w_j = exp(-p q_j) / sum: -p mean_w q, and p^2 var_w q.
    """
    base, rest = block
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
