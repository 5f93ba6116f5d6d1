import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname, urlopen

import pytest
from tiny_events import proposed

from search import tracking
from search.events import (
    Checkpointed,
    Ended,
    EndState,
    Event,
    Measured,
    Replicated,
    Retried,
    SessionClosed,
    SessionOpened,
    Started,
    StudyOpened,
)
from search.ledger import Ledger
from search.mlflow_runs import MlflowRuns
from search.run_painter import RunPainter
from search.run_picture import Dataset
from search.tracking import Tracker
from search.tracking_place import TrackingError, find_place

# MLflow's own models, under the SQLAlchemy that it asks for.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader:DeprecationWarning")

START = datetime(2026, 1, 2, 3, 4, 5, 678000, tzinfo=UTC)
METRIC = "validation_log_likelihood"
DATASET = Dataset(name="digits", digest="d" * 64, source="/data/digits.npz", subset=True)
SUMMARY: dict[str, Any] = {
    "best": {"number": 0, "objective": 101.25, "standard_error": 2.5, "flags": ["suspicious"]},
    "test": {
        "log_likelihood": 99.12345678901234,
        "conditional_log_likelihood": -1.5,
        "standard_error": 2.25,
        "bandwidth": 0.1,
        "num_samples": 5000,
    },
    "references": {"real_data": 241.8, "kmeans": None},
}


DRIVER = """
from search.mlflow_runs import MlflowRuns
from search.tracking_place import find_place
MlflowRuns(find_place(None), "first", "f00d").open()
"""


