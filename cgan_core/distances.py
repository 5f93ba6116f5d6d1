"""Half squared distances q = |x - s|^2 / 2 in float64: of chosen pairs, or of whole blocks.

A Gaussian kernel of bandwidth sigma is exp(-p q) with p = 1 / sigma^2.
"""

import contextlib
from collections.abc import Iterator

import torch
from jaxtyping import Bool, Float, Float64, Int64
from torch import Tensor

MIN_EXPONENT = -80.0  # below it a term is lost beside 1, and exp is 15 times slower at underflow
TILE_BYTES = {"cpu": 10 * 2**20, "cuda": 256 * 2**20}  # cpu: within L3
PAIR_BYTES = {"cpu": 2**20, "cuda": 256 * 2**20}  # cpu: within L2


def rows_per_tile(num_columns: int, dtype: torch.dtype, device: torch.device) -> int:
    """Rows of a tile that stays in cache; products of fewer than 128 rows run far below peak."""
    elements = TILE_BYTES[device.type] // dtype.itemsize
    return max(min(128, 8 * elements // num_columns), min(4096, elements // num_columns), 1)


@contextlib.contextmanager
def wide_accumulation(device: torch.device) -> Iterator[None]:
    """Has products summed in float32 of unrounded terms, whatever the process has asked for.

    TF32 would cost 0.1 nats at sigma = 0.2 on digits, and CUDA may add parts of a bfloat16
    product in bfloat16.
    """
    cuda = device.type == "cuda"
    cpu = torch.backends.mkldnn.matmul  # type: ignore[attr-defined]  # made at run time
    matmul = torch.backends.cuda.matmul if cuda else cpu
    before = matmul.fp32_precision
    reduced = torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction
    matmul.fp32_precision = "ieee"
    torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = False
    try:
        yield
    finally:
        matmul.fp32_precision = before
        torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = reduced


def half_squares_of_pairs(
    points: Float[Tensor, "points dim"],
    rows: Int64[Tensor, " pairs"],
    centers: Float[Tensor, "centers dim"],
    columns: Int64[Tensor, " pairs"],
) -> Float64[Tensor, " pairs"]:
    """Of points[rows] and centers[columns], as differences: exact for near-duplicates too."""
    size = max(1, PAIR_BYTES[points.device.type] // (8 * points.shape[1]))
    distances = []
    for r, c in zip(rows.split(size), columns.split(size), strict=True):
        difference = points.index_select(0, r).double()
        difference -= centers.index_select(0, c)
        distances.append(torch.linalg.vector_norm(difference, dim=1))
    return torch.cat(distances).square_().div_(2)


def half_square_tiles(
    points: Float[Tensor, "points dim"], centers: Float[Tensor, "centers dim"]
) -> Iterator[tuple[slice, Float64[Tensor, "rows centers"]]]:
    """Of all pairs, some points at a time; the next tile overwrites the last.

    Products in float64 of vectors moved by the centres' mean, which keeps norms, and with them
    the rounding of |x|^2 / 2 + |s|^2 / 2 - x.s, small: 1e-11 for digits.
    """
    if len(points) == 0:
        return  # preparing the centres is most of the work
    mean = centers.mean(0, dtype=torch.float64)
    moved = centers - mean
    half_norms = moved.square().sum(1).div_(2)
    size = rows_per_tile(len(centers), mean.dtype, points.device)
    out = mean.new_empty(min(size, len(points)), len(centers))
    for start in range(0, len(points), size):
        rows = points[start : start + size] - mean
        tile = torch.addmm(half_norms, rows, moved.T, alpha=-1, out=out[: len(rows)])
        tile.add_(rows.square().sum(1, keepdim=True).div_(2)).clamp_(min=0)
        yield slice(start, start + len(rows)), tile


def log_mean_kernel(
    half_squares: Float64[Tensor, "points near"],
    precision: float,
    counts: int | Int64[Tensor, " points"],
    where: Bool[Tensor, "points near"] | None = None,
) -> Float64[Tensor, " points"]:
    """log(sum_j exp(-p q_j) / count) of each row, over the columns in `where` if given.

    Columns that are left out, or infinitely far, add nothing; a row without any is -inf.
    """
    kept = half_squares if where is None else half_squares.masked_fill(~where, torch.inf)
    base = kept.amin(1, keepdim=True)
    exponents = (base - kept).mul_(precision)
    total = exponents.clamp_min_(MIN_EXPONENT).exp_().sum(1)
    value = total.log_() - precision * base[:, 0] - torch.as_tensor(counts, dtype=base.dtype).log()
    return value.masked_fill_(base[:, 0].isinf(), -torch.inf)
