"""The record: reading gives back what was written, and the columns are the contract's."""

import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from tiny_events import proposed

from search.events import Ended, Event, Measured, Retried, SessionOpened, Started
from search.ledger import Ledger
from search.record import (
    MeasurementRecord,
    RecordError,
    TrialRecord,
    read_measurements,
    read_points,
    read_trials,
    write_json_atomic,
    write_measurements,
    write_points,
    write_record,
    write_trials,
)

METRIC = "validation_log_likelihood"
COLUMNS = [
    "number",
    "stage",
    "state",
    "params.rate",
    "params.units",
    "donor",
    "donor_kimg",
    "replaces",
    "seed",
    "objective",
    "standard_error",
    "points_error",
    "redraw_error",
    "replicates_error",
    "replicates",
    "elapsed_seconds",
    "total_kimg",
    "run_id",
    "reason",
    "flags",
    "started_at",
    "ended_at",
    "node",
    "device",
    "pack",
    "threads",
    "streams",
    "torch",
    "processor",
    "retries",
    "retries_preempted",
    "retries_machine",
    "retries_out_of_memory",
    "retries_storage",
    "retries_code",
    "dataset_digest",
    "protocol_digest",
]

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
NAMES = st.sampled_from(["rate", "units", "a.b", "", "type", "θ"])
FINITE = st.floats(allow_nan=False, allow_infinity=False)
INT64 = st.integers(-(2**63), 2**63 - 1)
VALUES = st.one_of(st.booleans(), INT64, FINITE, TEXT)
TIMES = st.none() | st.datetimes(
    datetime(1980, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC)
)
TRIALS = st.builds(
    TrialRecord,
    number=st.integers(0, 9),
    stage=TEXT,
    state=TEXT,
    params=st.dictionaries(NAMES, VALUES),
    objective=st.none() | FINITE,
    standard_error=st.none() | FINITE,
    replicates=st.integers(0, 9),
    elapsed_seconds=FINITE,
    total_kimg=FINITE,
    run_id=st.none() | TEXT,
    reason=st.none() | TEXT,
    flags=st.lists(TEXT).map(tuple),
    started_at=TIMES,
    ended_at=TIMES,
    node=st.none() | TEXT,
    device=st.none() | TEXT,
    pack=st.none() | st.integers(1, 64),
    retries=st.integers(0, 9),
    dataset_digest=TEXT,
    protocol_digest=TEXT,
)
MEASUREMENTS = st.builds(
    MeasurementRecord,
    number=st.integers(0, 9),
    replicate=st.integers(0, 9),
    kimg=FINITE,
    elapsed_seconds=FINITE,
    metrics=st.dictionaries(NAMES, FINITE),
)


@settings(deadline=None, max_examples=100)
@given(records=st.lists(TRIALS, max_size=6))
def test_trials_read_back_as_written(
    tmp_path_factory: pytest.TempPathFactory, records: list[TrialRecord]
) -> None:
    folder = tmp_path_factory.mktemp("trials")
    write_trials(folder, records)
    assert read_trials(folder) == records
    assert [p.name for p in folder.iterdir()] == ["trials.parquet"]


@settings(deadline=None, max_examples=50)
@given(records=st.lists(MEASUREMENTS, max_size=6))
def test_measurements_read_back_as_written(
    tmp_path_factory: pytest.TempPathFactory, records: list[MeasurementRecord]
) -> None:
    folder = tmp_path_factory.mktemp("measurements")
    write_measurements(folder, records)
    assert read_measurements(folder) == records


