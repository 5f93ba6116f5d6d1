"""What a user's cut of a data set must be."""

from pathlib import Path

import numpy as np
from jaxtyping import Int64, Shaped

from cgan_core.data.errors import DataError
from cgan_core.data.images import Conditions

SPLIT_NAMES = ("train", "validation", "test")


def split_codes(path: Path, split: Shaped[np.ndarray, " images"]) -> Int64[np.ndarray, " images"]:
    """The codes 0 (train), 1 (validation), 2 (test) of a column of these or of their names.

    Raises:
        DataError: If it holds anything else.
    """
    words = split.astype(str)
    codes = np.full(len(words), -1, np.int64)
    for code, name in enumerate(SPLIT_NAMES):
        codes[(words == str(code)) | (words == name)] = code
    if (codes < 0).any():
        raise DataError(
            f"{path}: split must hold 0, 1, 2 or train, validation, test, "
            f"but got {str(words[codes < 0][0])!r}; correct it"
        )
    return codes


def check_split_sizes(path: Path, codes: Int64[np.ndarray, " images"]) -> None:
    """Checks that every split has images.

    Raises:
        DataError: If one has none.
    """
    sizes = np.bincount(codes, minlength=3).tolist()
    if 0 in sizes:
        listed = ", ".join(f"{n}={s}" for n, s in zip(SPLIT_NAMES, sizes, strict=True))
        raise DataError(
            f"{path}: every split must have images, but got {listed}; "
            "give more images or correct `split`"
        )


def check_training_conditions(
    path: Path,
    conditions: Conditions | None,
    num_classes: int | None,
    rows: Int64[np.ndarray, " train"],
) -> None:
    """Checks that the training images have every class, or condition vectors that vary.

    Raises:
        DataError: If not.
    """
    if conditions is None:
        return
    if num_classes is not None:
        present = np.unique(conditions[rows])
        if len(present) < num_classes:
            gaps = np.flatnonzero(present != np.arange(len(present)))
            first = int(gaps[0]) if len(gaps) else len(present)
            raise DataError(
                f"{path}: every class of 0..{num_classes - 1} must be in the training split, "
                f"but {num_classes - len(present)} are not, class {first} first; "
                "number the classes without gaps or correct `split`"
            )
    elif not np.ptp(conditions[rows], axis=0).any():
        raise DataError(
            f"{path}: conditions must vary over the training split, but all rows are equal; "
            "leave them out for an unconditional model"
        )


def check_whole_groups(
    path: Path,
    groups: Int64[np.ndarray, " images"],
    names: Shaped[np.ndarray, " groups"],
    codes: Int64[np.ndarray, " images"],
) -> None:
    """Checks that no group lies on two sides.

    Raises:
        DataError: Naming the first that does.
    """
    for code in range(3):
        inside, outside = np.unique(groups[codes == code]), np.unique(groups[codes > code])
        both = np.intersect1d(inside, outside)
        if len(both):
            raise DataError(
                f"{path}: all pictures of a group must be in one split, but those of group "
                f"{str(names[both[0]])!r} are in several; correct `split` or leave it out"
            )
