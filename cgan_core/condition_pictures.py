"""Pictures that show what a condition vector does, and whether a generator remembers."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Float32
from torch import Tensor

from cgan_core.model import Model
from cgan_core.nearest import nearest
from cgan_core.streams import draw_noise, stream
from cgan_core.traits import LinearTrait


def walk(
    model: Model,
    conditions: Float32[np.ndarray, "rows columns"],
    trait: LinearTrait,
    log_odds: Sequence[float],
) -> Float[Tensor, "images pixels"]:
    """Generates a row of images a condition, along one trait with z held.

    Along a row y moves towards the trait and no other way, from one value of its log-odds to the
    next.
    """
    moved = np.stack([trait.towards(conditions, value) for value in log_odds], axis=1)
    z = noise_of(model, len(conditions)).repeat_interleave(len(log_odds), 0)
    return model.images(z, torch.from_numpy(moved.reshape(len(z), -1)))


def noise_of(model: Model, rows: int, seed: int = 0) -> Float[Tensor, "rows noise_dim"]:
    """Draws noise as the model takes it."""
    rng = stream(seed, "condition pictures")
    return draw_noise(rng, model.config.noise, rows, model.config.noise_dim)


def beside_nearest(
    images: Float32[Tensor, "rows pixels"], training: Float32[Tensor, "images pixels"]
) -> Float32[Tensor, "pairs pixels"]:
    """Returns each image followed by the training image nearest to it."""
    _, rows = nearest(images, training)
    return torch.stack([images, training[rows]], 1).flatten(0, 1)


def completions(
    model: Model,
    truth: Float32[Tensor, "rows pixels"],
    visible: Float32[Tensor, "rows pixels"],
    conditions: Float32[Tensor, "rows pixels"],
    count: int,
) -> Float32[Tensor, "images pixels"]:
    """Returns rows of: an image, what is visible of it, and generated images for several z.

    `conditions` is what is visible, as the model takes it. The generated images are what it makes
    of the whole picture; nothing is pasted in.
    """
    z = noise_of(model, count).repeat(len(truth), 1)
    filled = model.images(z, conditions.repeat_interleave(count, 0)).unflatten(0, (-1, count))
    return torch.cat([truth.unsqueeze(1), visible.unsqueeze(1), filled], 1).flatten(0, 1)


def sensitivities(
    model: Model, conditions: Float32[Tensor, "rows columns"], seed: int = 0
) -> tuple[float, float]:
    """Returns the mean change of a pixel when y changes with z held, then z with y held.

    Each row meets the y, or the z, of the next.
    """
    z = noise_of(model, len(conditions), seed)
    images = model.images(z, conditions)
    by_y = model.images(z, conditions.roll(1, 0)) - images
    by_z = model.images(z.roll(1, 0), conditions) - images
    return float(by_y.abs().mean()), float(by_z.abs().mean())
