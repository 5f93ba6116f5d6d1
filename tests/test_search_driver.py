"""A whole study on a user's own small data, in one real Ray; and one that is cut short often."""

import functools
import json
import math
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from mlflow.tracking import MlflowClient
from tiny_study import content, write_npz, write_space

from search import run_study
from search.command_line import DONE
from search.events import Event, Proposed, Retried, RunKey, SessionOpened, Started
from search.history import JOURNAL_NAME
from search.journal import Journal, JournalExists
from search.ledger import Ledger
from search.requests import Enqueue, ask, waiting
from search.run import main
from search.screen import Screen
from search.stop_request import StudyInterrupted
from search.study import StudySpec
from search.study_file import StudyError
from search.summary import describe_summary
from search.trial_run import Progress

pytestmark = pytest.mark.ray

TERMINAL = {"COMPLETED", "STOPPED", "INFEASIBLE", "FAILED"}
SUMMARY_KEYS = {
    "study",
    "trials",
    "constraints",
    "measurements",
    "best",
    "confirmed",
    "test",
    "references",
    "elapsed_seconds",
    "tracking_uri",
    "dataset",
}


def read(output: Path) -> Ledger:
    return Ledger(Journal.read(output / JOURNAL_NAME))


def runs_of(uri: str, study: str = "tiny") -> list[Any]:
    client = MlflowClient(uri, registry_uri=uri)
    experiment = client.get_experiment_by_name(study)
    assert experiment is not None
    return list(client.search_runs([experiment.experiment_id]))


def assert_whole(output: Path, trials: int) -> Ledger:
    """Every planned trial once and ended, no gap, a finite course each."""
    ledger = read(output)
    assert list(ledger.trials) == list(range(trials))
    assert len(ledger.cells) == trials
    assert {trial.state for trial in ledger.trials.values()} <= TERMINAL
    assert not ledger.session_open
    return ledger


@dataclass(frozen=True)
class Finished:
    """A study that ran to its end, and where."""

    spec: StudySpec
    output: Path
    uri: str
    summary: dict[str, Any]


@pytest.fixture(scope="module")
def finished(local_ray: None, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    folder = tmp_path_factory.mktemp("finished")
    before = Path.cwd()
    os.chdir(folder)  # the workers were started elsewhere, and still find what is named so
    try:
        write_npz(folder / "tiny.npz")
        spec = StudySpec.from_mapping(content(Path("tiny.npz")))
        uri = f"sqlite:///{folder / 'mlflow.db'}"
        summary = run_study(spec, "out", tracking_uri=uri, progress=False)
    finally:
        os.chdir(before)
    return Finished(spec, folder / "out", uri, summary)


def test_the_summary_says_what_others_rely_on(finished: Finished) -> None:
    summary = finished.summary
    assert json.loads((finished.output / "summary.json").read_text()) == summary
    assert summary.keys() >= SUMMARY_KEYS
    assert summary["trials"].keys() == {"completed", "stopped", "infeasible", "failed"}
    assert sum(summary["trials"].values()) == 5
    assert summary["stages"] == {
        "manual": 2,
        "random_grid": 2,
        "full_grid": 0,
        "model": 1,
        "enqueued": 0,
    }
    assert summary["best"].keys() >= {
        *("number", "stage", "params", "objective", "standard_error", "run_id", "flags")
    }
    assert summary["confirmed"] is None
    assert summary["test"].keys() >= {
        *("log_likelihood", "standard_error", "conditional_log_likelihood"),
        *("bandwidth", "num_samples", "num_points"),
    }
    assert summary["references"].keys() == {
        *("real_data", "kmeans", "label_shuffled", "class_means", "untrained")
    }
    numbers = [*summary["references"].values(), *summary["test"].values()]
    assert all(math.isfinite(number) for number in numbers)
    assert summary["dataset"].keys() >= {"name", "digest", "subset"}
    assert summary["tracking_uri"] == finished.uri
    assert summary["elapsed_seconds"] > 0


def test_the_same_numbers_everywhere(finished: Finished) -> None:
    summary = finished.summary
    words = describe_summary(summary, finished.output)
    runs = {run.info.run_id: run for run in runs_of(finished.uri)}
    winner = runs[summary["best"]["run_id"]]
    parent = runs[winner.data.tags["mlflow.parentRunId"]]
    for name in ("log_likelihood", "standard_error", "conditional_log_likelihood"):
        value = summary["test"][name]
        for run in (winner, parent):
            assert run.data.metrics[f"test_{name}"] == value
        assert f"{value:.2f}" in words
    for name, value in summary["references"].items():
        assert parent.data.metrics[f"reference_{name}"] == value
        assert f"{value:9.2f}" in words
    assert len(runs) == 1 + 5
    assert {run.info.status for run in runs.values()} == {"FINISHED"}
    children = [run for run in runs.values() if run is not parent]
    assert {run.data.tags["mlflow.parentRunId"] for run in children} == {parent.info.run_id}


def test_the_record_holds_every_trial_and_measurement(finished: Finished) -> None:
    trials = pq.read_table(finished.output / "trials.parquet")
    assert {
        *("number", "stage", "state", "params.learning_rate", "params.d_dropout", "objective"),
        *("standard_error", "replicates", "elapsed_seconds", "total_kimg", "run_id", "reason"),
        *("flags", "started_at", "ended_at", "node", "device", "retries"),
        *("dataset_digest", "protocol_digest"),
    } <= {*trials.column_names}
    rows = trials.to_pylist()
    assert [row["number"] for row in rows] == [0, 1, 2, 3, 4]
    assert len({(row["params.learning_rate"], row["params.d_dropout"]) for row in rows}) == 5
    assert {row["run_id"] for row in rows} <= {run.info.run_id for run in runs_of(finished.uri)}
    best = rows[finished.summary["best"]["number"]]
    assert best["objective"] == finished.summary["best"]["objective"]
    measured = pq.read_table(finished.output / "measurements.parquet").to_pylist()
    expected = {
        (trial.number, m.kimg)
        for trial in read(finished.output).trials.values()
        for m in trial.measurements
    }
    assert {(row["number"], row["kimg"]) for row in measured} == expected
    for row in measured:
        assert (finished.output / f"samples/{row['number']}/{row['kimg']:g}.png").exists()
        assert (finished.output / f"points/{row['number']}-0.parquet").exists()
    study = json.loads((finished.output / "study.json").read_text())
    assert StudySpec.from_mapping(study["spec"]) == finished.spec
    assert study["dataset_digest"] == finished.summary["dataset"]["digest"]


def test_the_winner_can_be_used(finished: Finished, tmp_path: Path) -> None:
    best = finished.output / "best"
    assert {path.name for path in best.iterdir()} == {
        *("model.safetensors", "config.json", "samples.png")
    }
    words = [str(best), "--condition", "2", "--count", "4", "--out", str(tmp_path / "grid.png")]
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "cgan_core.generate", *words],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert (tmp_path / "grid.png").stat().st_size > 0