@settings(deadline=None, max_examples=50)
@given(st.data())
def test_points_read_back_bit_for_bit(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("points") / "points" / "0-0.parquet"
    shape = (data.draw(st.integers(0, 20)),)
    vectors = arrays.arrays(np.float32, shape, elements=st.floats(width=32))
    pooled, conditional = data.draw(vectors), data.draw(st.none() | vectors)
    write_points(path, pooled, conditional)
    points = read_points(path)
    np.testing.assert_array_equal(points.pooled, pooled)
    assert points.pooled.dtype == np.float32
    if conditional is None:
        assert points.conditional is None
    else:
        np.testing.assert_array_equal(points.conditional, conditional)


def column_of(folder: Path, *values: Any) -> Any:
    records = [
        TrialRecord(
            number=number,
            stage="model",
            state="RUNNING",
            params={} if value is None else {"x": value},
            dataset_digest="",
            protocol_digest="",
        )
        for number, value in enumerate(values)
    ]
    write_trials(folder, records)
    assert [r.params for r in read_trials(folder)] == [r.params for r in records]
    return pq.read_schema(folder / "trials.parquet").field("params.x")


def test_a_column_of_params_has_the_type_of_its_values(tmp_path: Path) -> None:
    assert column_of(tmp_path, 0.5, None).type == pa.float64()
    assert column_of(tmp_path, 2**53 + 1, 3).type == pa.int64()
    assert column_of(tmp_path, True, None).type == pa.bool_()
    assert column_of(tmp_path, "adam", "sgd").type == pa.string()
    assert column_of(tmp_path, 1, 0.5).type == pa.float64()
    for mixed in [(1, True), (0.5, "auto"), (2**53 + 1, 0.5)]:
        field = column_of(tmp_path, *mixed)
        assert field.type == pa.string()
        assert field.metadata == {b"encoding": b"json"}


def trial_events(number: int, rate: float) -> list[Event]:
    return [
        proposed(number, {"rate": rate, "units": 240}),
        Started(number=number, attempt=0, node="node", device="cpu", pid=1),
        *(
            Measured(
                number=number,
                kimg=kimg,
                elapsed_seconds=kimg / 10,
                metrics={METRIC: value, "standard_error": 2.5, "label_accuracy": 0.5},
            )
            for kimg, value in [(50.0, 100.0), (100.0, 90.0)]
        ),
    ]


def ledger() -> Ledger:
    return Ledger(
        [
            SessionOpened(pid=1),
            *trial_events(0, 0.1),
            Retried(number=0, cause="node died", kind="preempted"),
            Started(number=0, attempt=1, node="other", device="cuda:0", pid=2, pack=8),
            *trial_events(0, 0.1)[2:],
            Ended(number=0, state="COMPLETED"),
            *trial_events(1, 0.2),
            Ended(number=1, state="INFEASIBLE", reason="non-finite loss at 110 kimg"),
            *trial_events(2, 0.3),
        ]
    )


def test_a_ledger_becomes_the_contract_of_the_output_folder(tmp_path: Path) -> None:
    folder = tmp_path / "seed=3"  # must not be taken for a partition
    write_record(ledger(), folder, "data", "protocol", {0: "run"}, flags={0: ["above_real_data"]})
    assert pq.read_schema(folder / "trials.parquet").names == COLUMNS
    assert pq.read_schema(folder / "measurements.parquet").names == [
        *("number", "replicate", "kimg", "elapsed_seconds"),
        *("metrics.label_accuracy", "metrics.standard_error", f"metrics.{METRIC}"),
    ]
    best, infeasible, running = read_trials(folder)
    assert (best.objective, best.standard_error, best.replicates) == (100.0, 2.5, 1)
    assert (best.run_id, best.retries, best.node, best.device) == ("run", 1, "other", "cuda:0")
    assert (best.pack, best.retries_preempted, best.retries_machine) == (8, 1, 0)
    assert (best.elapsed_seconds, best.total_kimg) == (10.0, 100.0)
    assert best.flags == ("above_real_data",)
    assert best.ended_at
    assert best.ended_at.tzinfo is UTC
    assert (infeasible.objective, infeasible.replicates) == (None, 0)
    assert infeasible.reason == "non-finite loss at 110 kimg"
    assert (running.state, running.objective, running.ended_at) == ("RUNNING", 100.0, None)
    assert {(t.dataset_digest, t.protocol_digest) for t in (best, running)} == {
        ("data", "protocol")
    }
    measurements = read_measurements(folder)
    assert [(m.number, m.kimg) for m in measurements] == [
        (number, kimg) for number in range(3) for kimg in (50.0, 100.0)
    ]


def test_an_empty_study_has_readable_files(tmp_path: Path) -> None:
    write_record(Ledger(), tmp_path, "data", "protocol", {})
    assert read_trials(tmp_path) == []
    assert read_measurements(tmp_path) == []


def test_times_of_other_zones_are_kept_as_utc(tmp_path: Path) -> None:
    noon = datetime(2026, 1, 1, 12, tzinfo=timezone(timedelta(hours=5)))
    event = SessionOpened(pid=1, at=noon)
    assert event.at.tzinfo is UTC
    assert event.at == noon
    with pytest.raises(ValueError, match="timezone"):
        SessionOpened(pid=1, at=datetime(2026, 1, 1))


def test_a_reader_never_sees_half_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_trials(tmp_path, [])

    def half(table: Any, path: Path, **options: Any) -> None:
        path.write_bytes(b"PAR1")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pq, "write_table", half)
    with pytest.raises(RecordError, match=r"trials\.parquet: must be writable, but: No space"):
        write_record(ledger(), tmp_path, "data", "protocol", {})
    assert read_trials(tmp_path) == []
    assert [p.name for p in tmp_path.iterdir()] == ["trials.parquet"]


def test_what_is_no_record_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match=r"trials\.parquet: is missing; is this the output"):
        read_trials(tmp_path)
    (tmp_path / "trials.parquet").write_bytes(b"nonsense")
    with pytest.raises(RecordError, match="must be a readable Parquet file"):
        read_trials(tmp_path)
    pq.write_table(pa.table({"number": [1]}), tmp_path / "trials.parquet")
    with pytest.raises(RecordError, match="`record_version` must be 1, but got None"):
        read_trials(tmp_path)
    with pytest.raises(RecordError, match="vectors of one length"):
        write_points(tmp_path / "points.parquet", np.zeros(3), np.zeros(4))


def test_json_is_replaced_as_a_whole_and_has_no_nan(tmp_path: Path) -> None:
    path = tmp_path / "summary.json"
    write_json_atomic(path, {"best": 1.5, "confirmed": None})
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json_atomic(path, {"best": float("nan")})
    assert json.loads(path.read_text()) == {"best": 1.5, "confirmed": None}


def test_the_record_needs_none_of_the_platform() -> None:
    heavy = "{'torch', 'ray', 'mlflow', 'optuna', 'cgan_core', 'pandas'}"
    code = f"import sys, search.record; print(*{heavy} & set(sys.modules))"
    said = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout
    assert said.split() == []
