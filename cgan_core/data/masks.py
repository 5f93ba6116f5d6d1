"""The part of a picture that is hidden, so that the rest of it is a condition."""

from dataclasses import dataclass
from typing import get_args

import numpy as np
from jaxtyping import Float32, UInt8

from cgan_core.data.errors import DataError
from cgan_core.data_choices import MaskBox, MaskName


@dataclass(frozen=True)
class Mask:
    """A rectangle of hidden pixels.

    Attributes:
        top, left: Of its first row and column.
        height, width: Its rows and columns, at least 1.
    """

    top: int
    left: int
    height: int
    width: int

    @classmethod
    def of(cls, wanted: MaskName | MaskBox, image_shape: tuple[int, ...]) -> "Mask":
        """Places a mask on pictures of a shape (h, w) or (h, w, c).

        A half of an odd number of rows or columns is rounded down; `centre` hides the middle
        half of both.

        Raises:
            DataError: If it is unknown, does not lie within the picture, or hides all of it.
        """
        rows, columns = image_shape[:2]
        if isinstance(wanted, str):
            wanted = _named(wanted, rows, columns)
        top, left, height, width = wanted
        within = 0 <= top < top + height <= rows and 0 <= left < left + width <= columns
        if not within or (height == rows and width == columns):
            raise DataError(
                f"mask must hide a part of a picture of {rows} x {columns} pixels, but got "
                f"top={top}, left={left}, height={height}, width={width}; correct data.mask"
            )
        return cls(top, left, height, width)

    @property
    def hidden_rows(self) -> slice:
        """Its rows of a picture."""
        return slice(self.top, self.top + self.height)

    @property
    def hidden_columns(self) -> slice:
        """Its columns of a picture."""
        return slice(self.left, self.left + self.width)

    def visible(
        self, images: UInt8[np.ndarray, "images height width *channels"]
    ) -> Float32[np.ndarray, "images dim"]:
        """The pictures as flat vectors in [0, 1], in which every hidden value is 0."""
        shown = images.copy()
        shown[:, self.hidden_rows, self.hidden_columns] = 0
        vectors: Float32[np.ndarray, "images dim"]
        vectors = shown.reshape(len(shown), -1) / np.float32(255)
        return vectors


def _named(name: str, rows: int, columns: int) -> MaskBox:
    boxes: dict[str, MaskBox] = {
        "left_half": (0, 0, rows, columns // 2),
        "right_half": (0, columns - columns // 2, rows, columns // 2),
        "top_half": (0, 0, rows // 2, columns),
        "bottom_half": (rows - rows // 2, 0, rows // 2, columns),
        "centre": (rows // 4, columns // 4, rows // 2, columns // 2),
    }
    if name not in boxes:
        known = ", ".join(get_args(MaskName))
        raise DataError(
            f"mask must be {known} or a rectangle (top, left, height, width), but got {name!r}; "
            "correct data.mask"
        )
    return boxes[name]
