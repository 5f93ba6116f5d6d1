"""Tables on disk: replaced as a whole, with one typed column for each name in a mapping."""

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

_VERSION = {b"record_version": b"1"}
_AS_JSON = {b"encoding": b"json"}
_EXACT_IN_FLOAT = 2**53


class RecordError(ValueError):
    """A record that cannot be read or written."""


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Gives a file to write beside `path`, which it replaces once it is on disk.

    Raises:
        RecordError: It cannot be written; what was at `path` is still there.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield temporary
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise RecordError(f"{path}: must be writable, but: {error.strerror or error}") from error


def write_table(path: Path, table: Any) -> None:
    """Replaces a Parquet file.

    Raises:
        RecordError: It cannot be written.
    """
    with replacing(path) as temporary:
        pq.write_table(table.replace_schema_metadata(_VERSION), temporary, compression="zstd")


def read_table(path: Path) -> Any:
    """Reads a Parquet file of ours.

    Raises:
        RecordError: It is missing, is no Parquet file, or is of another version.
    """
    try:
        with pq.ParquetFile(path) as file:
            table = file.read()
    except FileNotFoundError:
        raise RecordError(f"{path}: is missing; is this the output folder of a study?") from None
    except (OSError, pa.ArrowInvalid) as error:
        raise RecordError(f"{path}: must be a readable Parquet file, but: {error}") from error
    version = (table.schema.metadata or {}).get(b"record_version")
    if version != _VERSION[b"record_version"]:
        raise RecordError(f"{path}: `record_version` must be 1, but got {version!r}")
    return table


def dotted_columns(prefix: str, rows: Sequence[dict[str, Any]]) -> list[tuple[Any, Any]]:
    """Spreads mappings over columns `prefix.name`, null where a row lacks the name.

    Returns:
        The field and the array of each name, sorted. Numbers of both kinds make a float column
        where it can hold them exactly; values of any other mixture become JSON text, and the
        field says so in its metadata.
    """
    names = sorted({name for row in rows for name in row})
    return [_column(f"{prefix}.{name}", [row.get(name) for row in rows]) for name in names]


def gather_dotted(prefix: str, table: Any) -> list[dict[str, Any]]:
    """Gathers columns `prefix.name` into one mapping a row, without its nulls."""
    rows: list[dict[str, Any]] = [{} for _ in range(table.num_rows)]
    for column in table.schema:
        if not column.name.startswith(f"{prefix}."):
            continue
        name = column.name.removeprefix(f"{prefix}.")
        decode = json.loads if (column.metadata or {}).items() >= _AS_JSON.items() else _same
        for row, value in zip(rows, table[column.name].to_pylist(), strict=True):
            if value is not None:
                row[name] = decode(value)
    return rows


def _same(value: Any) -> Any:
    return value


def _column(name: str, values: list[Any]) -> tuple[Any, Any]:
    present = [value for value in values if value is not None]
    kinds = {type(value) for value in present}
    exact = all(abs(value) <= _EXACT_IN_FLOAT for value in present if type(value) is int)
    arrow = {bool: pa.bool_(), int: pa.int64(), float: pa.float64(), str: pa.string()}
    if len(kinds) == 1:
        kind = arrow[kinds.pop()]
    elif kinds == {int, float} and exact:
        kind = pa.float64()
    else:
        values = [None if value is None else json.dumps(value) for value in values]
        return pa.field(name, pa.string(), metadata=_AS_JSON), pa.array(values, pa.string())
    return pa.field(name, kind), pa.array(values, kind)
