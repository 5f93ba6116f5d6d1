"""Pictures from a generator: images as bytes, and grids of them as PNG."""

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from cgan_core.config import GANConfig
from cgan_core.model import Model, ModelError
from cgan_core.networks import ConditionKind, Generator
from cgan_core.streams import draw_noise, stream

GRID_COLUMNS = 10


def generate(
    model: Model | Path | str, conditions: Tensor, seed: int = 0
) -> UInt8[np.ndarray, "n ..."]:
    """Generates one image a condition.

    Args:
        model: a trained model or the folder that holds one.
        conditions: labels (n,) or vectors (n, c); for a model without conditions only n counts.
        seed: of the noise.

    Returns:
        Images, bytes of shape (n, h, w[, c]).

    Raises:
        ModelError: if the folder holds no model or a condition does not fit it.
    """
    model = model if isinstance(model, Model) else Model.load(Path(model))
    conditions = _checked_conditions(model, conditions)
    rng = stream(seed, "generate")
    noise = draw_noise(rng, model.config.noise, len(conditions), model.config.noise_dim)
    return to_bytes(model.images(noise, conditions), model.image_shape)


def _checked_conditions(model: Model, conditions: Tensor) -> Tensor:
    kind = model.condition
    if kind is None:
        return conditions
    if not kind.labels:
        if conditions.ndim != 2 or conditions.shape[1] != kind.width:
            raise ModelError(
                f"conditions must be vectors of length {kind.width}, but got shape "
                f"{tuple(conditions.shape)}"
            )
        return conditions.float()
    if conditions.dtype.is_floating_point or conditions.ndim != 1:
        raise ModelError("conditions must be integer labels of shape (n,)")
    if len(conditions) and not (conditions.min() >= 0 and conditions.max() < kind.width):
        raise ModelError(
            f"`0 <= condition < {kind.width}` must hold, but got "
            f"{int(conditions.min())} … {int(conditions.max())}"
        )
    return conditions.long()


def to_bytes(images: Tensor, image_shape: tuple[int, ...]) -> UInt8[np.ndarray, "n ..."]:
    """Returns images in [0, 1] as bytes of their own shape."""
    scaled = images.mul(255).round().clamp(0, 255).to(torch.uint8)
    return scaled.reshape(-1, *image_shape).numpy()


def class_grid(
    generator: Generator,
    config: GANConfig,
    condition: ConditionKind | None,
    vectors: Float[Tensor, "rows width"] | None = None,
) -> Float[Tensor, "images pixels"]:
    """Generates a row of ten images a condition, as in Mirza & Osindero (2014), Figure 2.

    The noise is the same in every row, so that a column shows one z under every condition.
    Without conditions it is a square of ten by ten.

    Args:
        generator: the network.
        config: the hyperparameters it was made with.
        condition: kind and width of its condition, or None.
        vectors: where conditions are vectors, one for each row; standard normal where not given.
    """
    rng = stream(0, "grid")
    if condition is None:
        z = draw_noise(rng, config.noise, GRID_COLUMNS**2, config.noise_dim)
        y: Tensor | None = None
    else:
        z = draw_noise(rng, config.noise, GRID_COLUMNS, config.noise_dim)
        if condition.labels:
            rows = torch.arange(condition.width)
        elif vectors is not None:
            rows = vectors
        else:
            rows = draw_noise(rng, "gaussian", GRID_COLUMNS, condition.width)
        z, y = z.repeat(len(rows), 1), rows.repeat_interleave(GRID_COLUMNS, 0)
    with torch.inference_mode():
        images: Tensor = generator(z, y)
    return images


def save_grid(images: UInt8[np.ndarray, "n ..."], path: Path, columns: int = GRID_COLUMNS) -> None:
    """Writes images as one PNG, row by row, each pixel doubled where images are small."""
    height, width = images.shape[1:3]
    rows = -(-len(images) // columns)
    gap = 2
    canvas = np.full(
        (rows * (height + gap) + gap, columns * (width + gap) + gap, *images.shape[3:]),
        255,
        np.uint8,
    )
    for position, image in enumerate(images):
        row, column = divmod(position, columns)
        top, left = gap + row * (height + gap), gap + column * (width + gap)
        canvas[top : top + height, left : left + width] = image
    if canvas.ndim == 3 and canvas.shape[2] not in (3, 4):
        canvas = canvas[..., 0]  # no colours: the first channel, in grey
    picture = Image.fromarray(canvas)
    scale = 2 if max(height, width) <= 64 else 1
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.resize((picture.width * scale, picture.height * scale), Image.Resampling.NEAREST).save(
        path, format="PNG"
    )
