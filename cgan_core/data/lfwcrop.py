"""LFWcrop, grey: faces of Labeled Faces in the Wild with attributes to ask a generator for.

Pictures: Sanderson & Lovell (2009), cropped from Huang et al. (2007). Conditions: the 30 principal
components of 73 attribute scores (Kumar et al. 2009) that the code of Gauthier (2015,
"Conditional generative adversarial nets for convolutional face generation") has.
"""

import hashlib
from pathlib import Path

import numpy as np
from jaxtyping import Float32, UInt8

from cgan_core.data.archive import read_archive
from cgan_core.data.errors import DataError
from cgan_core.data.images import DataSplits, LabeledImages
from cgan_core.data.partition import grouped_partition
from cgan_core.data.places import cache_folder, data_folder
from cgan_core.data.standardization import Standardization
from cgan_core.streams import stream

FILE = "lfwcrop_grey.npz"
SHA256 = "ef4d8e0e69fd4a17a69d12e81d43ff62b9c7170f2fa357d43316134561c34bb3"
KEYS = ("images", "attributes", "male", "smile", "person")
TRAITS = ("male", "smile")
SHARES = (0.8, 0.1, 0.1)
SIZES = (64, 32)
SPLIT_SEED = 0  # one cut for all studies, as published data have


def load_lfwcrop(size: int = 64) -> DataSplits:
    """LFWcrop, cut 80/10/10 with nobody on two sides, from `CGAN_DATA_DIR` or the user cache.

    Pictures without attributes (90 of 13,233) are left out. Conditions are standardised on the
    training split; `male` and `smile` are traits, which no network sees.

    Args:
        size: 64, or 32 by the means of 2 x 2 pixels.

    Raises:
        DataError: If the file is not at hand or not the known one, or the size is another.
    """
    if size not in SIZES:
        raise DataError(f"size of lfwcrop must be 64 or 32, but got {size}; correct data.size")
    path, source = _found()
    with path.open("rb") as file:
        checksum = hashlib.file_digest(file, "sha256").hexdigest()
    if checksum != SHA256:
        raise DataError(
            f"{path}: content must have SHA-256 {SHA256[:8]}..., but has {checksum[:8]}...; "
            "replace the file"
        )
    return read_lfwcrop(path, size, source)


def read_lfwcrop(path: Path, size: int, source: str) -> DataSplits:
    """The splits in a file of that form, whatever its content."""
    archive = read_archive(path, KEYS)
    for key in KEYS:
        if key not in archive:
            raise DataError(f"{path}: key {key!r} must be there; replace the file")
    known = np.flatnonzero(np.isfinite(archive["attributes"]).all(1))
    images, persons = archive["images"][known], archive["person"][known].astype(np.int64)
    if size == 32:
        images = halved(images)
    generator = stream(SPLIT_SEED, "lfwcrop splits")
    codes = grouped_partition(persons, SHARES, generator)
    members = [generator.permutation(np.flatnonzero(codes == code)) for code in range(3)]
    raw: Float32[np.ndarray, "images columns"] = archive["attributes"][known]
    standard = Standardization.fit(raw[members[0]])
    traits = {name: archive[name][known].astype(np.int64) for name in TRAITS}
    whole = LabeledImages(images, standard.apply(raw), traits, persons)
    train, validation, test = (whole.chosen(rows) for rows in members)
    return DataSplits(
        train=train,
        validation=validation,
        test=test,
        name="lfwcrop",
        source=source,
        subset=False,
        num_classes=None,
        condition_names=tuple(f"component_{k}" for k in range(raw.shape[1])),
        standardization=standard,
    )


def halved(
    images: UInt8[np.ndarray, "images height width"],
) -> UInt8[np.ndarray, "images half_height half_width"]:
    """Pictures of half the height and width: the mean of 2 x 2 pixels, halves rounded up."""
    count, height, width = images.shape
    blocks = images.reshape(count, height // 2, 2, width // 2, 2)
    half: UInt8[np.ndarray, "images half_height half_width"]
    half = ((blocks.sum((2, 4), dtype=np.uint16) + 2) // 4).astype(np.uint8)
    return half


def _found() -> tuple[Path, str]:
    folder = data_folder()
    looked = [] if folder is None else [(folder / FILE, "CGAN_DATA_DIR")]
    looked.append((cache_folder() / FILE, "cache"))
    for path, source in looked:
        if path.is_file():
            return path, source
    places = " nor ".join(str(path.parent) for path, _ in looked)
    raise DataError(
        f"data.name: lfwcrop needs {FILE}, which is in {'neither ' if folder else 'not '}"
        f"{places}; put it into a folder and set CGAN_DATA_DIR to that, or take "
        "`name: lfw_people`, faces without attributes, which scikit-learn can download"
    )
