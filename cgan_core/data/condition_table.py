"""A table of what is known of each picture of a folder, in CSV or Parquet."""

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64

from cgan_core.data.errors import DataError

SPLIT, GROUP = "split", "group"
LARGEST = float(np.finfo(np.float32).max)


@dataclass(frozen=True, eq=False)
class ConditionTable:
    """A row a picture.

    Attributes:
        files: Names relative to the folder, none of them twice.
        columns: Names of the numeric columns.
        vectors: Their values, finite.
        split: Of each picture, as it is written; None where there is no such column.
        group: The same.
    """

    files: tuple[str, ...]
    columns: tuple[str, ...]
    vectors: Float64[np.ndarray, "images columns"]
    split: np.ndarray | None
    group: np.ndarray | None


def read_condition_table(path: Path) -> ConditionTable:
    """Reads a table whose first column is a file name and whose others are numbers.

    Columns named `split` and `group` may be text.

    Raises:
        DataError: If anything in it is not so; rows are counted from 1 without the header.
    """
    if not path.is_file():
        raise DataError(f"{path}: file must exist, but there is none; correct data.conditions")
    readers = {".csv": _csv_columns, ".parquet": _parquet_columns}
    if path.suffix not in readers:
        raise DataError(f"{path}: must end in .csv or .parquet; convert it")
    try:
        names, columns = readers[path.suffix](path)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: cannot be read ({error}); write it again") from error
    _check_shape(path, names, columns)
    numeric = [k for k in range(1, len(names)) if names[k] not in (SPLIT, GROUP)]
    vectors = np.empty((len(columns[0]), len(numeric)))
    for position, k in enumerate(numeric):
        vectors[:, position] = _numbers(path, names[k], columns[k])
    return ConditionTable(
        files=_files(path, columns[0]),
        columns=tuple(names[k] for k in numeric),
        vectors=vectors,
        split=_words(path, SPLIT, names, columns),
        group=_words(path, GROUP, names, columns),
    )


def _csv_columns(path: Path) -> tuple[list[str], list[Sequence[Any]]]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        rows = [row for row in csv.reader(file, strict=True) if row]
    if not rows:
        return [], []
    for number, row in enumerate(rows[1:], 1):
        if len(row) != len(rows[0]):
            raise DataError(
                f"{path}: every row must have {len(rows[0])} values, but row {number} has "
                f"{len(row)}; correct it"
            )
    return [name.strip() for name in rows[0]], [
        list(column) for column in zip(*rows[1:], strict=True)
    ]


def _parquet_columns(path: Path) -> tuple[list[str], list[Sequence[Any]]]:
    import pyarrow  # takes a while to import, and only this needs it
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            table = file.read()
    except pyarrow.ArrowException as error:
        raise DataError(f"{path}: must be a Parquet file, but: {error}; write it again") from error
    return table.column_names, [column.to_pylist() for column in table.columns]


def _check_shape(path: Path, names: list[str], columns: list[Sequence[Any]]) -> None:
    if not columns or len(columns[0]) == 0:
        raise DataError(f"{path}: must have a header and at least one row, but is empty")
    for name in names:
        if not name or names.count(name) > 1:
            fault = f"{name!r} is there twice" if name else "one has none"
            raise DataError(f"{path}: every column must have a name, but {fault}; correct it")


def _files(path: Path, values: Sequence[Any]) -> tuple[str, ...]:
    seen: set[str] = set()
    for row, value in enumerate(values, 1):
        if not isinstance(value, str) or not value or value in seen:
            fault = "is there twice" if value in seen else "is none"
            raise DataError(
                f"{path}: the first column must hold a file name a row, each once, but "
                f"{value!r} in row {row} {fault}; correct it"
            )
        seen.add(value)
    return tuple(values)


def _numbers(path: Path, name: str, values: Sequence[Any]) -> list[float]:
    numbers = []
    for row, value in enumerate(values, 1):
        try:
            number = float(value)
        except (TypeError, ValueError):
            number = math.nan
        if not abs(number) <= LARGEST:  # nor if it is no number
            raise DataError(
                f"{path}: column {name} must hold finite numbers, but row {row} has {value!r}; "
                "fill or remove such rows"
            )
        numbers.append(number)
    return numbers


def _words(
    path: Path, name: str, names: list[str], columns: list[Sequence[Any]]
) -> np.ndarray | None:
    if name not in names[1:]:
        return None
    values = columns[names.index(name)]
    for row, value in enumerate(values, 1):
        if value is None or value == "":
            raise DataError(f"{path}: column {name} must not be empty, but row {row} is; fill it")
    return np.array([str(value) for value in values])
