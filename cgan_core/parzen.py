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
from jaxtyping import Float, Float64, Int
from torch import Tensor

from cgan_core.bandwidth import check_bandwidth, select_bandwidth, select_bandwidths
from cgan_core.distances import (
    MIN_EXPONENT,
    full_precision,
    product_tile,
    relative,
    rows_per_tile,
)
from cgan_core.vectors import Vectors, center, check_labels, check_vectors, common_dtype

__all__ = [
    "LogLikelihoods",
    "conditional_log_likelihood",
    "log_likelihood",
    "log_likelihoods",
    "select_bandwidth",
    "select_bandwidths",
]

TOLERANCE = 2e-4  # nats; a point whose float32 error may be larger is done again in float64
NEAR_REACH = 10.0  # nats below the largest term down to which the near terms are made exact


class LogLikelihoods(NamedTuple):
    """Log-likelihoods of the same points, one value a point, in nats."""

    pooled: Float64[Tensor, " points"]
    conditional: Float64[Tensor, " points"] | None


@dataclass(frozen=True)
class _Classes:
    """Labels of the points, and where each class lies among the centres sorted by label."""

    labels: Int[Tensor, " points"]
    spans: dict[int, slice]


@torch.no_grad()
def log_likelihoods(
    points: Float[Tensor, "points dim"],
    centers: Float[Tensor, "centers dim"],
    bandwidth: float,
    labels: Int[Tensor, " points"] | None = None,
    center_labels: Int[Tensor, " centers"] | None = None,
) -> LogLikelihoods:
    """Log-likelihood of each point, also given its label, from one pass over the products.

    The result is within 1e-3 nats of float64: products in float32, the nearest centres measured
    again in float64, and a point whose error bound stays above `TOLERANCE` done in float64
    throughout (samples collapsed onto a few images are slower for that). Memory beyond the inputs
    is a tile of products and a copy of the centres, whatever the number of points.

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
    classes = _Classes(points.new_zeros(len(points), dtype=torch.int64), {})
    if labels is not None and center_labels is not None:
        check_labels(points, labels, centers, center_labels)
        by_label = center_labels.argsort(stable=True)
        centers = centers[by_label]
        classes = _Classes(labels, _spans(center_labels[by_label]))
    elif labels is not None or center_labels is not None:
        raise ValueError("`labels` and `center_labels` must be given together, but got one")
    order = classes.labels.argsort(stable=True)  # so that a block of points holds few classes
    values = torch.full((2, len(points)), -math.inf, dtype=torch.float64, device=points.device)
    dtype = common_dtype(points, centers)
    with full_precision(points.device):
        doubtful = _fill(values, order, points, centers, bandwidth, classes, dtype)
        if dtype != torch.float64 and len(doubtful):
            _fill(values, doubtful, points, centers, bandwidth, classes, torch.float64)
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


def _spans(sorted_labels: Int[Tensor, " vectors"]) -> dict[int, slice]:
    """Where each label's run lies."""
    labels, counts = sorted_labels.unique_consecutive(return_counts=True)
    ends = counts.cumsum(0)
    runs = zip(labels.tolist(), (ends - counts).tolist(), ends.tolist(), strict=True)
    return {label: slice(start, end) for label, start, end in runs}


def _fill(
    values: Float64[Tensor, "kinds points"],
    rows: Int[Tensor, " rows"],
    points: Float[Tensor, "points dim"],
    centers: Float[Tensor, "centers dim"],
    bandwidth: float,
    classes: _Classes,
    dtype: torch.dtype,
) -> Int[Tensor, " doubtful"]:
    """Fills in the log mean kernels of some points; returns those not known to `TOLERANCE`."""
    mean = centers.mean(0, dtype=dtype)
    prepared = center(centers, mean)
    size = rows_per_tile(len(centers), dtype, points.device)
    out = mean.new_empty(min(size, len(rows)), len(centers))
    doubtful = []
    for block in rows.split(size):
        vectors = center(points[block], mean)
        tile = product_tile(vectors, prepared, out)
        errors = torch.zeros_like(vectors.half_norms)
        for label, run in _spans(classes.labels[block]).items():
            own = classes.spans.get(label)
            if own is not None:
                values[1, block[run]], errors[run] = _log_mean_kernel(
                    tile[run, own].clone(), vectors[run], prepared[own], bandwidth
                )
        values[0, block], pooled_errors = _log_mean_kernel(tile, vectors, prepared, bandwidth)
        known = torch.maximum(errors, pooled_errors) <= TOLERANCE
        doubtful.append(block[~known])  # also where the bound is NaN
    return torch.cat(doubtful)


def _log_mean_kernel(
    tile: Float[Tensor, "points centers"], points: Vectors, centers: Vectors, bandwidth: float
) -> tuple[Float64[Tensor, " points"], Float64[Tensor, " points"]]:
    """Log of mean_j exp(-q_j / sigma^2) in nats, and a bound on its error; overwrites the tile."""
    precision = bandwidth**-2
    half_squares = relative(tile, points, centers, NEAR_REACH / precision)
    terms = half_squares.rest.mul_(-precision).clamp_min_(MIN_EXPONENT).exp_()
    total = terms.sum(1).double()
    exact = terms.gather(1, half_squares.near).mul_(half_squares.is_exact).sum(1).double()
    inexact_share = (1 - exact / total).clamp_(min=0)
    error = torch.expm1(half_squares.error * precision) * inexact_share
    return total.log() - half_squares.base * precision - math.log(len(centers)), error
