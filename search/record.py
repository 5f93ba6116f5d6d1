"""The record of a study as Parquet: one row a trial, one a run, one a measurement.

This is the contract with reports and with other programs: columns and their meaning are those
of the output folder, and reading gives back what was written.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, get_type_hints

import pyarrow as pa

from search.events import RunKey
from search.ledger import Ledger
from search.parquet import (
    RecordError,
    dotted_columns,
    gather_dotted,
    read_table,
    replacing,
    write_table,
)
from search.points import Points, read_points, write_points
from search.record_rows import MeasurementRecord, RunRecord, TrialRecord
from search.run_state import Direction

__all__ = [
    "MeasurementRecord",
    "Points",
    "RecordError",
    "RunRecord",
    "TrialRecord",
    "read_measurements",
    "read_points",
    "read_runs",
    "read_trials",
    "write_json_atomic",
    "write_measurements",
    "write_points",
    "write_record",
    "write_runs",
    "write_trials",
]

TRIALS_NAME = "trials.parquet"
RUNS_NAME = "runs.parquet"
MEASUREMENTS_NAME = "measurements.parquet"

_ARROW: dict[Any, Any] = {
    int: pa.int64(),
    int | None: pa.int64(),
    float: pa.float64(),
    float | None: pa.float64(),
    str: pa.string(),
    str | None: pa.string(),
    tuple[str, ...]: pa.list_(pa.string()),
    datetime | None: pa.timestamp("us", tz="UTC"),
}


def write_record(
    ledger: Ledger,
    folder: Path,
    dataset_digest: str,
    protocol_digest: str,
    run_ids: Mapping[int | RunKey, str],
    *,
    metric: str = "validation_log_likelihood",
    direction: Direction = "maximize",
    flags: Mapping[int, Sequence[str]] | None = None,
) -> None:
    """Compacts a ledger into the Parquet files of `folder`, each replaced as a whole.

    Args:
        ledger: The study so far; running trials are written too.
        folder: The output folder.
        dataset_digest: Digest of the data behind every score.
        protocol_digest: Digest of how the scores were made.
        run_ids: The tracking run of each trial number and of each run that has one.
        metric: The objective.
        direction: Whether more of it is better.
        flags: What to beware of, for each trial number (docs/protocol.md).

    Raises:
        RecordError: The folder cannot be written.
    """
    trials = [
        TrialRecord.of(
            trial,
            metric,
            direction,
            run_id=run_ids.get(trial.number),
            flags=tuple((flags or {}).get(trial.number, ())),
            dataset_digest=dataset_digest,
            protocol_digest=protocol_digest,
        )
        for trial in ledger.trials.values()
    ]
    runs = [
        RunRecord.of(run, metric, direction, run_ids.get(run.key, run_ids.get(run.number)))
        for run in ledger.runs
    ]
    write_trials(folder, trials)
    write_runs(folder, runs)
    write_measurements(
        folder, [MeasurementRecord.of(one) for run in ledger.runs for one in run.measurements]
    )


def write_trials(folder: Path, records: Iterable[TrialRecord]) -> None:
    """Replaces `trials.parquet`.

    A column `params.<name>` has the type of its values (float, int, bool, string; null where a
    trial has no such parameter). Numbers of both kinds make a float column; any other mixture
    is kept as JSON text, which `read_trials` decodes.

    Raises:
        RecordError: The folder cannot be written.
    """
    _write(folder / TRIALS_NAME, TrialRecord, list(records))


def write_runs(folder: Path, records: Iterable[RunRecord]) -> None:
    """Replaces `runs.parquet`.

    Raises:
        RecordError: The folder cannot be written.
    """
    _write(folder / RUNS_NAME, RunRecord, list(records))


def write_measurements(folder: Path, records: Iterable[MeasurementRecord]) -> None:
    """Replaces `measurements.parquet`, a float column `metrics.<name>` for each metric.

    Raises:
        RecordError: The folder cannot be written.
    """
    _write(folder / MEASUREMENTS_NAME, MeasurementRecord, list(records))


def read_trials(folder: Path) -> list[TrialRecord]:
    """Reads the trials of a study, also while it runs.

    Raises:
        RecordError: There is no such record, or it is not one of ours.
    """
    rows = _read(folder / TRIALS_NAME, "params")
    return [TrialRecord(**{**row, "flags": tuple(row["flags"])}) for row in rows]


def read_runs(folder: Path) -> list[RunRecord]:
    """Reads the runs of a study, also while it runs.

    Raises:
        RecordError: There is no such record, or it is not one of ours.
    """
    return [RunRecord(**row) for row in _read(folder / RUNS_NAME)]


def read_measurements(folder: Path) -> list[MeasurementRecord]:
    """Reads the measurements of a study, also while it runs.

    Raises:
        RecordError: There is no such record, or it is not one of ours.
    """
    return [MeasurementRecord(**row) for row in _read(folder / MEASUREMENTS_NAME, "metrics")]


def write_json_atomic(path: Path, content: Mapping[str, Any]) -> None:
    """Replaces a JSON file as a whole; a NaN is refused, for JSON has none.

    Raises:
        RecordError: It cannot be written.
    """
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n")


def _write(path: Path, kind: type[Any], records: Sequence[Any]) -> None:
    columns: list[tuple[Any, Any]] = []
    for name, hint in get_type_hints(kind).items():
        values = [getattr(record, name) for record in records]
        if hint in _ARROW:
            columns.append((pa.field(name, _ARROW[hint]), pa.array(values, _ARROW[hint])))
        else:
            columns.extend(dotted_columns(name, values))
    schema = pa.schema([column for column, _ in columns])
    write_table(path, pa.Table.from_arrays([array for _, array in columns], schema=schema))


def _read(path: Path, dotted: str | None = None) -> list[dict[str, Any]]:
    table = read_table(path)
    plain = {name: _values(table[name]) for name in table.column_names if "." not in name}
    rows = [
        {name: values[index] for name, values in plain.items()} for index in range(table.num_rows)
    ]
    if dotted is None:
        return rows
    gathered = gather_dotted(dotted, table)
    return [row | {dotted: values} for row, values in zip(rows, gathered, strict=True)]


def _values(column: Any) -> list[Any]:
    if not pa.types.is_timestamp(column.type):
        values: list[Any] = column.to_pylist()
        return values
    # By way of integers: a zone by name needs a database that small images do not have.
    naive = column.cast(pa.int64()).cast(pa.timestamp("us")).to_pylist()
    return [None if at is None else at.replace(tzinfo=UTC) for at in naive]
