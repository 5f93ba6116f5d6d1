"""Labeled Faces in the Wild (Huang et al. 2007) as scikit-learn fetches them.

They have identities but no attributes, and are not LFWcrop, though the same area is cut out of
the pictures.
"""

from pathlib import Path

import numpy as np
from jaxtyping import Int64, UInt8
from PIL import Image

from cgan_core.data.archive import read_archive
from cgan_core.data.cache_lock import cache_lock
from cgan_core.data.errors import DataError
from cgan_core.data.images import DataSplits, LabeledImages
from cgan_core.data.lfwcrop import SHARES, SPLIT_SEED
from cgan_core.data.partition import grouped_partition
from cgan_core.data.places import cache_folder
from cgan_core.replacing import replacing
from cgan_core.streams import stream

AREA = (slice(92, 176), slice(83, 167))  # rows and columns of 250 x 250 that LFWcrop has too
EDGE = 84
_ALTERNATIVE = "download it once by scikit-learn where there is a network, or give data by a path"


def load_lfw_people(size: int = 64, *, allow_download: bool = True) -> DataSplits:
    """The faces, grey, cut 80/10/10 with nobody on two sides, without conditions.

    Taken from the user cache, or fetched into it (about 230 MB).

    Args:
        size: Of a picture, 8 to 84: the area of 84 x 84 pixels is shrunk to it by means.
        allow_download: Whether the network may be asked.

    Raises:
        DataError: If they cannot be had.
    """
    if not 8 <= size <= EDGE:
        raise DataError(f"`8 <= size <= {EDGE}` must hold for lfw_people, but got {size}")
    path = cache_folder() / "lfw_people.npz"
    with cache_lock(path):
        if not path.is_file():
            images, persons = _fetched(cache_folder() / "scikit-learn", allow_download)
            with replacing(path) as partial, partial.open("wb") as file:
                np.savez_compressed(file, images=images, person=persons)
    archive = read_archive(path, ("images", "person"))
    small = np.stack([_shrunk(image, size) for image in archive["images"]])
    return _splits(small, archive["person"].astype(np.int64))


def _fetched(
    folder: Path, allow_download: bool
) -> tuple[UInt8[np.ndarray, "images height width"], Int64[np.ndarray, " images"]]:
    try:
        from sklearn.datasets import fetch_lfw_people  # an optional dependency, and slow to import
    except ImportError as error:
        raise DataError(
            "data.name: lfw_people needs scikit-learn, which is not installed; "
            "install it with pip install scikit-learn"
        ) from error
    try:
        faces = fetch_lfw_people(
            data_home=str(folder),
            funneled=False,
            resize=None,
            slice_=AREA,
            download_if_missing=allow_download,
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise DataError(
            f"data.name: lfw_people is not in {folder} and could not be fetched "
            f"({type(error).__name__}: {error}); {_ALTERNATIVE}"
        ) from error
    return np.rint(faces.images * 255).astype(np.uint8), faces.target.astype(np.int64)


def _shrunk(image: UInt8[np.ndarray, "height width"], size: int) -> np.ndarray:
    whole = Image.fromarray(image)
    return np.asarray(whole.resize((size, size), Image.Resampling.BOX))


def _splits(
    images: UInt8[np.ndarray, "images height width"], persons: Int64[np.ndarray, " images"]
) -> DataSplits:
    generator = stream(SPLIT_SEED, "lfw_people splits")
    codes = grouped_partition(persons, SHARES, generator)
    whole = LabeledImages(images, None, groups=persons)
    train, validation, test = (
        whole.chosen(generator.permutation(np.flatnonzero(codes == code))) for code in range(3)
    )
    return DataSplits(
        train=train,
        validation=validation,
        test=test,
        name="lfw_people",
        source="scikit-learn",
        subset=False,
        num_classes=None,
        notice=(
            "These are faces of Labeled Faces in the Wild as scikit-learn has them: neither "
            "LFWcrop nor attributes, so never compare their scores with those of lfwcrop."
        ),
    )
