"""The record of a study as Parquet: one row a trial, one row a measurement.

This is the contract with reports and with other programs: columns and their meaning are those
of the output folder, and reading gives back what was written.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, get_type_hints

import pyarrow as pa

from search.events import ParamValue
from search.ledger import Direction, Ledger, TrialState
from search.parquet import (
    RecordError,
    dotted_columns,
    gather_dotted,
    read_table,
    replacing,
    write_table,
)
from search.points import Points, read_points, write_points

__all__ = [
    "MeasurementRecord",
    "Points",
    "RecordError",
    "TrialRecord",
    "read_measurements",
    "read_points",
    "read_trials",
    "write_json_atomic",
    "write_measurements",
    "write_points",
    "write_record",
    "write_trials",
]

TRIALS_NAME = "trials.parquet"
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


@dataclass(frozen=True, kw_only=True)
class TrialRecord:
    """One trial, a row of `trials.parquet`.

    `objective` and `standard_error` are in the units of the objective (nats), None before the
    first measurement and for a trial that is INFEASIBLE or FAILED: what it measured is in the
    measurements. `replicates` counts the courses averaged in `objective`; `pack` is how many
    trials its process advanced together at most. `seed`, `threads`, `streams`, `torch` and
    `processor` are what `search.rerun` needs beside `params` (`search.seat.Place`); None in
    records that were written before they were.
    """

    number: int
    stage: str
    state: str
    params: dict[str, ParamValue] = field(default_factory=dict)
    seed: int | None = None
    objective: float | None = None
    standard_error: float | None = None
    replicates: int = 0
    elapsed_seconds: float = 0.0
    total_kimg: float = 0.0
    run_id: str | None = None
    reason: str | None = None
    flags: tuple[str, ...] = ()
    started_at: datetime | None = None
    ended_at: datetime | None = None
    node: str | None = None
    device: str | None = None
    pack: int | None = None
    threads: int | None = None
    streams: str | None = None
    torch: str | None = None
    processor: str | None = None
    retries: int = 0
    dataset_digest: str
    protocol_digest: str


@dataclass(frozen=True, kw_only=True)
class MeasurementRecord:
    """One measurement, a row of `measurements.parquet`; `elapsed_seconds` is the trial's own."""

    number: int
    replicate: int
    kimg: float
    elapsed_seconds: float
    metrics: dict[str, float] = field(default_factory=dict)


def write_record(
    ledger: Ledger,
    folder: Path,
    dataset_digest: str,
    protocol_digest: str,
    run_ids: Mapping[int, str],
    *,
    metric: str = "validation_log_likelihood",
    direction: Direction = "maximize",
    flags: Mapping[int, Sequence[str]] | None = None,
) -> None:
    """Compacts a ledger into both Parquet files of `folder`, each replaced as a whole.

    Args:
        ledger: The study so far; running trials are written too.
        folder: The output folder.
        dataset_digest: Digest of the data behind every score.
        protocol_digest: Digest of how the scores were made.
        run_ids: The tracking run of each trial number that has one.
        metric: The objective.
        direction: Whether more of it is better.
        flags: What to beware of, for each trial number (docs/protocol.md).

    Raises:
        RecordError: The folder cannot be written.
    """
    digests = {"dataset_digest": dataset_digest, "protocol_digest": protocol_digest}
    trials = [
        _trial_record(
            trial,
            metric,
            direction,
            run_id=run_ids.get(trial.number),
            flags=tuple((flags or {}).get(trial.number, ())),
            **digests,
        )
        for trial in ledger.trials.values()
    ]
    measurements = [
        MeasurementRecord(
            number=trial.number,
            replicate=measured.replicate,
            kimg=measured.kimg,
            elapsed_seconds=measured.elapsed_seconds,
            metrics=measured.metrics,
        )
        for trial in ledger.trials.values()
        for measured in trial.measurements
    ]
    write_trials(folder, trials)
    write_measurements(folder, measurements)


def _trial_record(
    trial: TrialState, metric: str, direction: Direction, **others: Any
) -> TrialRecord:
    scored = trial.objective(metric, direction)
    if trial.state in ("INFEASIBLE", "FAILED"):
        scored = None
    return TrialRecord(
        number=trial.number,
        stage=trial.stage,
        state=trial.state,
        params=dict(trial.params),
        seed=trial.seed,
        objective=scored.value if scored else None,
        standard_error=scored.standard_error if scored else None,
        replicates=scored.replicates if scored else 0,
        elapsed_seconds=trial.elapsed_seconds,
        total_kimg=trial.total_kimg,
        reason=trial.reason,
        started_at=trial.started_at,
        ended_at=trial.ended_at,
        node=trial.node,
        device=trial.device,
        pack=trial.pack,
        threads=trial.threads,
        streams=trial.streams,
        torch=trial.torch,
        processor=trial.processor,
        retries=trial.retries,
        **others,
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


def _read(path: Path, dotted: str) -> list[dict[str, Any]]:
    table = read_table(path)
    plain = {name: _values(table[name]) for name in table.column_names if "." not in name}
    rows = gather_dotted(dotted, table)
    return [
        {**{name: values[index] for name, values in plain.items()}, dotted: row}
        for index, row in enumerate(rows)
    ]


def _values(column: Any) -> list[Any]:
    if not pa.types.is_timestamp(column.type):
        values: list[Any] = column.to_pylist()
        return values
    # By way of integers: a zone by name needs a database that small images do not have.
    naive = column.cast(pa.int64()).cast(pa.timestamp("us")).to_pylist()
    return [None if at is None else at.replace(tzinfo=UTC) for at in naive]
