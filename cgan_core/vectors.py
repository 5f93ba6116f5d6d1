"""Sets of vectors as the Parzen window takes them: checked, or moved and rounded for products."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor


@dataclass(frozen=True)
class Rounded:
    """Vectors moved by a common shift and rounded, and what the rounding cost."""

    values: Float[Tensor, "vectors dim"]
    norms: Float64[Tensor, " vectors"]  # of the moved vectors
    losses: Float64[Tensor, " vectors"]  # |moved - rounded|, the rounding of the move included


def round_moved(
    vectors: Float[Tensor, "vectors dim"], shift: Float[Tensor, " dim"], dtype: torch.dtype
) -> Rounded:
    """`vectors - shift` in `dtype`."""
    moved = vectors - shift
    values = moved.to(dtype)
    norms = torch.linalg.vector_norm(moved, dim=1).double()
    lost = torch.linalg.vector_norm(moved - values, dim=1).double()
    limits = torch.finfo(moved.dtype)
    return Rounded(values, norms, lost + limits.eps * norms + len(shift) * limits.tiny)


def common_dtype(points: Tensor, centers: Tensor) -> torch.dtype:
    """Products are in float64 where either side is, else in float32."""
    wide = torch.float64 in (points.dtype, centers.dtype)
    return torch.float64 if wide else torch.float32


def check_vectors(points: Tensor, centers: Tensor) -> None:
    """Checks a pair of vector sets.

    Raises:
        ValueError: if the sets do not fit together, or hold nothing or a value that is not finite.
    """
    shapes = (*points.shape, *centers.shape)
    if points.ndim != 2 or centers.ndim != 2 or points.shape[1] != centers.shape[1]:
        raise ValueError(
            "`points (n, dim)` and `centers (m, dim)` must hold for one dim, but got shapes "
            f"{tuple(points.shape)} and {tuple(centers.shape)}"
        )
    if 0 in shapes[1:]:
        raise ValueError(f"`dim >= 1` and `len(centers) >= 1` must hold, but got {shapes[2:]}")
    if points.device != centers.device:
        raise ValueError(
            "`points.device == centers.device` must hold, but got "
            f"{points.device} and {centers.device}"
        )
    for name, values in (("points", points), ("centers", centers)):
        _check_finite(name, values)


def check_labels(
    points: Tensor, labels: Int[Tensor, "..."], centers: Tensor, center_labels: Int[Tensor, "..."]
) -> None:
    """Checks that every point and every centre has one label.

    Raises:
        ValueError: if a count differs.
    """
    pairs = (("labels", labels, points), ("center_labels", center_labels, centers))
    for name, given, vectors in pairs:
        if given.shape != vectors.shape[:1]:
            raise ValueError(
                f"`{name} ({len(vectors)},)` must hold, but got shape {tuple(given.shape)}"
            )


def _check_finite(name: str, values: Tensor) -> None:
    if bool(values.sum().isfinite()):
        return  # one fast pass; a NaN or an infinity reaches the sum
    bad = (~values.isfinite()).nonzero()
    if len(bad):
        row, column = bad[0].tolist()
        value = float(values[row, column])
        raise ValueError(
            f"`{name}` finite must hold, but got {name}[{row}, {column}]={value} "
            f"({len(bad)} such values)"
        )
