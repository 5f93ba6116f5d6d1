"""Per-point log-likelihoods on disk, so that trials can be compared in pairs."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import ArrayLike, NDArray

from search.events import RunKey
from search.parquet import RecordError, read_table, write_table


def picture_folder(run: RunKey) -> str:
    """The folder of a run's pictures within `samples/`."""
    return f"{run.number}-{run.replicate}" if run.replicate else f"{run.number}"


class Points(NamedTuple):
    """Log-likelihoods of each evaluated point in nats, each of shape (points,)."""

    pooled: NDArray[np.float32]
    conditional: NDArray[np.float32] | None


def write_points(path: Path, pooled: ArrayLike, conditional: ArrayLike | None) -> None:
    """Writes per-point log-likelihoods, each of shape (points,), as float32 columns.

    Raises:
        RecordError: The two differ in length, or the file cannot be written.
    """
    columns = {"pooled": np.asarray(pooled, np.float32)}
    if conditional is not None:
        columns["conditional"] = np.asarray(conditional, np.float32)
    shapes = {column.shape for column in columns.values()}
    if len(shapes) > 1 or columns["pooled"].ndim != 1:
        raise RecordError(f"{path}: columns must be vectors of one length, but got {shapes}")
    write_table(path, pa.table(columns))


def read_points(path: Path) -> Points:
    """Reads per-point log-likelihoods.

    Raises:
        RecordError: There is no such file.
    """
    table = read_table(path)
    names = ("pooled", "conditional")
    pooled, conditional = (
        np.asarray(table[name], np.float32) if name in table.column_names else None
        for name in names
    )
    if pooled is None:
        raise RecordError(f"{path}: must have a column `pooled`, but has {table.column_names}")
    return Points(pooled, conditional)
