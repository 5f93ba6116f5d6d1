"""Squared distances between points and centres, in blocks that fit the cache.

Half squared distances are written q, so that a Gaussian kernel is exp(-q / sigma^2). A product
gives q only to a few units in the last place of |x|^2 + |s|^2, which a small bandwidth turns into
nats; the few nearest centres, which carry almost all of a kernel sum, are therefore measured again
as differences. Axes: points, centers, dim, and near (the nearest centres of a point).
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from cgan_core.vectors import Vectors

NUM_NEAR = 8
NUM_GROUPS = 16  # columns per candidate in the two-level search for the nearest
MIN_EXPONENT = -80.0  # below it a term is lost beside 1, and exp is 15 times slower at underflow
TILE_BYTES = {"cpu": 10 * 2**20, "cuda": 256 * 2**20}  # cpu: 256 x 10,000 float32, within L3


@dataclass(frozen=True)
class Relative:
    """Half squared distances of a block of points: base in float64, the rest relative to it."""

    base: Float64[Tensor, " points"]  # of the nearest centre
    rest: Float[Tensor, "points centers"]  # q - base, in the tile's memory
    error: Float64[Tensor, " points"]  # bound on what the product got wrong, per entry
    near: Int64[Tensor, "points near"]
    is_exact: Tensor  # of each near entry: measured as a difference


def rows_per_tile(num_centers: int, dtype: torch.dtype, device: torch.device) -> int:
    """Rows of a tile that stays in cache; products of fewer than 128 rows run far below peak."""
    elements = TILE_BYTES["cuda" if device.type == "cuda" else "cpu"] // dtype.itemsize
    at_least = min(128, max(1, 8 * elements // num_centers))
    return max(at_least, min(1024, elements // num_centers))


@contextlib.contextmanager
def full_precision(device: torch.device) -> Iterator[None]:
    """Keeps TF32 out of CUDA products: it would cost 0.1 nats at sigma = 0.2 on digits."""
    if device.type != "cuda":
        yield
        return
    matmul = torch.backends.cuda.matmul
    before = matmul.fp32_precision
    matmul.fp32_precision = "ieee"
    try:
        yield
    finally:
        matmul.fp32_precision = before


def product_tile(
    points: Vectors, centers: Vectors, out: Float[Tensor, "rows centers"]
) -> Float[Tensor, "points centers"]:
    """|s|^2 / 2 - x.s of points and centres, that is q - |x|^2 / 2."""
    tile = torch.mm(points.centered, centers.centered.T, out=out[: len(points)])
    return torch.sub(centers.half_norms.to(tile.dtype), tile, out=tile)


def nearest(tile: Float[Tensor, "points centers"], count: int) -> Int64[Tensor, "points near"]:
    """Columns of the `count` smallest entries of each row.

    The smallest entries lie in the groups with the smallest minima, so one pass of minima and a
    search among `count` groups replace a search over whole rows, which is ten times slower.
    """
    num_columns = tile.shape[1]
    width = num_columns // NUM_GROUPS
    if width < 4 * count:
        return tile.topk(min(count, num_columns), dim=1, largest=False, sorted=False).indices
    minima = tile[:, : width * NUM_GROUPS].unflatten(1, (NUM_GROUPS, width)).amin(1)
    groups = minima.topk(count, dim=1, largest=False, sorted=False).indices
    offsets = torch.arange(NUM_GROUPS, device=tile.device) * width
    tail = torch.arange(width * NUM_GROUPS, num_columns, device=tile.device)
    candidates = torch.cat(
        [(groups[:, :, None] + offsets).flatten(1), tail.expand(len(tile), -1)], dim=1
    )
    chosen = tile.gather(1, candidates).topk(count, dim=1, largest=False, sorted=False).indices
    return candidates.gather(1, chosen)


def relative(
    tile: Float[Tensor, "points centers"], points: Vectors, centers: Vectors, reach: float
) -> Relative:
    """Turns a product tile, in place, into half squared distances relative to the nearest.

    Args:
        tile: what `product_tile` gave, overwritten.
        points: the vectors of the tile's rows.
        centers: the vectors of the tile's columns.
        reach: near entries within this half squared distance of the smallest are measured again.
    """
    near = nearest(tile, NUM_NEAR)
    values = tile.gather(1, near)
    is_exact = values <= values.amin(1, keepdim=True) + reach
    exact = values.double() + points.half_norms[:, None]
    rows, columns = is_exact.nonzero(as_tuple=True)
    exact[rows, columns] = _half_squared_differences(
        points.original, rows, centers.original, near[rows, columns]
    )
    base = exact.amin(1)
    tile.sub_((base - points.half_norms).to(tile.dtype)[:, None])
    tile.scatter_(1, near, (exact - base[:, None]).to(tile.dtype))
    scale = points.half_norms + centers.half_norms.max()
    return Relative(base, tile, 4 * torch.finfo(tile.dtype).eps * scale, near, is_exact)


def _half_squared_differences(
    points: Float[Tensor, "points dim"],
    rows: Int64[Tensor, " pairs"],
    centers: Float[Tensor, "centers dim"],
    columns: Int64[Tensor, " pairs"],
) -> Float64[Tensor, " pairs"]:
    """|x - s|^2 / 2 of chosen pairs, as differences in float64."""
    halves = [
        (points[r].double() - centers[c].double()).square_().sum(1).div_(2)
        for r, c in zip(rows.split(1024), columns.split(1024), strict=True)
    ]
    return torch.cat(halves)
