"""A user's own data set in one npz file."""

from pathlib import Path

import numpy as np
from jaxtyping import Float32, Int64, Shaped, UInt8

from cgan_core.data.archive import read_archive
from cgan_core.data.errors import DataError
from cgan_core.data.images import Conditions, DataSplits, LabeledImages
from cgan_core.data.partition import stratified_partition
from cgan_core.data.split_checks import (
    check_split_sizes,
    check_training_conditions,
    split_codes,
)

KEYS = ("images", "labels", "conditions", "split", "num_classes")

Archive = dict[str, Shaped[np.ndarray, "..."]]


def load_own(path: Path, *, seed: int = 0) -> DataSplits:
    """A user's images with labels, continuous conditions or neither.

    Args:
        path: An npz file with `images` u8 (n, h, w) or (n, h, w, c); `labels` int (n,) or
            `conditions` float (n, c) or neither; optionally `num_classes` and `split` (n,) of
            0/1/2 or train/validation/test. Without `split` the file is cut 70/20/10, by class.
        seed: Decides that cut, and the order of the images in each split.

    Raises:
        DataError: If anything in the file is not as it must be.
    """
    archive = read_archive(path, KEYS)
    if "images" not in archive:
        raise DataError(
            f"{path}: key 'images' must be there, but the keys are {list(archive)}; add it"
        )
    images = _checked_images(path, archive["images"])
    generator = np.random.default_rng(seed)
    conditions, num_classes = _conditions(path, archive, len(images))
    codes = _codes(path, archive, conditions, len(images), generator)
    check_split_sizes(path, codes)
    members = [generator.permutation(np.flatnonzero(codes == code)) for code in range(3)]
    check_training_conditions(path, conditions, num_classes, members[0])
    train, validation, test = (
        LabeledImages(images[rows], None if conditions is None else conditions[rows])
        for rows in members
    )
    return DataSplits(
        train=train,
        validation=validation,
        test=test,
        name=path.stem,
        source=path.name,
        subset=False,
        num_classes=num_classes,
    )


def _checked_images(path: Path, images: Shaped[np.ndarray, "..."]) -> UInt8[np.ndarray, "..."]:
    got = f"{images.dtype} {images.shape}"
    if images.dtype != np.uint8:
        raise DataError(
            f"{path}: images must be uint8 (0 to 255), but got {got}; "
            "scale them and convert with astype('uint8')"
        )
    if images.ndim not in (3, 4) or 0 in images.shape:
        raise DataError(
            f"{path}: images must have shape (n, h, w) or (n, h, w, c) without a zero, "
            f"but got {got}; reshape them"
        )
    return images


def _conditions(path: Path, archive: Archive, count: int) -> tuple[Conditions | None, int | None]:
    if "labels" in archive and "conditions" in archive:
        raise DataError(f"{path}: labels and conditions must not both be there; leave one out")
    for key in ("labels", "conditions", "split"):
        if key in archive and (archive[key].ndim == 0 or len(archive[key]) != count):
            raise DataError(
                f"{path}: {key} must have one row for each of the {count} images, "
                f"but got shape {archive[key].shape}; give both the same length"
            )
    if "labels" in archive:
        labels = _checked_labels(path, archive["labels"])
        return labels, _checked_num_classes(path, archive, labels)
    if "num_classes" in archive:
        raise DataError(f"{path}: num_classes needs labels, but there are none; leave it out")
    if "conditions" in archive:
        return _checked_vectors(path, archive["conditions"]), None
    return None, None


def _checked_labels(path: Path, labels: Shaped[np.ndarray, "..."]) -> Int64[np.ndarray, " images"]:
    if labels.dtype.kind not in "iu" or labels.ndim != 1:
        raise DataError(
            f"{path}: labels must be integers of shape (n,), but got {labels.dtype} "
            f"{labels.shape}; convert them with astype('int64'), or name them conditions"
        )
    return labels.astype(np.int64)


def _checked_num_classes(
    path: Path, archive: Archive, labels: Int64[np.ndarray, " images"]
) -> int:
    given = archive.get("num_classes", np.asarray(int(labels.max()) + 1))
    if given.ndim != 0 or given.dtype.kind not in "iu":
        raise DataError(
            f"{path}: num_classes must be one integer, but got {given.dtype} {given.shape}; "
            "save it as int"
        )
    outside = labels[(labels < 0) | (labels >= given)]
    if len(outside):
        where = "0..num_classes-1" if "num_classes" not in archive else f"0..{int(given) - 1}"
        raise DataError(
            f"{path}: labels must lie in {where}, but got {outside[0]}; "
            "number the classes from 0 or correct num_classes"
        )
    return int(given)


def _checked_vectors(
    path: Path, vectors: Shaped[np.ndarray, "..."]
) -> Float32[np.ndarray, "images columns"]:
    if vectors.dtype.kind != "f" or vectors.ndim != 2 or vectors.shape[1] == 0:
        raise DataError(
            f"{path}: conditions must be floats of shape (n, c), but got {vectors.dtype} "
            f"{vectors.shape}; convert with astype('float32') and reshape"
        )
    with np.errstate(over="ignore"):
        converted = vectors.astype(np.float32)
    finite = np.isfinite(converted)
    if not finite.all():
        row, column = np.argwhere(~finite)[0]
        raise DataError(
            f"{path}: conditions must be finite in float32, but row {row}, column {column} is "
            f"{vectors[row, column]}; remove or fill such rows ({(~finite).any(1).sum()} of them)"
        )
    return converted


def _codes(
    path: Path,
    archive: Archive,
    conditions: Conditions | None,
    count: int,
    generator: np.random.Generator,
) -> Int64[np.ndarray, " images"]:
    if "split" not in archive:
        if conditions is None or conditions.ndim != 1:
            conditions = np.zeros(count, np.int64)
        return stratified_partition(conditions, generator)
    split = archive["split"]
    if split.dtype.kind not in "iuU" or split.ndim != 1:
        raise DataError(
            f"{path}: split must be integers or strings of shape (n,), "
            f"but got {split.dtype} {split.shape}; convert it with astype"
        )
    return split_codes(path, split)
