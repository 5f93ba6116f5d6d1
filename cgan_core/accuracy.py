"""Label accuracy: the share of samples whose nearest training image has their label."""

from collections.abc import Sequence

import torch
from jaxtyping import Float32, Int64, UInt8
from torch import Tensor

from cgan_core.nearest import nearest
from cgan_core.samples import Samples

# Training images that are numbers at a time: bytes take a quarter of the memory. On a GPU what
# counts is how often the host waits for it.
ROWS = {"cpu": 5_000, "cuda": 50_000}


def label_accuracies(
    population: Sequence[Samples],
    images: UInt8[Tensor, "images pixels"],
    labels: Int64[Tensor, " images"],
) -> list[float]:
    """Returns the label accuracy of each member's samples, from one search for all.

    On digits 1,000 samples cost the preparation of 50,000 images as much as it costs to find the
    nearest of them, and it is done once, whatever the number of members.

    Args:
        population: samples with labels, of each member; on the images' device.
        images: of the training split.
        labels: of those images.
    """
    points = torch.cat([samples.images for samples in population])
    rows = nearest_images(points, images, ROWS[images.device.type])
    found = labels[rows].split([len(samples.images) for samples in population])
    accuracies = []
    for samples, classes in zip(population, found, strict=True):
        assert samples.conditions is not None
        accuracies.append(float((classes == samples.conditions).double().mean()))
    return accuracies


def nearest_images(
    points: Float32[Tensor, "points pixels"], images: UInt8[Tensor, "images pixels"], block: int
) -> Int64[Tensor, " points"]:
    """Returns the row of the nearest image (Euclidean) of each point, `block` images at a time.

    Points are in [0, 1], images bytes.
    """
    best = torch.full((len(points),), torch.inf, dtype=torch.float64, device=points.device)
    rows = torch.zeros(len(points), dtype=torch.int64, device=points.device)
    for start in range(0, len(images), block):
        half_squares, found = nearest(points, images[start : start + block] / 255)
        closer = half_squares < best
        best = torch.where(closer, half_squares, best)
        rows = torch.where(closer, found + start, rows)
    return rows
