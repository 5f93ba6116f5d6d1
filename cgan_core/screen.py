"""Which centres can matter to a point: a product in low precision that leaves none of them out.

With q = |x - s|^2 / 2 and the score t = x.s - |s|^2 / 2 = |x|^2 / 2 - q, the nearest centres of a
point have the highest scores. Scores come from a bfloat16 product where the processor has one
(float32 elsewhere) and are wrong in the third digit, by no more than a bound that follows from the
norms. So every centre whose score is within `reach` of the highest, give or take that bound, is
kept; these few (on digits 2 to 12 of 10,000) are measured again as differences in float64. A point
that keeps more than `MAX_NEAR` is called crowded: measuring all its distances is as cheap.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Float32, Float64, Int64
from torch import Tensor

from cgan_core.distances import half_squares_of_pairs, rows_per_tile
from cgan_core.vectors import Rounded, round_moved

GROUP = 16  # columns that share one maximum, so that all passes but one are over 1/16 of a tile
MAX_NEAR = 128
NUM_PARTS = 3  # of |s|^2 / 2, which rides in the product: 24 bits in bfloat16


@dataclass(frozen=True)
class Scores:
    """Scores of some points under all centres, in the screen's order of columns."""

    values: Float[Tensor, "points columns"]
    errors: Float64[Tensor, " points"]  # bound on |score - t| before the score was stored


@dataclass(frozen=True)
class Near:
    """The kept centres of some points, one row a point, filled up with infinite distances."""

    half_squares: Float64[Tensor, "points near"]
    centers: Int64[Tensor, "points near"]  # 0 where infinitely far
    is_own: Bool[Tensor, "points near"]  # of the point's class
    crowded: Bool[Tensor, " points"]  # whose row is empty: too many to keep


@dataclass(frozen=True)
class _Pairs:
    """Kept pairs of a point and a centre, sorted by point."""

    rows: Int64[Tensor, " pairs"]
    centers: Int64[Tensor, " pairs"]
    is_own: Bool[Tensor, " pairs"]


