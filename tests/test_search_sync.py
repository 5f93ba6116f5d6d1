"""A study on record, and an MLflow that is away, comes back and dies."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
from closed_form import study
from tiny_events import proposed

from search import sync, tracking
from search.events import (
    Ended,
    Event,
    Measured,
    Proposed,
    SessionClosed,
    SessionOpened,
    Started,
    StudyOpened,
)
from search.history import JOURNAL_NAME, History
from search.lines import Lines
from search.mlflow_runs import MlflowRuns
from search.record import write_json_atomic
from search.redelivery import last_close

pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader:DeprecationWarning")

METRIC = "validation_log_likelihood"
TRIALS = 6
MEASUREMENTS = 3


def record(folder: Path, *, ended: int = TRIALS - 1, closed: bool = False) -> History:
    """A study of which so many trials ended, and the others were in training when it stopped."""
    spec = study()
    history = History.create(folder)
    opened = StudyOpened(
        study="digits",
        study_id=folder.name.ljust(32, "0"),
        spec=spec.model_dump(mode="json"),
        spec_digest=spec.digest,
        dataset_digest="d",
        protocol_digest="p",
    )
    dataset = {"name": "digits", "digest": "d", "source": "/data", "subset": True}
    content = opened.model_dump(mode="json", exclude={"event"}) | {
        "dataset": dataset,
        "validation_lines": asdict(Lines(untrained=-1e6, real_data=0.0)),
    }
    write_json_atomic(folder / "study.json", content)
    history.append(opened)
    history.append(SessionOpened(pid=1))
    for number in range(TRIALS):
        for event in course(number, ends=number < ended):
            history.append(event)
    if closed:
        history.append(SessionClosed(reason="interrupted"))
    return history


def course(number: int, *, ends: bool) -> Iterator[Event]:
    begins: Proposed = proposed(number, {"learning_rate": 0.1 / (number + 1), "d_dropout": 0.25})
    yield begins
    yield Started(number=number, attempt=0, from_kimg=0.0, node="n", device="cpu", pid=7)
    for index in range(1, MEASUREMENTS + 1):
        metrics = {METRIC: -100.0 / index - number, "standard_error": 0.5}
        yield Measured(number=number, kimg=50.0 * index, elapsed_seconds=index, metrics=metrics)
        time.sleep(0.002)  # a millisecond is what MLflow can tell apart
    if ends:
        yield Ended(number=number, state="COMPLETED")


def held(uri: str) -> dict[str, Any]:
    """What MLflow shows: by key, the status, the end and each metric's history."""
    from mlflow.tracking import MlflowClient

    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("digits")
    runs = [] if experiment is None else client.search_runs([experiment.experiment_id])
    found: dict[str, Any] = {}
    for run in runs:
        assert run.data.tags["trial_key"] not in found, "a run was doubled"
        found[run.data.tags["trial_key"]] = {
            "run_id": run.info.run_id,
            "status": run.info.status,
            "ended": run.info.end_time,
            "metrics": {
                name: [(m.step, m.value) for m in client.get_metric_history(run.info.run_id, name)]
                for name in run.data.metrics
            },
        }
    return found


def check(found: dict[str, Any], history: History) -> None:
    """Holds MLflow's runs to the journal."""
    assert history.ledger.study is not None
    study_id = history.ledger.study.study_id
    assert found.keys() == {study_id, *(f"{study_id}/{number}/0" for number in range(TRIALS))}
    for number, trial in history.ledger.trials.items():
        run = found[f"{study_id}/{number}/0"]
        values = [(int(m.kimg), m.metrics[METRIC]) for m in trial.measurements]
        assert run["metrics"][METRIC] == values
        assert run["status"] == ("FINISHED" if trial.state == "COMPLETED" else "KILLED")
        last = trial.ended_at or last_close(history.journal.found, finished=False).at
        assert run["ended"] == int(last.timestamp() * 1000)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracking, "GATHER_SECONDS", 0.02)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


def read(folder: Path) -> History:
    with History.resume(folder) as history:
        return history


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow') / 'mlflow.db'}"


