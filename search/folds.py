"""Whether data are enough for so many folds."""

import numpy as np

from cgan_core.data import DataSplits

MIN_IMAGES = 5  # of each class in every fold: fewer say next to nothing of the class


def refusal_of_folds(folds: int, splits: DataSplits) -> str | None:
    """Says why a training split cannot be cut into so many folds; None where it can.

    Every class must have at least five images in every fold; without classes all images are one.
    """
    train = splits.train
    if folds == 1:
        return None
    if train.groups is not None and folds > (groups := len(np.unique(train.groups))):
        what = f"groups of training images in {splits.source}"
        return f"`folds <= {groups}` ({what}) must hold, but got folds={folds}"
    name, count = "training images", len(train)
    if splits.num_classes is not None and train.conditions is not None:
        counts = np.bincount(train.conditions, minlength=splits.num_classes)
        name, count = f"training images of class {counts.argmin()}", int(counts.min())
    most = count // MIN_IMAGES
    if folds <= most:
        return None
    remedy = f"use at most `folds: {most}`" if most > 1 else "use `folds: 1`"
    return (
        f"`folds * {MIN_IMAGES} <= {count}` ({name} in {splits.source}) must hold, "
        f"but got folds={folds}; {remedy}"
    )