def screen_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 where the processor has instructions for products in it, else float32."""
    if device.type == "cuda":
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        known = torch.cpu.get_capabilities()
        fast = any(known.get(name, False) for name in ("avx512_bf16", "amx_bf16"))
    return torch.bfloat16 if fast else torch.float32


class Screen:
    """Centres prepared for the search, each class in columns of its own.

    Args:
        centers: s_j, float32.
        labels: the class of each centre; without it all are of class 0.
    """

    def __init__(
        self,
        centers: Float32[Tensor, "centers dim"],
        labels: Int64[Tensor, " centers"] | None = None,
    ) -> None:
        self._centers = centers
        self._dtype = screen_dtype(centers.device)
        # representable in bfloat16, so that a pixel which is 0 loses nothing
        self._shift = centers.mean(0).bfloat16().to(centers.dtype)
        if labels is None:
            labels = torch.zeros(len(centers), dtype=torch.int64, device=centers.device)
        self._arrange(labels)
        rounded = round_moved(centers, self._shift, self._dtype)
        self._norm, self._loss = rounded.norms.max(), rounded.losses.max()
        self._operand = self._widen(rounded)
        self.bytes_per_point = len(self._operand) * self._dtype.itemsize
        self.rows_per_tile = rows_per_tile(len(self._operand), self._dtype, centers.device)

    def _arrange(self, labels: Int64[Tensor, " centers"]) -> None:
        """Forms groups of one class each, and lays out their members a group count apart.

        So the maxima of all groups are taken along memory in one sweep.
        """
        order = labels.argsort(stable=True)
        classes, counts = labels[order].unique_consecutive(return_counts=True)
        filled = [
            torch.cat([members, members.new_full((-len(members) % GROUP,), -1)])
            for members in order.split(counts.tolist())
        ]
        groups = torch.cat(filled).view(-1, GROUP)
        self._group_labels = classes.repeat_interleave(-(-counts // GROUP))
        self._column_centers = groups.T.flatten()  # -1: filling
        steps = torch.arange(GROUP, device=labels.device) * len(groups)
        self._group_columns = torch.arange(len(groups), device=labels.device)[:, None] + steps

    def _widen(self, rounded: Rounded) -> Float[Tensor, "columns wide"]:
        """Operand of the product: a row a column of the tile, [s, |s|^2 / 2 in parts]."""
        dim = rounded.values.shape[1]
        centers = self._column_centers.clamp(min=0)
        wide = rounded.values.new_empty(len(centers), dim + NUM_PARTS)
        wide[:, :dim] = rounded.values.index_select(0, centers)
        rest = rounded.norms[centers].square().div_(2)
        for part in range(dim, dim + NUM_PARTS):
            wide[:, part] = rest
            rest -= wide[:, part]
        never_near = torch.finfo(wide.dtype).max
        wide[:, dim].masked_fill_(self._column_centers < 0, never_near)
        return wide

    def scores(
        self,
        points: Float32[Tensor, "points dim"],
        out: Float[Tensor, "rows columns"] | None = None,
    ) -> Scores:
        """Scores of a block of points, in `out` if given.

        With x~, s~ rounded, |x.s - x~.s~| <= |x - x~| |s~| + |x| |s - s~| (Cauchy-Schwarz), and a
        float32 sum of n terms, in any order, is off by at most n u / (1 - n u) of the sum of their
        magnitudes, u = eps / 2 (Higham 2002, section 3.1). The slack, a factor of 2 and 16 terms,
        is for the norms themselves. A GPU's matrix units cut sums off where a processor rounds
        them, and align a few terms to the largest before they add (Fasi et al. 2021, "Numerical
        behavior of NVIDIA tensor cores"), so there each addition may cost twice as much.
        """
        rounded = round_moved(points, self._shift, self._dtype)
        left = torch.nn.functional.pad(rounded.values, (0, NUM_PARTS), value=-1)
        limits = torch.finfo(torch.float32)
        gamma = (left.shape[1] + 16) * limits.eps * (2 if left.is_cuda else 1)
        norm = self._norm + self._loss
        magnitudes = (rounded.norms + rounded.losses) * norm + 2 * norm.square()
        errors = rounded.losses * norm + rounded.norms * self._loss + gamma * magnitudes
        rows = None if out is None else out[: len(points)]
        values = torch.mm(left, self._operand.T, out=rows)
        return Scores(values, errors + left.shape[1] * limits.tiny)

    def buffer(self, rows: int) -> Float[Tensor, "rows columns"]:
        """Room for the scores of `rows` points."""
        return self._operand.new_empty(rows, len(self._operand))

    def near(
        self,
        points: Float32[Tensor, "points dim"],
        scores: Scores,
        reach: float,
        labels: Int64[Tensor, " points"] | None = None,
    ) -> Near:
        """The centres no farther than the nearest one by more than `reach`, in units of q.

        With labels also those of the point's class no farther than its nearest by more than that.
        """
        pairs, crowded = self._pairs(scores, reach, labels)
        counts = torch.bincount(pairs.rows, minlength=len(points))
        slots = torch.arange(len(pairs.rows), device=points.device)
        slots -= (counts.cumsum(0) - counts)[pairs.rows]
        shape = (len(points), max(1, int(counts.max())) if len(points) else 1)
        half_squares = points.new_full(shape, torch.inf, dtype=torch.float64)
        half_squares[pairs.rows, slots] = half_squares_of_pairs(
            points, pairs.rows, self._centers, pairs.centers
        )
        centers = pairs.centers.new_zeros(shape)
        centers[pairs.rows, slots] = pairs.centers
        is_own = torch.zeros(shape, dtype=torch.bool, device=points.device)
        is_own[pairs.rows, slots] = pairs.is_own
        return Near(half_squares, centers, is_own, crowded)

    def _pairs(
        self, scores: Scores, reach: float, labels: Int64[Tensor, " points"] | None
    ) -> tuple[_Pairs, Bool[Tensor, " points"]]:
        """The pairs to keep, and which points are crowded; a value not finite makes them so."""
        maxima = scores.values.unflatten(1, (GROUP, -1)).amax(1).float()
        limits = _lowest(maxima.amax(1), scores, reach)[:, None].expand_as(maxima)
        is_own = torch.zeros_like(maxima, dtype=torch.bool)
        if labels is not None:
            is_own = self._group_labels == labels[:, None]
            own = maxima.masked_fill(~is_own, -torch.inf).amax(1)
            limits = torch.where(is_own, _lowest(own, scores, reach)[:, None], limits)
        hopeful = maxima >= limits
        counts = hopeful.sum(1)
        crowded = (counts > MAX_NEAR) | (counts == 0)
        rows, groups = hopeful.logical_and_(~crowded[:, None]).nonzero(as_tuple=True)
        columns = self._group_columns[groups]
        kept = scores.values[rows[:, None], columns] >= limits[rows, groups][:, None]
        kept &= self._column_centers[columns] >= 0
        crowded |= torch.bincount(rows, kept.sum(1), len(maxima)) > MAX_NEAR
        kept &= ~crowded[rows, None]
        which, member = kept.nonzero(as_tuple=True)
        rows, groups = rows[which], groups[which]
        centers = self._column_centers[columns[which, member]]
        return _Pairs(rows, centers, is_own[rows, groups]), crowded


def _lowest(
    highest: Float32[Tensor, " points"], scores: Scores, reach: float
) -> Float32[Tensor, " points"]:
    """No stored score of a centre within `reach` of the best one is below this.

    Storing changes t by at most v |t|, v = eps / (2 - 2 eps), once for the highest and once here.
    """
    eps = torch.finfo(scores.values.dtype).eps
    share = eps / (2 - 2 * eps)
    best = highest.double()
    lowest = best - share * best.abs() - 2 * scores.errors - reach
    lowest -= share * lowest.abs()
    # a number filled in on the device, for one sent there would wait for its queue
    return torch.nextafter(lowest.float(), highest.new_full((), -torch.inf))
