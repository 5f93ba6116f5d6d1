"""Trials recorded by the platform are trained again from their records alone: bit for bit."""

import contextlib
import json
import os
import shutil
import signal
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from tiny_study import content, write_npz

from search import run_study
from search.comparison import Comparison
from search.events import RunKey, Started
from search.history import JOURNAL_NAME
from search.journal import Journal
from search.machine import SOURCE, versions
from search.mlflow_client import connect
from search.mlflow_runs import PARENT_TAG
from search.record import (
    TrialRecord,
    read_measurements,
    read_trials,
    write_measurements,
    write_trials,
)
from search.recorded_trial import RecordedTrial, read_trial
from search.rerun import main
from search.screen import Screen
from search.study import StudySpec
from search.tracked_trial import read_tracked
from search.tracking_place import find_place
from search.trial_run import Progress

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("worker_settings")]

COMPLETED, STOPPED, INFEASIBLE, RESUMED = range(4)
POINTS = [
    {"learning_rate": 0.01, "d_dropout": 0.2, "optimizer": "sgd"},
    {"learning_rate": 0.01, "d_dropout": 0.2, "optimizer": "adam"},  # scores worse in so few steps
    {"learning_rate": 4.0, "d_dropout": 0.2, "optimizer": "sgd"},
    {"learning_rate": 0.02, "d_dropout": 0.2, "optimizer": "adam"},
]
CHANGES: dict[str, Any] = {
    "space": {
        "learning_rate": {"type": "float", "low": 0.01, "high": 10.0, "log": True},
        "d_dropout": {"type": "float", "low": 0.0, "high": 0.5},
        "optimizer": {"type": "categorical", "choices": ["adam", "sgd"]},
    },
    "stages": [{"kind": "manual", "points": POINTS}],
    "scheduler": {"kind": "asha", "grace_kimg": 0.75, "reduction_factor": 2},
    "budget": {"kimg_per_trial": 1.0, "measure_kimg": 0.25, "trials": 4},
}


@dataclass(frozen=True)
class Recorded:
    """A study on record; the process of its last trial was killed half way."""

    output: Path
    uri: str
    trials: list[TrialRecord]

    def run(self, number: int, place: str) -> list[str]:
        """The words that name a trial."""
        if place == "folder":
            return [f"{self.output}:{number}"]
        run_id = self.trials[number].run_id
        assert run_id is not None
        return [run_id, "--tracking-uri", self.uri]


@contextlib.contextmanager
def _killed_once(output: Path, number: int) -> Iterator[None]:
    """Kills the process that trains a trial at its second measurement."""
    killed: list[int] = []

    def kill(self: Screen, key: RunKey, progress: Progress) -> None:
        if key.number == number and progress.kimg >= 0.5 and not killed:
            events = Journal.read(output / JOURNAL_NAME)
            killed.extend(e.pid for e in events if isinstance(e, Started) and e.number == number)
            os.kill(killed[-1], signal.SIGKILL)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Screen, "progress", kill)
        yield


