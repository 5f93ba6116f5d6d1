"""Random splits of a data set that keep every class's share."""

import numpy as np
from jaxtyping import Float64, Int64

TRAIN, VALIDATION, TEST = 0, 1, 2


def stratified_partition(
    labels: Int64[np.ndarray, " images"], generator: np.random.Generator
) -> Int64[np.ndarray, " images"]:
    """Assigns 70/20/10 % of the images to the three splits, class by class.

    The totals are exact (10,000 images give 7,000/2,000/1,000) and each class is within one or
    two images of its share.

    Args:
        labels: The class of each image.
        generator: Decides which images of a class go where.

    Returns:
        0 (train), 1 (validation) or 2 (test) for each image.
    """
    classes, counts = np.unique(labels, return_counts=True)
    train = _apportion(counts * 0.7, round(len(labels) * 0.7))
    rest = counts - train
    validation = _apportion(rest * (2 / 3), round(len(labels) * 0.2))
    codes = np.empty(len(labels), np.int64)
    for label, count, first, second in zip(classes, counts, train, validation, strict=True):
        members = generator.permutation(np.flatnonzero(labels == label))
        sizes = (first, second, count - first - second)
        codes[members] = np.repeat((TRAIN, VALIDATION, TEST), sizes)
    return codes


def grouped_partition(
    groups: Int64[np.ndarray, " images"],
    shares: tuple[float, float, float],
    generator: np.random.Generator,
) -> Int64[np.ndarray, " images"]:
    """Assigns whole groups of images to the three splits.

    The groups are gone through in random order, so that large ones may come to any split: each
    goes to the test split while it fits there, else to the validation split while it fits there,
    else to the training split.

    Args:
        groups: To whom each image belongs, such as a person.
        shares: Of the images, for training, validation and test.
        generator: Decides the order.

    Returns:
        0 (train), 1 (validation) or 2 (test) for each image.
    """
    _, member_of, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    left = {code: round(len(groups) * shares[code]) for code in (TEST, VALIDATION)}
    code_of = np.full(len(sizes), TRAIN, np.int64)
    for group in generator.permutation(len(sizes)):
        fitting = [code for code, room in left.items() if sizes[group] <= room]
        if fitting:
            code_of[group] = fitting[0]
            left[fitting[0]] -= sizes[group]
    codes: Int64[np.ndarray, " images"] = code_of[member_of]
    return codes


def _apportion(
    quotas: Float64[np.ndarray, " classes"], total: int
) -> Int64[np.ndarray, " classes"]:
    """Whole numbers near `quotas` that add up to `total`, by largest remainder."""
    seats: Int64[np.ndarray, " classes"] = np.floor(quotas).astype(np.int64)
    order = np.argsort(seats - quotas, kind="stable")
    seats[order[: total - seats.sum()]] += 1
    return seats
