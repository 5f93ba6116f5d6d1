"""How much fine detail images have."""

import torch
from jaxtyping import Float32, Float64
from torch import Tensor
from torch.nn import functional


def detail(
    images: Float32[Tensor, "images pixels"], image_shape: tuple[int, ...]
) -> Float64[Tensor, " images"]:
    """The share of each image's energy that a 3x3 binomial filter B takes away.

    |x - B x|^2 / |x - mean(x)|^2, edges repeated, each colour by itself; 0 for a flat image. B,
    [1 2 1]/4 along rows and columns, is the smallest Gaussian-like low-pass filter (Burt &
    Adelson 1983, "The Laplacian pyramid as a compact image code", whose first level x - B x is).
    """
    channels = image_shape[2] if len(image_shape) == 3 else 1
    height, width = image_shape[:2]
    x = images.view(len(images), height, width, channels).movedim(3, 1)
    padded = functional.pad(x, (1, 1, 1, 1), mode="replicate")
    rows = padded[:, :, :-2] + 2 * padded[:, :, 1:-1] + padded[:, :, 2:]
    smooth = (rows[..., :-2] + 2 * rows[..., 1:-1] + rows[..., 2:]) / 16
    fine = (x - smooth).flatten(1).square().sum(1).double()
    energy = (x - x.mean((2, 3), keepdim=True)).flatten(1).square().sum(1).double()
    return torch.where(energy > 0, fine / energy, 0.0)