@pytest.fixture(scope="module")
def recorded(local_ray: None, tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    folder = tmp_path_factory.mktemp("recorded")
    spec = StudySpec.from_mapping(content(write_npz(folder / "tiny.npz"), **CHANGES))
    output, uri = folder / "out", f"sqlite:///{folder / 'mlflow.db'}"
    with _killed_once(output, RESUMED):
        run_study(spec, output, tracking_uri=uri, progress=False, max_concurrent=1)
    return Recorded(output, uri, read_trials(output))


def rerun(capfd: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    capfd.readouterr()
    code = main(words)
    out, err = capfd.readouterr()
    assert "Traceback" not in err
    return code, out, err


def test_the_record_has_what_a_repetition_needs(recorded: Recorded) -> None:
    states = [trial.state for trial in recorded.trials]
    assert states == ["COMPLETED", "STOPPED", "INFEASIBLE", "COMPLETED"]
    for trial in recorded.trials:
        assert trial.seed is not None
        assert (trial.threads, trial.streams, trial.pack) == (1, "host", 1)
        assert trial.torch
        assert trial.processor
    events = Journal.read(recorded.output / JOURNAL_NAME)
    starts = [e for e in events if isinstance(e, Started) and e.number == RESUMED]
    assert [start.from_kimg > 0 for start in starts] == [False, True]


@pytest.mark.parametrize("number", [COMPLETED, STOPPED, INFEASIBLE, RESUMED])
def test_mlflow_has_the_same_record_as_the_folder(recorded: Recorded, number: int) -> None:
    run, *_, uri = recorded.run(number, "MLflow")
    tracked, written = read_tracked(run, uri), read_trial(recorded.output, number)
    assert tracked.params.items() >= written.params.items()
    left_out: dict[str, Any] = {"place": "", "params": {}}
    assert replace(tracked, **left_out) == replace(written, **left_out)
    assert len(written.measurements) >= (1 if number == INFEASIBLE else 3)


@pytest.mark.parametrize("place", ["folder", "MLflow"])
@pytest.mark.parametrize("number", [COMPLETED, STOPPED, INFEASIBLE, RESUMED])
def test_every_trial_repeats_bit_for_bit(
    recorded: Recorded, number: int, place: str, capfd: pytest.CaptureFixture[str]
) -> None:
    files = {path: path.stat().st_mtime_ns for path in recorded.output.rglob("*")}
    code, out, err = rerun(capfd, *recorded.run(number, place), "--json")
    found = json.loads(out)
    trial = recorded.trials[number]
    measured = [m for m in read_measurements(recorded.output) if m.number == number]
    assert (code, found["verdict"], found["values_not_equal"]) == (0, "equal", 0)
    assert (found["number"], found["state"], found["seed"]) == (number, trial.state, trial.seed)
    assert found["measurements"] == len(measured)
    assert found["values"] == sum(len(m.metrics) for m in measured) > 0
    assert found["infeasible_again"] == (number == INFEASIBLE)
    assert found["recorded_elsewhere"] is found["first_difference"] is None
    assert err.count("equal bit for bit") == len(measured) + (number == INFEASIBLE)
    assert {path: path.stat().st_mtime_ns for path in recorded.output.rglob("*")} == files


@pytest.fixture
def copy(recorded: Recorded, tmp_path: Path) -> Path:
    """A record that a test may change."""
    names = ("study.json", "trials.parquet", "measurements.parquet")
    for name in names:
        shutil.copy(recorded.output / name, tmp_path)
    return tmp_path


def tamper(folder: Path, number: int, kimg: float, by: float) -> None:
    rows = read_measurements(folder)
    for row in rows:
        if (row.number, row.kimg) == (number, kimg):
            row.metrics["d_loss"] += by
    write_measurements(folder, rows)


def test_a_record_that_was_changed_is_found_different_and_where(
    copy: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    tamper(copy, STOPPED, 0.5, by=0.5)
    code, out, err = rerun(capfd, f"{copy}:{STOPPED}")
    assert code == 1
    assert out.startswith("different: first d_loss at 0.5 kimg: recorded ")
    assert err.count("equal bit for bit") == 2
    code, out, _ = rerun(capfd, f"{copy}:{STOPPED}", "--json")
    first = json.loads(out)["first_difference"]
    assert (code, first["kimg"], first["metric"]) == (1, 0.5, "d_loss")
    assert first["recorded"] == first["now"] + 0.5
    code, out, _ = rerun(capfd, f"{copy}:{STOPPED}", "--until-kimg", "0.3")
    assert (code, out.partition(":")[0]) == (0, "equal bit for bit")


def test_a_small_difference_is_equal_within_the_tolerance(
    copy: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    tamper(copy, STOPPED, 0.25, by=1e-6)
    short = (f"{copy}:{STOPPED}", "--until-kimg", "0.25")
    code, out, _ = rerun(capfd, *short)
    assert code == 0
    assert out.startswith("equal within 0.001, not bit for bit: 1 measurements")
    assert "the largest difference: d_loss at 0.25 kimg" in out
    code, out, _ = rerun(capfd, *short, "--tolerance", "1e-8")
    assert (code, out.partition(":")[0]) == (1, "different")


def change_trial(folder: Path, number: int, **changes: Any) -> None:
    rows = read_trials(folder)
    rows[number] = replace(rows[number], **changes)
    write_trials(folder, rows)


def test_another_end_is_a_difference(copy: Path, capfd: pytest.CaptureFixture[str]) -> None:
    change_trial(copy, INFEASIBLE, reason="g_loss is not finite at 9 kimg")
    code, out, _ = rerun(capfd, f"{copy}:{INFEASIBLE}")
    assert code == 1
    assert "recorded g_loss is not finite at 9 kimg, now d_loss is not finite at " in out


def test_other_versions_and_hardware_are_told_first(
    copy: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    study = json.loads((copy / "study.json").read_text())
    assert study["versions"][SOURCE] == versions()[SOURCE]
    change_study(copy, versions=study["versions"] | {SOURCE: "another"})
    change_trial(copy, STOPPED, torch="2.0.1", processor="Abacus")
    code, _, err = rerun(capfd, f"{copy}:{STOPPED}", "--until-kimg", "0.25")
    assert code == 0
    first = err.splitlines()[0]
    assert first.startswith("recorded with torch 2.0.1, cgan_core source another on Abacus, here ")
    assert "expect differences by rounding" in first


def change_study(folder: Path, **changes: Any) -> None:
    path = folder / "study.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_a_record_of_before_there_were_folds_or_redraws_is_repeated(
    copy: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    protocol = json.loads((copy / "study.json").read_text())["protocol"]
    assert protocol.pop("folds") == 1
    change_study(copy, protocol=protocol)
    rows = read_measurements(copy)
    for row in rows:
        for name in ("redraw_log_likelihood", "redraw_conditional_log_likelihood"):
            del row.metrics[name]
    write_measurements(copy, rows)
    code, out, _ = rerun(capfd, f"{copy}:{STOPPED}")
    assert (code, out.partition(":")[0]) == (0, "equal bit for bit")


def test_what_cannot_be_repeated_is_told_in_one_message(
    recorded: Recorded, copy: Path, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def refused(*words: str) -> str:
        code, out, err = rerun(capfd, *words)
        assert (code, out, err.count("\n")) == (2, "", 1)
        return err

    uri = ("--tracking-uri", recorded.uri)
    assert "holds no trial 9; its trials are 0 to 3" in refused(f"{copy}:9")
    assert f"as in {copy}:0" in refused(str(copy))
    assert "a trial must be named by its number" in refused(f"{copy}:six")
    assert "is this the folder of a study?" in refused(f"{copy / 'nope'}:0")
    assert "cannot be read from sqlite" in refused("0" * 32, *uri)
    parent = connect(find_place(recorded.uri)).get_run(recorded.trials[0].run_id)
    assert "is that of a study" in refused(parent.data.tags[PARENT_TAG], *uri)
    assert "does not exist" in refused("0" * 32, "--tracking-uri", f"sqlite:///{copy / 'no.db'}")
    assert not (copy / "no.db").exists()
    assert "no measurement up to 0.1 kimg" in refused(f"{copy}:0", "--until-kimg", "0.1")
    assert "above zero" in refused(f"{copy}:0", "--tolerance", "-1")
    change_trial(copy, STOPPED, streams="host then device")
    assert "trained on host then device streams" in refused(f"{copy}:{STOPPED}")

    study = json.loads((copy / "study.json").read_text())
    other = study["protocol"] | {"version": 99}
    change_study(copy, protocol=other)
    assert "scored under version 99 of the protocol" in refused(f"{copy}:0")
    change_study(copy, protocol=study["protocol"] | {"num_samples": 1})
    assert "its protocol is not the one that was recorded" in refused(f"{copy}:0")
    file = str(write_npz(tmp_path / "other.npz", count=210))
    change_study(copy, protocol=study["protocol"], dataset=study["dataset"] | {"path": file})
    assert "are not those of the study" in refused(f"{copy}:0")
    change_study(copy, dataset=study["dataset"] | {"path": str(tmp_path / "gone.npz")})
    assert "gone.npz" in refused(f"{copy}:0")
    change_study(copy, dataset_digest="f" * 64)
    assert "recorded under another dataset_digest" in refused(f"{copy}:0")
    change_study(copy, dataset_digest=study["dataset_digest"])
    for name in ("measurements.parquet", "trials.parquet", "study.json"):
        (copy / name).unlink()
        assert f"{name}: is missing" in refused(f"{copy}:0")


def course(*values: float, infeasible: str | None = None) -> list[Progress]:
    progress = [
        Progress(kimg=float(k), elapsed_seconds=0.0, metrics={"loss": v}, done=k == 4)
        for k, v in enumerate(values, 1)
    ]
    if infeasible:
        end = Progress(kimg=len(values) + 0.5, elapsed_seconds=0.0, infeasible=infeasible)
        progress.append(end)
    return progress


@pytest.mark.parametrize(
    ("state", "now", "where"),
    [
        ("STOPPED", course(1.0, infeasible="d_loss"), (1.5, "state", "STOPPED", "d_loss")),
        ("INFEASIBLE", course(1.0, 2.0, 3.0), (3.0, "state", "d_loss", "measured")),
        ("INFEASIBLE", course(1.0, infeasible="d_loss"), (2.0, "state", "measured", None)),
        ("STOPPED", course(1.0, 2.5, 3.0), (2.0, "loss", 2.0, 2.5)),
    ],
)
def test_a_course_that_ends_elsewhere_is_different(
    recorded: Recorded, state: str, now: list[Progress], where: tuple[Any, ...]
) -> None:
    record: RecordedTrial = replace(
        read_trial(recorded.output, 0),
        state=state,
        reason="d_loss",
        measurements={1.0: {"loss": 1.0}, 2.0: {"loss": 2.0}},
    )
    comparison = Comparison(record, 1e-3)
    for progress in now:
        if not comparison.finished:
            comparison.take(progress)
    assert comparison.finished
    assert comparison.verdict == "different"
    assert tuple(asdict(comparison.beyond()[0]).values()) == where