def test_a_study_without_its_driver_is_delivered_whole_and_once(
    tmp_path: Path, database: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "killed"
    record(folder).close()
    before = (folder / JOURNAL_NAME).read_bytes()
    assert sync.main([str(folder), "--tracking-uri", database]) == 0
    said = capsys.readouterr()
    assert f"has the study's run and all {TRIALS} below it" in said.err
    first = held(database)
    check(first, read(folder))
    assert sync.main([str(folder), "--tracking-uri", database]) == 0
    assert held(database) == first
    assert (folder / JOURNAL_NAME).read_bytes() == before


def test_the_second_time_costs_a_page_and_no_other_call(
    tmp_path: Path, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "twice"
    record(folder, ended=TRIALS, closed=True).close()
    assert sync.sync(folder, database) == []
    calls: list[str] = []
    open_runs = MlflowRuns.open

    def counted(runs: MlflowRuns) -> None:
        open_runs(runs)
        if not isinstance(runs._client, Counted):
            runs._client = Counted(runs._client, calls)

    monkeypatch.setattr(MlflowRuns, "open", counted)
    assert sync.sync(folder, database) == []
    assert calls == []


class Counted:
    """A client that notes what it is called for."""

    def __init__(self, client: Any, calls: list[str]) -> None:
        self._client, self._calls = client, calls

    def __getattr__(self, name: str) -> Any:
        self._calls.append(name)
        return getattr(self._client, name)


def test_a_study_that_a_driver_runs_is_left_to_it(
    tmp_path: Path, database: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with record(tmp_path / "running"):
        assert sync.main([str(tmp_path / "running"), "--tracking-uri", database]) == 2
    said = capsys.readouterr().err
    assert f"process {os.getpid()}" in said
    assert "it delivers by itself, so sync when it has ended" in said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nowhere"], "study.json: is missing"),
        ([], "runs/: must hold a study, but there is none"),
        (["nowhere", "--tracking-uri", "ftp://x"], "the tracking URI must be"),
        (["--tracking-uri", "http://me:secret@host"], "must hold no password"),
        (["--no-such-flag"], "--no-such-flag"),
    ],
)
def test_a_mistake_is_told_in_a_line(
    words: list[str],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert sync.main(words) == 2
    complaint = capsys.readouterr().err
    assert said in complaint
    assert complaint.count("\n") == 1


def test_every_study_in_runs_where_none_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, database: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("one", "two"):
        record(tmp_path / "runs" / name, closed=True).close()
    assert sync.main(["--tracking-uri", database]) == 0
    studies = {key[:3] for key in held(database)}
    assert {"one", "two"} <= studies


def test_what_a_start_that_was_cut_short_left_is_no_study(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    database: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "cut").mkdir(parents=True)
    (tmp_path / "runs" / "cut" / JOURNAL_NAME).touch()
    assert sync.main([]) == 2
    assert "runs/: must hold a study, but there is none" in capsys.readouterr().err
    record(tmp_path / "runs" / "whole", closed=True).close()
    assert sync.main(["--tracking-uri", database]) == 0
    capsys.readouterr()
    assert sync.main(["runs/cut"]) == 2
    assert "nothing to deliver; begin the study, or remove" in capsys.readouterr().err


def test_one_that_runs_is_no_fault_where_none_is_named(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    database: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    record(tmp_path / "runs" / "over", closed=True).close()
    with record(tmp_path / "runs" / "running"):
        assert sync.main(["--tracking-uri", database]) == 0
    assert f"running: left to process {os.getpid()}" in capsys.readouterr().err


class Server:
    """MLflow's server, which dies and comes back with all that it had taken."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port = probe.getsockname()[1]
        self.uri = f"http://127.0.0.1:{self._port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        words = ["--host", "127.0.0.1", "--port", str(self._port), "--workers", "1"]
        words += ["--backend-store-uri", f"sqlite:///{self._folder / 'server.db'}"]
        words += ["--artifacts-destination", str(self._folder / "served")]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "mlflow", "server", *words],
            cwd=self._folder,
            env=os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        while True:  # or pytest-timeout ends it
            with contextlib.suppress(OSError), urlopen(f"{self.uri}/health"):
                return
            time.sleep(0.1)

    def kill(self) -> None:
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)  # its own workers too
            self._process.wait()
            self._process = None


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    found = Server(tmp_path)
    yield found
    found.kill()


@pytest.mark.slow
def test_a_server_that_is_down_then_up_then_killed_between_two_calls(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "study"
    record(folder).close()
    words = [str(folder), "--tracking-uri", server.uri]
    monkeypatch.setattr(sync, "PATIENCE_SECONDS", 1.0)
    assert sync.main(words) == 1

    server.start()
    end = MlflowRuns._end
    ends = 0

    def dies_before(runs: MlflowRuns, *rest: Any) -> None:
        nonlocal ends
        ends += 1
        if ends == 4:
            server.kill()
        end(runs, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(MlflowRuns, "_end", dies_before)
        patch.setattr(sync, "PATIENCE_SECONDS", 15.0)
        assert sync.main(words) == 1
    server.start()
    partly = held(server.uri)
    assert 1 < len(partly) < TRIALS + 1  # what arrived is the beginning of the study
    numbers = sorted(int(key.split("/")[1]) for key in partly if "/" in key)
    assert numbers == list(range(len(numbers)))

    monkeypatch.setattr(sync, "PATIENCE_SECONDS", 60.0)
    assert sync.main(words) == 0
    found = held(server.uri)
    check(found, read(folder))
    assert {key: run["run_id"] for key, run in found.items() if key in partly} == {
        key: run["run_id"] for key, run in partly.items()
    }


def test_a_study_that_was_killed_ends_at_its_last_event(tmp_path: Path) -> None:
    history = record(tmp_path / "x")
    found = history.ledger.trials[TRIALS - 1].measurements[-1]
    history.close()
    events = read(tmp_path / "x").journal.found
    assert last_close(events, finished=False).at == found.at
    assert last_close(events, finished=False).reason == "interrupted"
    assert last_close(events, finished=True).reason == "finished"
    closed = SessionClosed(reason="time_budget")
    assert last_close([*events, closed], finished=True) == closed
    assert json.loads(closed.model_dump_json())["reason"] == "time_budget"
