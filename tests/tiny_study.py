"""A user's own small data set and a study of it that takes seconds."""

from pathlib import Path
from typing import Any, Literal

import numpy as np
import yaml
from tiny_data import SMALL

Conditions = Literal["labels", "vectors", "none"]


def write_npz(path: Path, conditions: Conditions = "labels", count: int = 240) -> Path:
    """8x8 images of 3 classes, each bright in rows of its own, as a user would save them."""
    rng = np.random.default_rng(0)
    labels = np.arange(count) % 3
    images = rng.integers(0, 60, (count, 8, 8))
    for label in range(3):
        images[labels == label, 2 * label : 2 * label + 3] += 150
    arrays: dict[str, Any] = {"images": images.astype(np.uint8)}
    if conditions == "labels":
        arrays["labels"] = labels
    elif conditions == "vectors":
        arrays["conditions"] = rng.normal(labels[:, None], 0.3, (count, 2)).astype(np.float32)
    np.savez(path, **arrays)
    return path


def content(file: Path, **changes: Any) -> dict[str, Any]:
    """What a space file holds: 2 manual points (the second on the grid), 2 cells, 1 proposal."""
    grid_point = {"learning_rate": 0.01, "d_dropout": 0.0}
    sections: dict[str, Any] = {
        "study": "tiny",
        "seed": 3,
        "data": {"path": str(file)},
        "model": {**SMALL, "momentum": 0.5},
        "space": {
            "learning_rate": {"type": "float", "low": 0.01, "high": 0.1, "log": True},
            "d_dropout": {"type": "float", "low": 0.0, "high": 0.5},
        },
        "stages": [
            {"kind": "manual", "points": [{"learning_rate": 0.05, "d_dropout": 0.2}, grid_point]},
            {"kind": "random_grid", "levels": {"learning_rate": 2, "d_dropout": 2}, "trials": 2},
            {"kind": "model", "sampler": "tpe", "trials": 1},
        ],
        "scheduler": {"kind": "asha", "grace_kimg": 0.4, "reduction_factor": 2},
        "budget": {"kimg_per_trial": 0.8, "measure_kimg": 0.2, "trials": 5},
    }
    return sections | changes


def write_space(folder: Path, **changes: Any) -> Path:
    """Writes `tiny.yaml` beside its data."""
    file = folder / "tiny.npz"
    if not file.exists():
        write_npz(file)
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(content(file, **changes), sort_keys=False))
    return path
