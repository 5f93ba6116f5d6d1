"""The 10,000 real digits that come with the package, for machines that cannot have full MNIST."""

from pathlib import Path

import numpy as np

from cgan_core.data.archive import read_archive
from cgan_core.data.errors import REMEDY, DataError
from cgan_core.data.images import DataSplits, LabeledImages

DIGITS = Path(__file__).parent / "bundled" / "digits.npz"
DIGEST = "e2c46cae20bf13ee5cfa1c4b8ff5f017c4c022d025bf7800634d82700e0c6742"


def load_digits(reason: str) -> DataSplits:
    """The bundled digits: 7,000 train, 2,000 validation, 1,000 test, each split in random order.

    Args:
        reason: Why they stand in for full MNIST, for the notice.

    Raises:
        DataError: If the bundled file is damaged.
    """
    splits = read_digits(DIGITS, reason)
    if splits.digest != DIGEST:
        raise DataError(
            f"{DIGITS}: content must have digest {DIGEST[:8]}..., but has {splits.digest[:8]}...; "
            "install the package again"
        )
    return splits


def read_digits(path: Path, reason: str) -> DataSplits:
    """The splits in a file that `scripts/bundle_digits.py` wrote, in stored order, unchecked."""
    archive = read_archive(path, ("images", "labels", "split"))
    images, labels = archive["images"], archive["labels"].astype(np.int64)
    train, validation, test = (
        LabeledImages(images[rows], labels[rows])
        for rows in (np.flatnonzero(archive["split"] == code) for code in range(3))
    )
    return DataSplits(
        train=train,
        validation=validation,
        test=test,
        name="mnist",
        source="bundled",
        subset=True,
        num_classes=10,
        notice=(
            f"This is NOT full MNIST but {len(images):,} real digits bundled with the package "
            f"({len(train):,} train, {len(validation):,} validation, {len(test):,} test), whose "
            f"numbers are never comparable with full MNIST: {reason}; {REMEDY}."
        ),
    )
