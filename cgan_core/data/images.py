"""Images with their conditions, and the three splits of a data set.

Axes: `images` counts pictures, `height width *channels` are a picture's axes, `dim` is their
product, `columns` the length of one continuous condition.
"""

import functools
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float32, Int64, UInt8
from torch import Tensor

from cgan_core.data.errors import DataError
from cgan_core.data.masks import Mask
from cgan_core.data.standardization import Standardization

Conditions = Int64[np.ndarray, " images"] | Float32[np.ndarray, "images columns"]


@dataclass(frozen=True, eq=False)
class LabeledImages:
    """Images in their stored order, each with its condition.

    Attributes:
        images: Grey (n, h, w) or coloured (n, h, w, c) pictures, 0 to 255.
        conditions: Class labels (n,), continuous vectors (n, c), or None where unconditional.
        traits: What else is known of each image, by name (-1 where it is not), such as `smile`:
            to judge samples by, never to learn from.
        groups: Whose image it is: a split or a fold never divides one's images. None where each
            stands alone.
    """

    images: UInt8[np.ndarray, "images height width *channels"]
    conditions: Conditions | None
    traits: Mapping[str, Int64[np.ndarray, " images"]] = field(default_factory=dict)
    groups: Int64[np.ndarray, " images"] | None = None

    def __post_init__(self) -> None:
        if self.images.dtype != np.uint8 or self.images.ndim not in (3, 4):
            raise DataError(
                "images must be uint8 of shape (n, h, w) or (n, h, w, c), "
                f"but got {self.images.dtype} {self.images.shape}"
            )
        if self.conditions is not None and len(self.conditions) != len(self.images):
            raise DataError(
                "images and conditions must have one length, "
                f"but got {len(self.images)} and {len(self.conditions)}"
            )

    def __len__(self) -> int:
        return len(self.images)

    def chosen(self, rows: np.ndarray) -> "LabeledImages":
        """The images of some rows (by numbers or truth values), with all that is theirs."""
        return LabeledImages(
            self.images[rows],
            None if self.conditions is None else self.conditions[rows],
            {name: values[rows] for name, values in self.traits.items()},
            None if self.groups is None else self.groups[rows],
        )

    @property
    def pixels(self) -> Float32[Tensor, "images dim"]:
        """A fresh copy of the images, flattened, in [0, 1]."""
        flat = torch.from_numpy(self.images.reshape(len(self), -1) / np.float32(255))
        assert len(flat) == 0 or (flat.min() >= 0 and flat.max() <= 1)
        return flat

    @property
    def condition_tensor(
        self,
    ) -> Int64[Tensor, " images"] | Float32[Tensor, "images columns"] | None:
        """A fresh copy of the conditions, or None where unconditional."""
        return None if self.conditions is None else torch.from_numpy(self.conditions.copy())


@dataclass(frozen=True, eq=False)
class DataSplits:
    """The training, validation and test images of one data set.

    Attributes:
        train: What the networks learn from.
        validation: What configurations are compared on; its first points set the bandwidth.
        test: What the winner is scored on, once.
        name: The data set's name in records.
        source: Where it came from: `CGAN_DATA_DIR`, `cache`, `download`, `bundled` or a file name.
        subset: Whether this is only a part of the data set of that name, so that its numbers
            must never stand beside those of the whole.
        num_classes: The number of classes, or None where conditions are no labels.
        notice: One sentence that every user must see, or None.
        class_names: What the labels 0, 1, ... stand for, or None where they are numbers only.
        condition_names: Of the columns of condition vectors, or None.
        standardization: How raw condition vectors became those of the splits, or None where they
            are as they were given.
        mask: What conditions hide of the pictures, where they are the rest of them; or None.
        digest: SHA-256 over type, shape and bytes of images and conditions of every split.
    """

    train: LabeledImages
    validation: LabeledImages
    test: LabeledImages
    name: str
    source: str
    subset: bool
    num_classes: int | None
    notice: str | None = None
    class_names: tuple[str, ...] | None = None
    condition_names: tuple[str, ...] | None = None
    standardization: Standardization | None = None
    mask: Mask | None = None
    digest: str = field(init=False)

    def __post_init__(self) -> None:
        splits = (self.train, self.validation, self.test)
        object.__setattr__(self, "digest", content_digest(*splits))

    @functools.cached_property
    def images_digest(self) -> str:
        """The digest of the pictures alone: the same whatever their conditions are."""
        splits = (self.train, self.validation, self.test)
        return content_digest(*(LabeledImages(split.images, None) for split in splits))

    @property
    def image_shape(self) -> tuple[int, ...]:
        """The shape (h, w) or (h, w, c) of one image."""
        return self.train.images.shape[1:]


def content_digest(*splits: LabeledImages) -> str:
    """The SHA-256 (hex) of type, shape and bytes of each split's arrays, in order."""
    sha = hashlib.sha256()
    for split in splits:
        for array in (split.images, split.conditions):
            if array is None:
                sha.update(b"none;")
                continue
            # Little-endian on every machine, so that a digest is the same everywhere.
            fixed = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
            sha.update(f"{fixed.dtype.str}{fixed.shape};".encode())
            sha.update(fixed.data)
    return sha.hexdigest()
