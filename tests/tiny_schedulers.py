"""The schedulers that studies in closed form are searched with, and runs that differ by seed."""

from pathlib import Path
from typing import Any

from closed_form import ClosedFormRuns

SCHEDULERS: dict[str, dict[str, Any]] = {
    "none": {"kind": "none"},
    "asha": {"kind": "asha", "grace_kimg": 100.0},
    "promotion": {"kind": "asha", "grace_kimg": 100.0, "mode": "promotion"},
    "hyperband": {"kind": "hyperband", "grace_kimg": 100.0, "reduction_factor": 2},
    "median": {"kind": "median", "grace_kimg": 100.0},
    "paired": {"kind": "asha", "grace_kimg": 100.0, "paired": True},
}


def noisy(folder: Path, *, points: bool = False, **changes: Any) -> ClosedFormRuns:
    return ClosedFormRuns(folder=folder, points=points, seed_noise=20.0, **changes)