def test_a_finished_study_is_only_read(
    finished: Finished, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(JournalExists, match="recorded here already"):
        run_study(finished.spec, finished.output, tracking_uri=finished.uri)
    journal = (finished.output / JOURNAL_NAME).read_bytes()
    capfd.readouterr()
    again = run_study(
        finished.spec, finished.output, resume=True, tracking_uri=finished.uri, progress=False
    )
    assert again == finished.summary
    assert (finished.output / JOURNAL_NAME).read_bytes() == journal
    assert capfd.readouterr() == ("", "")
    other = finished.spec.model_copy(update={"seed": 4})
    with pytest.raises(StudyError, match="seed: was 3, is now 4"):
        run_study(other, finished.output, resume=True, tracking_uri=finished.uri)


def test_a_finished_study_can_be_extended(
    finished: Finished, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(finished.output.parent)
    told, meanwhile = Screen.event, []

    def look(self: Screen, event: Event) -> None:
        meanwhile.append(json.loads((finished.output / "summary.json").read_text()))
        told(self, event)

    monkeypatch.setattr(Screen, "event", look)
    summary = run_study(
        finished.spec,
        finished.output,
        resume=True,
        tracking_uri=finished.uri,
        extra_trials=2,
        progress=False,
    )
    assert_whole(finished.output, 7)
    assert len(meanwhile) > 2
    assert all(shown == finished.summary for shown in meanwhile[:-1])  # the last closes the study
    assert sum(summary["trials"].values()) == 7
    assert summary["stages"] == {
        "manual": 2,
        "random_grid": 2,
        "full_grid": 0,
        "model": 3,
        "enqueued": 0,
    }
    assert json.loads((finished.output / "summary.json").read_text()) == summary
    assert summary["elapsed_seconds"] > finished.summary["elapsed_seconds"]
    statuses = [run.info.status for run in runs_of(finished.uri)]
    assert statuses == ["FINISHED"] * 8


def test_a_finished_study_takes_up_what_was_asked_since(
    finished: Finished, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(finished.output.parent)
    before = len(read(finished.output).trials)
    point = {"learning_rate": 0.03, "d_dropout": 0.25}
    ask(finished.output, Enqueue(params=point))
    summary = run_study(
        finished.spec, finished.output, resume=True, tracking_uri=finished.uri, progress=False
    )
    trial = assert_whole(finished.output, before + 1).trials[before]
    assert (trial.stage, trial.params) == ("enqueued", point)
    assert summary["stages"]["enqueued"] == 1
    assert waiting(finished.output) == []
    assert [run.data.tags.get("stage") for run in runs_of(finished.uri)].count("enqueued") == 1


@pytest.mark.usefixtures("local_ray")
def test_conditions_that_are_vectors_and_no_conditions(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    short = {"kimg_per_trial": 0.2, "measure_kimg": 0.2, "trials": 1}
    for kind in ("vectors", "none"):
        file = write_npz(tmp_path / f"{kind}.npz", kind)
        spec = StudySpec.from_mapping(
            content(file, study=kind, budget=short, scheduler={"kind": "none"})
        )
        capfd.readouterr()
        uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
        summary = run_study(spec, tmp_path / kind, tracking_uri=uri, progress=False)
        assert capfd.readouterr() == ("", "")
        assert summary["trials"]["completed"] == 1
        if summary["best"] is None:  # as may be after so little training
            assert summary["test"] is summary["references"] is None
            assert not (tmp_path / kind / "best").exists()
        else:
            entries = summary["test"] | summary["references"]
            for name in ("conditional_log_likelihood", "label_shuffled", "label_accuracy"):
                assert entries[name] is None
        assert kind in describe_summary(summary, tmp_path / kind)


@pytest.mark.usefixtures("local_ray")
def test_a_time_budget_that_is_too_short_is_a_normal_end(tmp_path: Path) -> None:
    budget = {"kimg_per_trial": 400, "measure_kimg": 0.2, "trials": 5, "time": 4.0}
    spec = StudySpec.from_mapping(
        content(write_npz(tmp_path / "tiny.npz"), budget=budget, scheduler={"kind": "none"})
    )
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    run_study(spec, tmp_path / "out", tracking_uri=uri, progress=False)
    trials = read(tmp_path / "out").trials.values()
    assert {(trial.state, trial.reason) for trial in trials} <= {("STOPPED", "time_budget")}
    assert "RUNNING" not in {run.info.status for run in runs_of(uri)}


@pytest.mark.usefixtures("local_ray")
def test_a_time_budget_without_a_measurement_is_a_normal_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    budget = {"kimg_per_trial": 4000, "measure_kimg": 4000, "trials": 5, "time": 3.0}
    write_space(tmp_path, budget=budget, scheduler={"kind": "none"})
    before = signal.getsignal(signal.SIGTERM)
    code = main(["tiny.yaml", "--output", "out"])
    signal.signal(signal.SIGTERM, before)
    assert code == DONE
    assert "no winner: the time budget ended before any measurement" in capfd.readouterr().out
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["measurements"] == 0
    assert not read(tmp_path / "out").session_open


@pytest.mark.usefixtures("local_ray")
def test_a_killed_process_is_replaced_and_a_terminated_study_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process is that of the journal; what the trial had saved is not trained again."""
    output, uri = tmp_path / "out", f"sqlite:///{tmp_path / 'mlflow.db'}"
    sent: dict[int, int] = {}

    def send(self: Screen, key: RunKey, progress: Progress) -> None:
        number = key.number
        if progress.kimg >= 2 and not sent:
            sent[signal.SIGKILL] = number
            os.kill(_pid(output, number), signal.SIGKILL)
        elif number >= 2 and progress.kimg >= 2 and len(sent) == 1:
            sent[signal.SIGTERM] = number
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(Screen, "progress", send)
    budget = {"kimg_per_trial": 4.0, "measure_kimg": 1.0, "trials": 4}
    spec = StudySpec.from_mapping(
        content(write_npz(tmp_path / "tiny.npz"), budget=budget, scheduler={"kind": "none"})
    )
    with pytest.raises(StudyInterrupted):
        run_study(spec, output, tracking_uri=uri, progress=False)
    assert read(output).unfinished()
    assert not (output / "summary.json").exists()
    run_study(spec, output, resume=True, tracking_uri=uri, progress=False)
    ledger = assert_whole(output, 4)
    assert {trial.state for trial in ledger.trials.values()} == {"COMPLETED"}
    for trial in ledger.trials.values():
        assert [m.kimg for m in trial.measurements] == [1, 2, 3, 4]
    events = [e for e in Journal.read(output / JOURNAL_NAME) if isinstance(e, Retried | Started)]
    mine = [event for event in events if event.number == sent[signal.SIGKILL]][:3]
    assert [type(event) for event in mine] == [Started, Retried, Started]
    assert isinstance(mine[2], Started)
    assert mine[2].from_kimg >= 1
    assert {run.info.status for run in runs_of(uri)} == {"FINISHED"}


def _pid(output: Path, number: int) -> int:
    starts = [e for e in Journal.read(output / JOURNAL_NAME) if isinstance(e, Started)]
    return next(event.pid for event in reversed(starts) if event.number == number)


# The study that is cut short: a few seconds a trial, so that every signal falls in the middle.
SLOW = {"kimg_per_trial": 8.0, "measure_kimg": 1.0, "trials": 5}


class Command:
    """One run of the command line in a folder of its own; files hold what it prints."""

    def __init__(self, folder: Path, words: str, name: str) -> None:
        self.out, self.err = folder / f"{name}.out", folder / f"{name}.err"
        keep = {k: v for k, v in os.environ.items() if k not in ("RAY_ADDRESS",)}
        with self.out.open("w") as out, self.err.open("w") as err:
            self.process = subprocess.Popen(
                shlex.split(words),
                cwd=folder,
                stdout=out,
                stderr=err,
                env=keep | {"OMP_NUM_THREADS": "1"},
                start_new_session=True,  # a group of its own, as a terminal gives
            )

    def wait_until(self, happened: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 200
        while not happened():
            assert self.process.poll() is None, self.err.read_text()
            assert time.monotonic() < deadline, self.err.read_text()
            time.sleep(0.02)

    def end(self) -> int:
        try:
            return self.process.wait(200)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            raise

    def printed_command(self) -> str:
        """The last command that the user was told."""
        found = re.findall(r"^.*?(\S*python\S* -m search\.run .*)$", self.err.read_text(), re.M)
        return str(found[-1])


def measured(folder: Path) -> int:
    path = folder / "out" / JOURNAL_NAME
    return path.read_bytes().count(b'"event":"measured"') if path.exists() else 0


def has_measured(folder: Path, times: int) -> bool:
    return measured(folder) >= times


@pytest.mark.slow
@pytest.mark.timeout(600)  # four drivers, one after another
def test_a_study_that_is_cut_short_again_and_again(tmp_path: Path) -> None:
    """Ctrl-C before the first event, `timeout` half way, kill -9 half way: nothing is lost."""
    write_space(tmp_path, budget=SLOW, scheduler={"kind": "none"}, data={"path": "tiny.npz"})
    words = f"{sys.executable} -m search.run tiny.yaml --output out --address local --json"

    first = Command(tmp_path, words, "early")
    journal = tmp_path / "out" / JOURNAL_NAME
    first.wait_until(journal.exists)
    os.killpg(first.process.pid, signal.SIGINT)  # to all of the group, as a terminal does
    assert first.end() == 130, first.err.read_text()
    assert not journal.parent.exists()
    command = first.printed_command()

    for name, code in (("timeout", 130), ("kill", -signal.SIGKILL)):
        cut = Command(tmp_path, command, name)
        cut.wait_until(functools.partial(has_measured, tmp_path, measured(tmp_path) + 4))
        if code == 130:  # to all of the group, Ray among them, as `timeout` does
            os.killpg(cut.process.pid, signal.SIGTERM)
        else:
            cut.process.kill()
        assert cut.end() == code, cut.err.read_text()
        assert cut.out.read_text() == ""
        assert "Traceback" not in cut.err.read_text()
        command = cut.printed_command()
        assert command.endswith("--json --resume")
        left = read(tmp_path / "out")
        assert left.session_open == (code != 130)
        assert any(trial.checkpoint for trial in left.unfinished())

    last = Command(tmp_path, command, "last")
    assert last.end() == 0, last.err.read_text()
    assert json.loads(last.out.read_text()) == json.loads(
        (tmp_path / "out" / "summary.json").read_text()
    )
    _check_cut_study(tmp_path, left)


def _check_cut_study(folder: Path, before_last: Ledger) -> None:
    ledger = assert_whole(folder / "out", 5)
    assert ledger.count_by_stage() == {
        "manual": 2,
        "random_grid": 2,
        "full_grid": 0,
        "model": 1,
        "enqueued": 0,
    }
    assert {trial.state for trial in ledger.trials.values()} == {"COMPLETED"}
    for trial in ledger.trials.values():
        assert [m.kimg for m in trial.measurements] == [float(k) for k in range(1, 9)]
    events = Journal.read(folder / "out" / JOURNAL_NAME)
    assert sum(isinstance(event, Proposed) for event in events) == 5
    sessions = [at for at, event in enumerate(events) if isinstance(event, SessionOpened)]
    assert len(sessions) == 3
    starts = {e.number: e.from_kimg for e in events[sessions[-1] :] if isinstance(e, Started)}
    for run in before_last.unfinished():
        assert starts[run.number] == (run.checkpoint.kimg if run.checkpoint else 0.0)
    runs = runs_of(f"sqlite:///{folder / 'runs' / 'mlflow.db'}")
    assert len(runs) == 1 + 5
    assert {run.info.status for run in runs} == {"FINISHED"}
    assert len({run.data.tags["trial_key"] for run in runs}) == 6
