"""Pictures as convolutions take them: maps in [-1, 1] of a side that halves to 4."""

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from cgan_core.config_fields import ConfigError

Maps = Float[Tensor, "rows maps high wide"]

SIDES = (8, 16, 32, 64, 128)
PADDED = {28: 32}
BACKGROUND = -1.0  # of what is padded: black


class PictureShape:
    """The shape of a picture and of the maps that it becomes.

    Args:
        image_shape: (h, w) or (h, w, c).
        family: of the networks, for the error.

    Attributes:
        side: of the maps.
        channels: of the picture.

    Raises:
        ConfigError: if there are no such maps.
    """

    def __init__(self, image_shape: tuple[int, ...], family: str) -> None:
        height, width = image_shape[:2]
        fits = height == width and (height in SIDES or height in PADDED)
        if not fits:
            sides = ", ".join(str(side) for side in sorted({*SIDES, *PADDED}))
            raise ConfigError(
                f"`family={family}` needs square pictures with a side of {sides} pixels, but got "
                f"{height}x{width}; resize them, or take family=mlp, which fits any size",
                "family",
            )
        self.channels = image_shape[2] if len(image_shape) == 3 else 1
        self.side = PADDED.get(height, height)
        self._own = height
        self._margin = (self.side - height) // 2

    def to_maps(self, images: Float[Tensor, "rows pixels"]) -> Maps:
        """Returns pictures in [0, 1] as maps in [-1, 1], padded with black."""
        maps = images.unflatten(1, (self._own, self._own, self.channels)).movedim(3, 1) * 2 - 1
        return functional.pad(maps, [self._margin] * 4, value=BACKGROUND)

    def to_images(self, maps: Maps) -> Float[Tensor, "rows pixels"]:
        """Returns maps in [-1, 1] as pictures in [0, 1], cropped."""
        own = slice(self._margin, self._margin + self._own)
        return ((maps[:, :, own, own] + 1) / 2).movedim(1, 3).flatten(1)
