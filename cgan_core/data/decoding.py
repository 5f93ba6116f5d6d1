"""One picture of a file as bytes, by Pillow."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps, UnidentifiedImageError

ENDINGS = frozenset(
    (".bmp", ".gif", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
)
_GREY = ("1", "L", "LA", "La")
_COLOURED = ("P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "LAB", "HSV")
_ORIENTATION, _TURNED = 0x0112, (5, 6, 7, 8)  # a tag of EXIF; its values that swap the sides


class BrokenPictureError(Exception):
    """A picture cannot be used; the message says why."""


@dataclass(frozen=True)
class Header:
    """What a file says of its picture before it is decoded.

    Attributes:
        width, height: In pixels, as it is to be looked at.
        grey: Whether it has no colours.
    """

    width: int
    height: int
    grey: bool


def read_header(path: Path) -> Header:
    """Reads size and kind of a picture.

    Raises:
        BrokenPictureError: If it is none, or has more than 8 bits a value.
    """
    try:
        with Image.open(path) as image:
            (width, height), mode = image.size, image.mode
            turned = image.getexif().get(_ORIENTATION) in _TURNED
    except Exception as error:
        raise BrokenPictureError(_reason(error)) from error
    if mode not in (*_GREY, *_COLOURED):
        raise BrokenPictureError(f"its values are of type {mode}, not of 8 bits")
    return Header(*((height, width) if turned else (width, height)), mode in _GREY)


def decode(
    path: Path, grey: bool, size: int | None
) -> UInt8[np.ndarray, "height width *channels"]:
    """Decodes a picture, upright, its transparent parts over black.

    Args:
        path: Of the file.
        grey: One value a pixel, else three.
        size: Cut the largest square out of its middle and shrink that to `size` x `size` pixels,
            each the mean of the area that it covers.

    Raises:
        BrokenPictureError: If the file is damaged.
    """
    try:
        with Image.open(path) as image:
            upright = _opaque(ImageOps.exif_transpose(image)).convert("L" if grey else "RGB")
        if size is not None:
            upright = upright.resize((size, size), Image.Resampling.BOX, box=_square(upright))
        pixels: UInt8[np.ndarray, "height width *channels"] = np.asarray(upright, np.uint8)
    # On a damaged file Pillow's parsers raise whatever comes: struct.error, zlib.error, ...
    except Exception as error:
        raise BrokenPictureError(_reason(error)) from error
    return pixels


def _opaque(image: Image.Image) -> Image.Image:
    if not image.has_transparency_data:
        return image
    shown = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", shown.size, (0, 0, 0, 255)), shown)


def _square(image: Image.Image) -> tuple[float, float, float, float]:
    edge = min(image.size)
    left, top = ((side - edge) / 2 for side in image.size)
    return left, top, left + edge, top + edge


def _reason(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "no format that Pillow knows"
    return str(error) or type(error).__name__
