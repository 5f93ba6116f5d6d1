"""Data sets small enough that a test trains on them in milliseconds."""

from collections.abc import Mapping

import numpy as np

from cgan_core.configs.mlp import MLPConfig
from cgan_core.data import DataSplits, LabeledImages
from cgan_core.networks import ConditionKind

SMALL: Mapping[str, int] = {
    "noise_dim": 5,
    "g_noise_units": 6,
    "g_condition_units": 7,
    "g_joint_units": 8,
    "d_image_units": 6,
    "d_image_pieces": 3,
    "d_condition_units": 4,
    "d_condition_pieces": 2,
    "d_joint_units": 5,
    "d_joint_pieces": 2,
    "batch_size": 10,
}
KINDS = {
    "labels": ConditionKind(3, labels=True),
    "vectors": ConditionKind(2, labels=False),
    "none": None,
}


def tiny_config(**changes: object) -> MLPConfig:
    """The paper's setting with a few units a layer."""
    return MLPConfig.paper(**{**SMALL, **changes})


def tiny_splits(
    conditions: str = "labels",
    train: int = 60,
    validation: int = 40,
    test: int = 30,
    side: int = 4,
) -> DataSplits:
    """4x4 images, or larger, of 3 classes that differ in brightness; class 0 is half of them."""
    parts = [
        _images(conditions, count, side, np.random.default_rng(seed))
        for seed, count in enumerate((train, validation, test))
    ]
    return DataSplits(
        train=parts[0],
        validation=parts[1],
        test=parts[2],
        name="tiny",
        source="synthetic",
        subset=False,
        num_classes=3 if conditions == "labels" else None,
    )


def _images(conditions: str, count: int, side: int, rng: np.random.Generator) -> LabeledImages:
    labels = rng.permutation(np.array([0, 0, 1, 2])[np.arange(count) % 4]).astype(np.int64)
    bright = 60 + 70 * labels[:, None, None]
    images = np.clip(bright + rng.normal(0, 20, (count, side, side)), 0, 255).astype(np.uint8)
    if conditions == "labels":
        return LabeledImages(images, labels)
    if conditions == "none":
        return LabeledImages(images, None)
    return LabeledImages(images, rng.normal(labels[:, None], 1, (count, 2)).astype(np.float32))
