"""Parzen-window log-likelihood: how probable points are under Gaussians on the samples.

    log p(x) = log 1/N sum_j exp(-|x - s_j|^2 / (2 sigma^2)) - D/2 log(2 pi sigma^2)

in nats, for N centres s_j (the samples) in D dimensions and a bandwidth sigma, in the units of the
points.

References:
    Goodfellow et al., "Generative adversarial nets", 2014, section 5 and Table 1.
    Breuleux, Bengio and Vincent, "Quickly generating representative samples from an RBM-derived
    process", 2011, section 6.
    Theis, van den Oord and Bethge, "A note on the evaluation of generative models", 2016, on what
    this number does not say.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float, Float64, Int, Int64
from torch import Tensor

from cgan_core.bandwidth import check_bandwidth, select_bandwidth, select_bandwidths
from cgan_core.distances import half_square_tiles, log_mean_kernel, wide_accumulation
from cgan_core.screen import Screen
from cgan_core.vectors import check_labels, check_vectors, common_dtype

__all__ = [
    "LogLikelihoods",
    "conditional_log_likelihood",
    "log_likelihood",
    "log_likelihoods",
    "select_bandwidth",
    "select_bandwidths",
]

TAIL = 1e-5  # nats that the centres left out may cost together


class LogLikelihoods(NamedTuple):
    """Log-likelihoods of the same points, one value a point, in nats."""

    pooled: Float64[Tensor, " points"]
    conditional: Float64[Tensor, " points"] | None


@dataclass(frozen=True)
class _Classes:
    """Classes 0, 1, ... of points and centres, and the number of centres in each point's class."""

    of_points: Int64[Tensor, " points"]
    of_centers: Int64[Tensor, " centers"]
    center_counts: Int64[Tensor, " points"]

    @classmethod
    def of(
        cls, labels: Int[Tensor, " points"], center_labels: Int[Tensor, " centers"]
    ) -> "_Classes":
        """From any integers."""
        names, classes = torch.cat([labels, center_labels]).unique(return_inverse=True)
        of_points, of_centers = classes.split([len(labels), len(center_labels)])
        counts = torch.bincount(of_centers, minlength=len(names))
        return cls(of_points, of_centers, counts[of_points])


@torch.no_grad()
def log_likelihoods(
    points: Float[Tensor, "points dim"],
    centers: Float[Tensor, "centers dim"],
    bandwidth: float,
    labels: Int[Tensor, " points"] | None = None,
    center_labels: Int[Tensor, " centers"] | None = None,
) -> LogLikelihoods:
    """Log-likelihood of each point, also given its label, from one pass over the products.

    The result is within 1e-4 nats of float64, certainly: a screen in low precision leaves out only
    centres that cannot matter, the others are measured as differences in float64, and a point near
    which too many lie (a large bandwidth, samples collapsed onto a few images) is done in float64
    throughout, which takes several times longer. Memory beyond the inputs is a tile of scores and
    some copies of the centres, whatever the number of points.

    Args:
        points: x, where the density is asked for.
        centers: s_j, where the Gaussians sit.
        bandwidth: sigma, the standard deviation of each Gaussian, in the units of the points.
        labels: the class of each point; with it, `center_labels` is required.
        center_labels: the class of each centre.

    Returns:
        `pooled` over all centres, and `conditional` over the centres of the point's own class:
        -inf where that class has no centre, None without labels.

    Raises:
        ValueError: if a value is not finite, `bandwidth <= 0`, or shapes do not fit.
    """
    check_vectors(points, centers)
    check_bandwidth(bandwidth)
    classes = None
    if labels is not None and center_labels is not None:
        check_labels(points, labels, centers, center_labels)
        classes = _Classes.of(labels, center_labels)
    elif labels is not None or center_labels is not None:
        raise ValueError("`labels` and `center_labels` must be given together, but got one")
    values = torch.full((2, len(points)), -math.inf, dtype=torch.float64, device=points.device)
    left = torch.arange(len(points), device=points.device)
    if common_dtype(points, centers) == torch.float32:
        with wide_accumulation(points.device):
            left = _fill_near(values, points.float(), centers.float(), bandwidth**-2, classes)
    _fill_all(values, left, points, centers, bandwidth**-2, classes)
    values -= points.shape[1] / 2 * math.log(2 * math.pi * bandwidth**2)
    return LogLikelihoods(values[0], None if labels is None else values[1])


def log_likelihood(
    points: Float[Tensor, "points dim"], centers: Float[Tensor, "centers dim"], bandwidth: float
) -> Float64[Tensor, " points"]:
    """Log-likelihood of each point in nats; see `log_likelihoods`."""
    return log_likelihoods(points, centers, bandwidth).pooled


def conditional_log_likelihood(
    points: Float[Tensor, "points dim"],
    point_labels: Int[Tensor, " points"],
    centers: Float[Tensor, "centers dim"],
    center_labels: Int[Tensor, " centers"],
    bandwidth: float,
) -> Float64[Tensor, " points"]:
    """Log-likelihood of each point given its label in nats; see `log_likelihoods`."""
    both = log_likelihoods(points, centers, bandwidth, point_labels, center_labels)
    assert both.conditional is not None  # labels were given
    return both.conditional


def _fill_near(
    values: Float64[Tensor, "kinds points"],
    points: Float[Tensor, "points dim"],
    centers: Float[Tensor, "centers dim"],
    precision: float,
    classes: _Classes | None,
) -> Int64[Tensor, " left"]:
    """Fills in what the near centres decide; returns the points that are left to do.

    The centres that are left out, fewer than N, each have a term below TAIL / N of the largest,
    so a sum lacks less than TAIL of itself, and its logarithm less than about TAIL.
    """
    reach = math.log(len(centers) / TAIL) / precision
    screen = Screen(centers, None if classes is None else classes.of_centers)
    out = screen.buffer(min(screen.rows_per_tile, len(points)))
    crowded = []
    for rows in torch.arange(len(points), device=points.device).split(screen.rows_per_tile):
        own = None if classes is None else classes.of_points[rows]
        near = screen.near(points[rows], screen.scores(points[rows], out), reach, own)
        values[0, rows] = log_mean_kernel(near.half_squares, precision, len(centers))
        if classes is not None:
            counts = classes.center_counts[rows]
            values[1, rows] = log_mean_kernel(near.half_squares, precision, counts, near.is_own)
        crowded.append(rows[near.crowded])
    return torch.cat(crowded)


def _fill_all(
    values: Float64[Tensor, "kinds points"],
    left: Int64[Tensor, " left"],
    points: Float[Tensor, "points dim"],
    centers: Float[Tensor, "centers dim"],
    precision: float,
    classes: _Classes | None,
) -> None:
    """Fills in the points that are left, from all their distances in float64."""
    for block, tile in half_square_tiles(points[left], centers):
        rows = left[block]
        values[0, rows] = log_mean_kernel(tile, precision, len(centers))
        if classes is not None:
            is_own = classes.of_centers == classes.of_points[rows, None]
            counts = classes.center_counts[rows]
            values[1, rows] = log_mean_kernel(tile, precision, counts, is_own)
