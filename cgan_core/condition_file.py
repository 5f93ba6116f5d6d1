"""Condition vectors from a file, as they were measured."""

from pathlib import Path

import numpy as np
from jaxtyping import Float64

from cgan_core.model import Model, ModelError

SUFFIXES = (".npy", ".csv")


def read_conditions(path: Path, model: Model) -> Float64[np.ndarray, "rows columns"]:
    """Reads the vectors that pictures are wanted for, one a row.

    `.npy` holds an array (rows, columns); `.csv` has numbers between commas, and may name its
    columns in the first line.

    Raises:
        ModelError: if the file cannot be read, or its vectors do not fit the model.
    """
    kind = model.condition
    if kind is None or kind.labels:
        takes = "labels: use --condition" if kind else "no conditions"
        raise ModelError(f"--condition-file: this model takes {takes}")
    try:
        found = _read(path)
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise ModelError(f"--condition-file {path}: cannot be read ({reason})") from error
    if found.ndim != 2 or found.shape[1] != kind.width or not len(found):
        raise ModelError(
            f"--condition-file {path}: must hold rows of {kind.width} values, but has shape "
            f"{found.shape}"
        )
    if not np.isfinite(found).all():
        row, column = np.argwhere(~np.isfinite(found))[0]
        raise ModelError(
            f"--condition-file {path}: every value must be finite, but row {row}, column {column} "
            f"(from 0) is {found[row, column]}"
        )
    return found


def _read(path: Path) -> Float64[np.ndarray, "..."]:
    if path.suffix not in SUFFIXES:
        raise ValueError(f"its name must end in {' or '.join(SUFFIXES)}")
    if path.suffix == ".npy":
        with path.open("rb") as file:
            found: Float64[np.ndarray, ...] = np.lib.format.read_array(file).astype(np.float64)
        return found
    lines = path.read_text(encoding="utf-8-sig").splitlines()
    if lines and not _is_number(lines[0].partition(",")[0]):
        lines = lines[1:]  # the names
    return np.loadtxt(lines, delimiter=",", ndmin=2, dtype=np.float64)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
