"""Folds of a training split: disjoint parts that cover it and keep every class's share."""

from dataclasses import replace

import numpy as np
from jaxtyping import Int64

from cgan_core.data.images import DataSplits, LabeledImages
from cgan_core.streams import stream


def assign_folds(
    num_images: int,
    folds: int,
    seed: int,
    labels: Int64[np.ndarray, " images"] | None = None,
    groups: Int64[np.ndarray, " images"] | None = None,
) -> Int64[np.ndarray, " images"]:
    """Deals images to folds, shuffled, one class after another.

    So the sizes of folds differ by one image at most, and so do each class's shares of them.
    Images that belong together are dealt as one, the largest groups first, each to the fold that
    has fewest images; then classes are not looked at.

    Args:
        num_images: how many there are.
        folds: k, at least 1.
        seed: decides which images of a class go where, with nothing else.
        labels: the class of each image; without it all are dealt as one class.
        groups: which images belong together; None where each stands alone.

    Returns:
        The fold 0 ... k - 1 of each image.

    Raises:
        ValueError: if there are fewer images (or groups) than folds, or `folds < 1`.
    """
    most = num_images if groups is None else len(np.unique(groups))
    if not 1 <= folds <= most:
        raise ValueError(f"`1 <= folds <= {most}` must hold, but got folds={folds}")
    rng = stream(seed, "folds")
    if groups is not None:
        return _whole_groups(groups, folds, rng)
    order = rng.permutation(num_images)
    if labels is not None:
        order = order[labels[order].argsort(kind="stable")]
    assigned = np.empty(num_images, np.int64)
    assigned[order] = np.arange(num_images) % folds
    return assigned


def _whole_groups(
    groups: Int64[np.ndarray, " images"], folds: int, rng: np.random.Generator
) -> Int64[np.ndarray, " images"]:
    _, member_of, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    order = rng.permutation(len(sizes))
    filled, fold_of = np.zeros(folds, np.int64), np.empty(len(sizes), np.int64)
    for group in order[np.argsort(-sizes[order], kind="stable")]:
        fold_of[group] = filled.argmin()
        filled[fold_of[group]] += sizes[group]
    assigned: Int64[np.ndarray, " images"] = fold_of[member_of]
    return assigned


def leave_out(
    splits: DataSplits, fold: int, folds: int, seed: int
) -> tuple[DataSplits, LabeledImages]:
    """Takes one fold of k out of the training split.

    Args:
        splits: data with classes, which folds then keep, or without.
        fold: which, 0 ... k - 1.
        folds: k, at least 2.
        seed: of the folds.

    Returns:
        The splits with the other folds to train on, and the fold; each in stored order.

    Raises:
        ValueError: if there is no such fold.
    """
    if folds < 2 or not 0 <= fold < folds:
        raise ValueError(
            f"`0 <= fold < folds` and `folds >= 2` must hold, but got fold={fold}, folds={folds}"
        )
    train = splits.train
    labels = train.conditions if splits.num_classes is not None else None
    is_held_out = assign_folds(len(train), folds, seed, labels, train.groups) == fold
    return replace(splits, train=train.chosen(~is_held_out)), train.chosen(is_held_out)