@pytest.fixture(scope="session")
def two_drivers(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[tuple[str, int]]]:
    """A fresh folder in which two drivers opened MLflow at once, with what they said."""
    folder = tmp_path_factory.mktemp("mlflow")
    drivers = [
        subprocess.Popen(
            [sys.executable, "-c", DRIVER],
            cwd=folder,
            env={k: v for k, v in os.environ.items() if not k.startswith("MLFLOW")},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for _ in range(2)
    ]
    return folder, [(d.communicate(timeout=120)[0], d.returncode) for d in drivers]


@pytest.fixture
def uri(
    tmp_path: Path, two_drivers: tuple[Path, Any], monkeypatch: pytest.MonkeyPatch
) -> Iterator[str]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME", raising=False)
    monkeypatch.setattr(tracking, "GATHER_SECONDS", 0.02)
    folder = tmp_path / "a tracked folder"
    folder.mkdir()
    shutil.copy(two_drivers[0] / "runs" / "mlflow.db", folder)
    yield f"sqlite:///{folder / 'mlflow.db'}"
    assert not (tmp_path / "mlruns").exists()


@dataclass
class FakeStudy:
    """A ledger whose events a tracker hears of, one second after another."""

    uri: str
    output: Path
    study_id: str = "f00d"
    sample_seconds: float = 1e6
    ledger: Ledger = field(default_factory=Ledger)
    problems: list[str] = field(default_factory=list)
    tracker: Tracker | None = None
    seconds: int = 0

    def __post_init__(self) -> None:
        self.append(
            StudyOpened(
                study="digits",
                study_id=self.study_id,
                spec={},
                spec_digest="5",
                dataset_digest=DATASET.digest,
                protocol_digest="9",
                versions={"torch": "2.13.0", "git_commit": "abc"},
                hardware={"cores": 2},
            )
        )

    def append(self, event: Event) -> None:
        self.seconds += 1
        event = event.model_copy(update={"at": START + timedelta(seconds=self.seconds)})
        self.ledger.apply(event)
        if self.tracker:
            self.tracker.handle(event)

    def open(self) -> Tracker:
        self.append(SessionOpened(pid=1))
        assert self.ledger.study is not None
        painter = RunPainter(
            study=self.ledger.study,
            dataset=DATASET,
            metric=METRIC,
            direction="maximize",
            flags=lambda trial: ("blurred",) if trial.number == 0 else (),
            fixed_params={"noise": "uniform", "g_dropout": None},
            output=self.output,
        )
        self.tracker = Tracker(
            self.uri, on_problem=self.problems.append, sample_seconds=self.sample_seconds
        )
        self.tracker.open(self.ledger, painter)
        return self.tracker

    def close(self, reason: Any = "finished") -> list[str]:
        assert self.tracker is not None
        self.append(SessionClosed(reason=reason))
        return self.tracker.close(20.0)

    def propose(self) -> int:
        number = self.ledger.next_number()
        self.append(proposed(number, {"learning_rate": 0.1 / (number + 1)}, "manual"))
        return number

    def start(self, number: int, from_kimg: float = 0.0) -> None:
        attempt = self.ledger.trials[number].first.attempts
        self.append(
            Started(
                number=number, attempt=attempt, from_kimg=from_kimg, node="n", device="cpu", pid=7
            )
        )

    def measure(self, number: int, kimg: float, value: float) -> None:
        metrics = {METRIC: value, "standard_error": 0.5}
        self.append(Measured(number=number, kimg=kimg, elapsed_seconds=kimg / 2, metrics=metrics))

    def run(self, *values: float, state: EndState = "COMPLETED", reason: str | None = None) -> int:
        number = self.propose()
        self.start(number)
        for index, value in enumerate(values):
            self.measure(number, 50.0 * (index + 1), value)
        self.append(Ended(number=number, state=state, reason=reason))
        return number


@pytest.fixture
def study(uri: str, tmp_path: Path) -> FakeStudy:
    return FakeStudy(uri=uri, output=tmp_path / "out")


def held(uri: str, study_id: str = "f00d", experiment: str = "digits") -> dict[str, Any]:
    """Everything MLflow shows of a study, read by its own client, without run IDs."""
    from mlflow.tracking import MlflowClient

    client = MlflowClient(uri)
    found = client.get_experiment_by_name(experiment)
    runs = client.search_runs([found.experiment_id], f"tags.trial_key LIKE '{study_id}%'")
    names = {run.info.run_id: run.data.tags["trial_key"] for run in runs}
    assert len(set(names.values())) == len(runs), "a run was doubled"
    return {names[run.info.run_id]: _facts(client, run, names) for run in runs}


def _facts(client: Any, run: Any, names: dict[str, str]) -> dict[str, Any]:
    run_id = run.info.run_id
    history = {
        key: [(m.step, m.value) for m in client.get_metric_history(run_id, key)]
        for key in run.data.metrics
    }
    folder = Path(url2pathname(urlsplit(run.info.artifact_uri).path))
    files = {str(f.relative_to(folder)) for f in folder.rglob("*") if f.is_file()}
    tags = dict(run.data.tags)
    if "mlflow.parentRunId" in tags:
        tags["mlflow.parentRunId"] = names[tags["mlflow.parentRunId"]]
    datasets = [(d.dataset.name, d.dataset.digest) for d in run.inputs.dataset_inputs]
    return {
        "status": run.info.status,
        "times": (run.info.start_time, run.info.end_time),
        "tags": tags,
        "params": run.data.params,
        "metrics": history,
        "files": files,
        "datasets": datasets,
        "run_id": run_id,
    }


def without_ids(runs: dict[str, Any], study_id: str) -> dict[str, Any]:
    left_out = ("run_id", "times")
    facts = {k: {f: v for f, v in run.items() if f not in left_out} for k, run in runs.items()}
    text = json.dumps(facts, default=sorted, sort_keys=True).replace(study_id, "STUDY")
    plain: dict[str, Any] = json.loads(text)
    return plain


def test_a_run_a_trial_with_the_numbers_of_the_journal(study: FakeStudy) -> None:
    tracker = study.open()
    study.run(-1.23456789012345678, 80.5, 70.25)
    study.run(3.0)
    assert tracker.flush(20.0)
    ids = [tracker.run_ids.get(number) for number in range(3)]
    assert study.close() == []

    runs = held(study.uri)
    assert runs.keys() == {"f00d", "f00d/0/0", "f00d/1/0"}
    assert ids == [runs["f00d/0/0"]["run_id"], runs["f00d/1/0"]["run_id"], None]
    assert tracker.study_run_id == runs["f00d"]["run_id"]
    first = runs["f00d/0/0"]
    assert first["metrics"] == {
        METRIC: [(50, -1.23456789012345678), (100, 80.5), (150, 70.25)],
        "objective": [(50, -1.23456789012345678), (100, 80.5), (150, 80.5)],
        "standard_error": [(50, 0.5), (100, 0.5), (150, 0.5)],
        "kimg": [(50, 50.0), (100, 100.0), (150, 150.0)],
        "elapsed_seconds": [(50, 25.0), (100, 50.0), (150, 75.0)],
    }
    assert first["params"] == {"learning_rate": "0.1", "noise": "uniform", "g_dropout": "null"}
    wanted = {
        "mlflow.parentRunId": "f00d",
        "mlflow.source.git.commit": "abc",
        "number": "0",
        "stage": "manual",
        "state": "COMPLETED",
        "seed": "0",
        "dataset": "digits",
        "dataset_digest": "d" * 64,
        "dataset_subset": "true",
        "protocol_digest": "9",
        "version.torch": "2.13.0",
        "hardware.cores": "2",
        "device": "cpu",
        "flags": "blurred",
    }
    assert first["tags"].items() >= wanted.items()
    assert first["datasets"] == runs["f00d"]["datasets"] == [("digits", "d" * 16)]
    assert "mlflow.parentRunId" not in runs["f00d"]["tags"]
    assert study.problems == []


def test_times_are_those_of_the_events(study: FakeStudy) -> None:
    from mlflow.tracking import MlflowClient

    study.open()
    study.run(1.0)
    study.close()
    run = held(study.uri)["f00d/0/0"]
    trial = study.ledger.trials[0]
    assert trial.ended_at is not None
    ends = [int(at.timestamp() * 1000) for at in (trial.proposed_at, trial.ended_at)]
    assert list(run["times"]) == ends
    (point,) = MlflowClient(study.uri).get_metric_history(run["run_id"], METRIC)
    assert point.timestamp == int(trial.measurements[0].at.timestamp() * 1000)


@pytest.mark.parametrize(
    ("state", "reason", "status"),
    [
        ("COMPLETED", None, "FINISHED"),
        ("STOPPED", "time_budget", "FINISHED"),
        ("INFEASIBLE", "loss is nan at 12 kimg", "FAILED"),
        ("FAILED", "x" * 10_000, "FAILED"),
    ],
)
def test_state_of_a_trial(
    study: FakeStudy, state: EndState, reason: str | None, status: str
) -> None:
    study.open()
    study.run(1.0, state=state, reason=reason)
    study.close()
    run = held(study.uri)["f00d/0/0"]
    assert (run["status"], run["tags"]["state"]) == (status, state)
    assert run["tags"].get("reason") == (reason and reason[:4000])


@pytest.mark.parametrize(
    ("reason", "status"),
    [
        ("finished", "FINISHED"),
        ("time_budget", "FINISHED"),
        ("interrupted", "KILLED"),
        ("failed", "FAILED"),
    ],
)
def test_status_of_the_study(study: FakeStudy, reason: str, status: str) -> None:
    study.open()
    study.propose()
    study.close(reason)
    runs = held(study.uri)
    assert (runs["f00d"]["status"], runs["f00d/0/0"]["status"]) == (status, "KILLED")


def test_an_interrupted_study_goes_on_in_the_same_runs(study: FakeStudy) -> None:
    study.open()
    study.run(1.0)
    number = study.propose()
    study.start(number)
    study.measure(number, 50.0, 2.0)
    study.append(Checkpointed(number=number, kimg=50.0, path="c"))
    assert study.tracker is not None
    study.tracker.close()  # no SessionClosed: still nothing is left RUNNING
    before = held(study.uri)
    assert [before[k]["status"] for k in sorted(before)] == ["KILLED", "FINISHED", "KILLED"]

    tracker = study.open()
    study.start(number, from_kimg=50.0)
    assert tracker.flush(20.0)
    assert held(study.uri)["f00d/1/0"]["status"] == "RUNNING"
    study.measure(number, 100.0, 3.0)
    study.append(Ended(number=number, state="COMPLETED"))
    study.close()
    after = held(study.uri)
    assert {k: f["run_id"] for k, f in after.items()} == {
        k: f["run_id"] for k, f in before.items()
    }
    assert after["f00d/1/0"]["metrics"][METRIC] == [(50, 2.0), (100, 3.0)]
    assert {f["status"] for f in after.values()} == {"FINISHED"}


def test_what_a_lost_attempt_measured_past_its_checkpoint_is_not_shown(study: FakeStudy) -> None:
    tracker = study.open()
    number = study.propose()
    study.start(number)
    study.measure(number, 50.0, 1.0)
    study.append(Checkpointed(number=number, kimg=50.0, path="c"))
    study.measure(number, 100.0, 99.0)
    assert tracker.flush(20.0)
    study.append(Retried(number=number, cause="the machine died"))
    study.start(number, from_kimg=50.0)
    study.measure(number, 100.0, 2.0)
    study.append(Ended(number=number, state="COMPLETED"))
    study.close()
    run = held(study.uri)["f00d/0/0"]
    assert run["metrics"][METRIC] == [(50, 1.0), (100, 2.0)]
    assert run["tags"]["retries"] == "1"


def test_fractions_of_a_kimg_share_a_step_but_stay_apart(study: FakeStudy) -> None:
    study.open()
    number = study.propose()
    study.start(number)
    for kimg in (0.6, 1.0, 1.4, 1.5):
        study.measure(number, kimg, kimg)
    study.close()
    kimg_history = held(study.uri)["f00d/0/0"]["metrics"]["kimg"]
    assert kimg_history == [(1, 0.6), (1, 1.0), (1, 1.4), (2, 1.5)]


def write_artifacts(output: Path) -> Path:
    best = output / "best"
    for folder in (output / "samples" / "0", output / "points", best):
        folder.mkdir(parents=True)
    for name in ("samples/0/50.png", "samples/0/100.0.png", "samples/0/150.png"):
        (output / name).write_bytes(name.encode())
    (output / "points" / "0-0.parquet").write_bytes(b"points")
    (output / "study.json").write_text("{}")
    (output / "summary.json").write_text(json.dumps(SUMMARY))
    (best / "model.safetensors").write_bytes(b"model")
    (best / "config.json").write_text("{}")
    return best


def test_artifacts_and_the_outcome(study: FakeStudy, tmp_path: Path) -> None:
    from mlflow.tracking import MlflowClient

    best = write_artifacts(study.output)
    tracker = study.open()
    study.run(90.0, 101.25)
    study.run(3.0)
    tracker.log_outcome(SUMMARY, best)
    study.close()

    runs = held(study.uri)
    parent, winner, loser = (runs[key] for key in ("f00d", "f00d/0/0", "f00d/1/0"))
    # 150 kimg was never measured: a worker may still be writing that file.
    pictures = {"samples/50.png", "samples/100.0.png"}
    assert winner["files"] == {"points.parquet"} | pictures
    assert loser["files"] == set()
    assert parent["files"] == {
        "study.json",
        "summary.json",
        "best/model.safetensors",
        "best/config.json",
    }
    client = MlflowClient(study.uri)
    (tmp_path / "back").mkdir()
    copy = client.download_artifacts(parent["run_id"], "best", str(tmp_path / "back"))
    assert Path(copy, "model.safetensors").read_bytes() == b"model"
    assert json.loads(winner["tags"]["config"])["learning_rate"] == 0.1
    assert Path(find_place(study.uri).artifacts or "").name == "artifacts"
    assert (tmp_path / "a tracked folder" / "artifacts").is_dir()

    test = {f"test_{key}": [(0, value)] for key, value in SUMMARY["test"].items()}
    assert winner["metrics"].items() >= test.items()
    assert not loser["metrics"].keys() & test.keys()
    assert parent["metrics"] == test | {
        "best_number": [(0, 0.0)],
        "best_objective": [(0, 101.25)],
        "best_standard_error": [(0, 2.5)],
        "reference_real_data": [(0, 241.8)],
    }

    study.open().log_outcome(SUMMARY, best)
    study.close()
    again = held(study.uri)
    assert again["f00d"].pop("times") != runs["f00d"].pop("times")  # it was closed once more
    assert again == runs


class FlakyClient:
    """MLflow's client, whose calls fail from one on: before they arrive, or after."""

    calls = 0
    failing: range = range(0)
    arrives = False

    def __init__(self, client: Any) -> None:
        self._client = client

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            index = FlakyClient.calls
            FlakyClient.calls += 1
            if index not in FlakyClient.failing:
                return getattr(self._client, name)(*args, **kwargs)
            if FlakyClient.arrives:
                getattr(self._client, name)(*args, **kwargs)
            raise ConnectionError(f"call {index} failed")

        return call


@pytest.fixture
def flaky(monkeypatch: pytest.MonkeyPatch) -> type[FlakyClient]:
    from mlflow.tracking import MlflowClient

    monkeypatch.setattr(
        "mlflow.tracking.MlflowClient", lambda *args, **kw: FlakyClient(MlflowClient(*args, **kw))
    )
    FlakyClient.failing, FlakyClient.arrives, FlakyClient.calls = range(0), False, 0
    return FlakyClient


def live(study: FakeStudy, best: Path, flaky: type[FlakyClient], failing: range) -> dict[str, Any]:
    """One trial and its outcome, while some of MLflow's calls fail; if for long, a kill -9 too."""
    lasting = len(failing) > 1
    flaky.calls, flaky.failing = 0, failing
    tracker = study.open()
    number = study.propose()
    study.start(number)
    study.measure(number, 50.0, 101.25)
    tracker.flush(0.05 if lasting else 20.0)
    study.measure(number, 100.0, 2.0)
    study.append(Ended(number=number, state="COMPLETED"))
    tracker.log_outcome(SUMMARY, best)
    if lasting:
        tracker.close(0.02)  # the journal hears nothing of it
        tracker._thread.join()
        flaky.failing, study.tracker = range(0), None
        study.open().log_outcome(SUMMARY, best)
    assert study.close() == []
    flaky.failing = range(0)
    return without_ids(held(study.uri, study.study_id), study.study_id)


@pytest.mark.slow
@pytest.mark.parametrize("killed", [True, False])
def test_a_fault_at_any_call_doubles_nothing(
    study: FakeStudy, flaky: type[FlakyClient], killed: bool
) -> None:
    """Either the driver is killed before the call, or only the call's answer is lost."""
    best = write_artifacts(study.output)
    flaky.arrives = not killed
    wanted = live(study, best, flaky, range(0))
    calls = flaky.calls
    assert calls > 10
    for first in range(0, calls, 1 if killed else 2):
        again = FakeStudy(uri=study.uri, output=study.output, study_id=f"call{first:03d}")
        found = live(again, best, flaky, range(first, 10**6 if killed else first + 1))
        assert found == wanted, f"after a fault at call {first}"


def test_the_driver_never_waits_for_a_slow_mlflow(
    study: FakeStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    mirror = MlflowRuns.mirror

    def slow(runs: MlflowRuns, picture: Any) -> str:
        time.sleep(0.3)
        return mirror(runs, picture)

    monkeypatch.setattr(MlflowRuns, "mirror", slow)
    study.open()
    began = time.perf_counter()
    for _ in range(4):
        study.run(*map(float, range(100)))
    assert time.perf_counter() - began < 0.3
    assert study.close() == []
    runs = held(study.uri)
    assert len(runs) == 5
    assert len(runs["f00d/3/0"]["metrics"][METRIC]) == 100


def test_a_long_course_takes_few_batches(study: FakeStudy, flaky: type[FlakyClient]) -> None:
    number = study.propose()
    study.append(SessionOpened(pid=1))
    study.start(number)
    for index in range(600):
        study.measure(number, float(index), 1.0)
    assert study.open().flush(20.0)
    assert flaky.calls < 20
    assert study.close() == []
    assert len(held(study.uri)["f00d/0/0"]["metrics"]["kimg"]) == 600


def test_a_run_of_a_new_study_takes_four_calls(uri: str, tmp_path: Path, flaky: Any) -> None:
    calls = []
    for count in (2, 7):
        study = FakeStudy(uri=uri, output=tmp_path / "out", study_id=f"study{count}")
        study.append(SessionOpened(pid=1))
        for _ in range(count):
            study.run(1.0, 2.0)
        flaky.calls = 0
        study.open()
        assert study.close() == []
        calls.append(flaky.calls)
        assert len(held(uri, study.study_id)) == count + 1
    # create_run, log_batch, log_inputs, set_terminated
    assert calls[1] - calls[0] <= 5 * 4  # the first made the experiment too


def test_what_is_known_of_a_run_is_forgotten_when_it_has_ended(study: FakeStudy) -> None:
    tracker = study.open()
    for _ in range(3):
        study.run(1.0)
    unfinished = study.propose()
    assert tracker.flush(20.0)
    assert tracker._runs._known.keys() == {"f00d", f"f00d/{unfinished}/0"}
    study.append(Replicated(number=0, replicate=1, purpose="race", seed=1, fold=None))
    assert study.close() == []
    assert held(study.uri)["f00d/0/0"]["metrics"][METRIC] == [(50, 1.0)]


def test_of_two_runs_of_a_trial_one_is_left(study: FakeStudy) -> None:
    """Where the creation of a run arrives after it was given up and asked for again."""
    from mlflow.tracking import MlflowClient

    study.open()
    study.run(1.0)
    assert study.close() == []
    client = MlflowClient(study.uri)
    experiment = client.get_experiment_by_name("digits")
    assert experiment is not None
    for key in ("f00d", "f00d/0/0"):
        client.create_run(experiment.experiment_id, tags={"trial_key": key})
    study.open()
    study.run(2.0)
    assert study.close() == []
    found = client.search_runs([experiment.experiment_id])
    keys = sorted(run.data.tags["trial_key"] for run in found)
    assert keys == ["f00d", "f00d/0/0", "f00d/1/0"]
    assert {run.info.status for run in found} <= {"FINISHED", "KILLED"}


def test_one_trial_that_mlflow_refuses_does_not_hold_up_the_others(
    study: FakeStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw = RunPainter.draw_trial

    def draw_badly(painter: RunPainter, trial: Any, *rest: Any) -> Any:
        if trial.number == 1:
            raise ValueError("no such colour\nat all")
        return draw(painter, trial, *rest)

    monkeypatch.setattr(RunPainter, "draw_trial", draw_badly)
    tracker = study.open()
    for _ in range(3):
        study.run(1.0)
    study.append(SessionClosed(reason="finished"))
    while tracker.left != ["trial 1"]:  # or pytest-timeout ends it
        assert not tracker.flush(0.1)
    assert tracker.close(0.1) == ["trial 1"]
    assert held(study.uri).keys() == {"f00d", "f00d/0/0", "f00d/2/0"}
    first, last = study.problems
    assert "(ValueError: no such colour); it is tried again" in first
    assert "did not take 1 runs to the end (trial 1); nothing is lost: `python" in last


def test_a_server_that_is_away_is_told_and_nothing_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.chdir(tmp_path)
    study = FakeStudy(uri="http://me:secret@127.0.0.1:9", output=tmp_path)
    tracker = study.open()
    study.run(1.0)
    assert not tracker.flush(0.5)
    assert tracker.run_ids == {}
    study.append(SessionClosed(reason="finished"))
    assert tracker.close(0.5) == ["the study", "trial 0"]
    assert len(study.problems) == 2
    assert "MLflow at http://127.0.0.1:9 does not take runs" in study.problems[0]
    assert "secret" not in study.problems[0] + tracker.uri
    assert list(tmp_path.iterdir()) == []
    tracker._thread.join()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--workers", "1"]
    where = ["--port", str(port), "--backend-store-uri", f"sqlite:///{tmp_path / 'server.db'}"]
    process = subprocess.Popen(
        [*command, *where, "--artifacts-destination", str(tmp_path / "served")],
        cwd=tmp_path,
        env=os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        uri = f"http://127.0.0.1:{port}"
        for _ in range(300):
            with contextlib.suppress(OSError), urlopen(f"{uri}/health"):
                break
            time.sleep(0.2)
        yield uri
    finally:
        os.killpg(process.pid, signal.SIGKILL)  # its own workers too
        process.wait()


@pytest.mark.slow
def test_a_server_gets_the_same_and_nothing_is_printed(
    server: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    study = FakeStudy(uri=server, output=tmp_path / "out")
    best = write_artifacts(study.output)
    tracker = study.open()
    study.run(90.0, 101.25)
    tracker.log_outcome(SUMMARY, best)
    assert study.close() == []
    winner = held(server)["f00d/0/0"]
    assert winner["metrics"][METRIC] == [(50, 90.0), (100, 101.25)]
    assert winner["metrics"]["test_log_likelihood"] == [(0, SUMMARY["test"]["log_likelihood"])]
    assert winner["status"] == "FINISHED"
    assert {f.name for f in (tmp_path / "served").rglob("*.png")} == {"50.png", "100.0.png"}
    assert (*capfd.readouterr(), study.problems) == ("", "", [])


def test_the_load_of_the_machine_is_on_the_parent_run(study: FakeStudy) -> None:
    study.sample_seconds = 0.05
    study.open()
    time.sleep(1.0)
    study.close()
    metrics = held(study.uri)["f00d"]["metrics"]
    assert len(metrics["system/cpu_utilization_percentage"]) >= 2
    assert 0.0 < metrics["system/system_memory_usage_percentage"][-1][1] <= 100.0


def test_the_experiment_can_be_named_by_the_environment(
    study: FakeStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "mine")
    study.open()
    study.close()
    assert held(study.uri, experiment="mine").keys() == {"f00d"}


def test_two_studies_may_create_one_database_and_say_nothing(
    two_drivers: tuple[Path, list[tuple[str, int]]],
) -> None:
    from mlflow.tracking import MlflowClient

    folder, said = two_drivers
    assert said == [("", 0), ("", 0)]
    runs = folder / "runs"
    assert {file.name for file in folder.rglob("*")} == {"runs", "mlflow.db", "mlflow.db.lock"}
    experiments = MlflowClient(f"sqlite:///{runs / 'mlflow.db'}").search_experiments()
    places = {e.name: e.artifact_location for e in experiments}
    assert places.keys() == {"Default", "first"}
    assert places["first"] == (runs / "artifacts").as_uri()


@pytest.mark.parametrize(
    ("given", "uri", "artifacts"),
    [
        (None, "sqlite:///{here}/runs/mlflow.db", "file://{here}/runs/artifacts"),
        ("sqlite:///x/y.db", "sqlite:///{here}/x/y.db", "file://{here}/x/artifacts"),
        ("sqlite:////z/y.db?timeout=9", "sqlite:////z/y.db?timeout=9", "file:///z/artifacts"),
        ("https://host:5000/ml", "https://host:5000/ml", None),
        ("postgresql://db/ml", "postgresql://db/ml", "file://{here}/runs/artifacts"),
    ],
)
@pytest.mark.parametrize("by_environment", [False, True])
def test_where_runs_go(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    given: str | None,
    uri: str,
    artifacts: str | None,
    by_environment: bool,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", given or "" if by_environment else "")
    place = find_place(None if by_environment else given)
    assert place.uri == uri.format(here=tmp_path)
    assert place.artifacts == (artifacts and artifacts.format(here=tmp_path))


@pytest.mark.parametrize(
    "uri", ["./mlruns", "file:///x", "sqlite://", "sqlite:///:memory:", "http://", "databricks"]
)
def test_a_place_that_keeps_no_runs_is_refused(uri: str) -> None:
    with pytest.raises(TrackingError, match=r"the tracking URI must .* but got .*sqlite:///"):
        Tracker(uri, on_problem=print)
