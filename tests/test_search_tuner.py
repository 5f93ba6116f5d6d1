import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import closed_form
import pytest
from closed_form import ClosedFormRuns, Fault, open_history, study

from search.events import Event, Measured, Retried, RunKey, Started
from search.journal import Journal
from search.ledger import Ledger
from search.proposer import Proposer
from search.requests import Enqueue, Extend, Stop, ask, waiting
from search.stop_request import StopRequest
from search.study import StudySpec
from search.trial_run import Progress
from search.tuner import run_trials

pytestmark = pytest.mark.ray

TERMINAL = {"COMPLETED", "STOPPED", "INFEASIBLE", "FAILED"}


@pytest.fixture(autouse=True)
def shipped(local_ray: None) -> Iterator[None]:
    """Workers cannot import tests, so their code travels with them."""
    from ray import cloudpickle

    cloudpickle.register_pickle_by_value(closed_form)
    yield
    cloudpickle.unregister_pickle_by_value(closed_form)


def run(spec: StudySpec, folder: Path, runs: ClosedFormRuns, stop: StopRequest) -> list[Event]:
    """One session of the study; returns what it wrote."""
    with open_history(folder, spec) as history:
        events: list[Event] = []
        history.listen(events.append)
        run_trials(spec, history, runs, folder, max_concurrent=2, stop=stop)
    return events


def read(folder: Path) -> Ledger:
    return Ledger(Journal.read(folder / "journal.jsonl"))


def kimgs(ledger: Ledger, number: int) -> list[float]:
    return [m.kimg for m in ledger.trials[number].measurements]


def assert_whole(
    ledger: Ledger, *, manual: int = 1, grid: int, model: int, enqueued: int = 0
) -> None:
    """Every planned trial once, none open, no gap."""
    assert ledger.count_by_stage() == {
        "manual": manual,
        "random_grid": grid,
        "full_grid": 0,
        "model": model,
        "enqueued": enqueued,
    }
    assert {trial.state for trial in ledger.trials.values()} <= TERMINAL
    assert list(ledger.trials) == list(range(manual + grid + model + enqueued))
    assert len(ledger.cells) == len(ledger.trials)


def test_faults_of_trials_and_of_their_machine(tmp_path: Path) -> None:
    faults = {
        1: Fault("kill_once", 250),
        2: Fault("raise", 150),
        3: Fault("infeasible", 150),
        4: Fault("nan", 200),
    }
    runs = ClosedFormRuns(folder=tmp_path, faults=faults)
    events = run(study(grid=5, model=2), tmp_path, runs, StopRequest())
    ledger = read(tmp_path)
    assert_whole(ledger, grid=5, model=2)
    states = {number: trial.state for number, trial in ledger.trials.items()}
    assert states == {
        0: "COMPLETED",
        1: "COMPLETED",
        2: "FAILED",
        3: "INFEASIBLE",
        4: "INFEASIBLE",
        **dict.fromkeys((5, 6, 7), "COMPLETED"),
    }
    assert ledger.trials[2].reason == "RuntimeError: boom in trial 2"
    assert ledger.trials[3].reason == "loss is nan at 150 kimg"
    assert ledger.trials[4].reason == "validation_log_likelihood is nan at 200 kimg"
    # The killed process went on from its last checkpoint, and measured nothing twice.
    starts = [e for e in events if isinstance(e, Started) and e.number == 1]
    assert [start.from_kimg for start in starts] == [0, 200]
    assert starts[0].pid != starts[1].pid
    assert kimgs(ledger, 1) == [100, 200, 300, 400]
    assert sum(isinstance(e, Measured) and e.number == 1 for e in events) == 4
    assert sum(isinstance(e, Retried) and e.number == 2 for e in events) == 2
    # One checkpoint a trial is left, and it is the one that the record names.
    for trial in ledger.trials.values():
        checkpoint = trial.first.checkpoint
        assert checkpoint is not None
        left = list(tmp_path.glob(f"tune/{trial.number:05d}-*/checkpoint_*"))
        assert left == [tmp_path / checkpoint.path]


def test_a_run_has_two_retries_in_all_however_often_it_is_taken_up(tmp_path: Path) -> None:
    spec = study(grid=1, model=0)
    with open_history(tmp_path, spec) as history:
        claimed = Proposer(spec).propose(history.ledger)
        assert claimed is not None
        history.append(claimed)
        history.append(Started(number=0, attempt=0, node="n", device="cpu", pid=1))
        history.append(Retried(number=0, cause="machine lost"))
    runs = ClosedFormRuns(folder=tmp_path, faults={0: Fault("raise", 50)})
    events = run(spec, tmp_path, runs, StopRequest())
    assert sum(isinstance(event, Retried) for event in events) == 1
    trial = read(tmp_path).trials[0]
    assert (trial.state, trial.retries) == ("FAILED", 2)


def test_halving_stops_trials_at_rungs(tmp_path: Path) -> None:
    scheduler = {"kind": "asha", "grace_kimg": 100.0, "paired": True}
    spec = study(grid=8, model=3, scheduler=scheduler)
    run(spec, tmp_path, ClosedFormRuns(folder=tmp_path, points=True), StopRequest())
    ledger = read(tmp_path)
    assert_whole(ledger, grid=8, model=3)
    count = ledger.count_by_state()
    assert count["STOPPED"] >= 4
    assert count["COMPLETED"] >= 1
    assert {t.reason for t in ledger.trials.values() if t.state == "STOPPED"} == {"asha"}
    best = ledger.incumbent("validation_log_likelihood")
    assert best is not None
    assert best.state == "COMPLETED"
    # Who came to a rung has its points kept there.
    rungs = {(n, f"{kimg:g}") for n in ledger.trials for kimg in kimgs(ledger, n) if kimg < 400}
    kept = (path.stem.split("-") for path in (tmp_path / "points/rungs").iterdir())
    assert {(int(number), rung) for number, _, rung in kept} == {
        (n, rung) for n, rung in rungs if rung in ("100", "300")
    }
    # A study that has all its trials starts nothing more.
    assert run(spec, tmp_path, ClosedFormRuns(folder=tmp_path), StopRequest()) == []


def test_an_interrupted_study_goes_on_where_it_was(tmp_path: Path) -> None:
    stop = StopRequest()
    runs = ClosedFormRuns(folder=tmp_path, pace=200)

    def interrupt(key: RunKey, progress: Progress) -> None:
        if progress.kimg >= 200:
            stop.ask("interrupted")

    spec = study(grid=3, model=0)
    with open_history(tmp_path, spec) as history:
        run_trials(
            spec, history, runs, tmp_path, max_concurrent=2, stop=stop, on_progress=interrupt
        )
    ledger = read(tmp_path)
    waiting = ledger.unfinished()
    assert waiting
    assert all(trial.checkpoint for trial in waiting if trial.measurements)
    events = run(spec, tmp_path, ClosedFormRuns(folder=tmp_path), StopRequest())
    assert_whole(read(tmp_path), grid=3, model=0)
    starts = {e.number: e for e in events if isinstance(e, Started)}
    for trial in waiting:
        assert starts[trial.number].from_kimg == (trial.checkpoint.kimg if trial.checkpoint else 0)
        assert kimgs(read(tmp_path), trial.number) == [100, 200, 300, 400]


def test_a_running_study_is_steered(tmp_path: Path) -> None:
    """Asked half way: a point, the end of a trial that trains, and one trial more."""
    point = {"learning_rate": 0.02, "d_dropout": 0.45}
    asked: list[Path] = []

    def ask_once(key: RunKey, progress: Progress) -> None:
        if key.number == 2 and not asked:
            requests = (Enqueue(params=point), Stop(number=2, reason="poor"), Extend(trials=1))
            asked.extend(ask(tmp_path, request) for request in requests)

    spec = study(grid=3, model=1)
    runs = ClosedFormRuns(folder=tmp_path, pace=200)
    with open_history(tmp_path, spec) as history:
        run_trials(
            spec,
            history,
            runs,
            tmp_path,
            max_concurrent=2,
            stop=StopRequest(),
            on_progress=ask_once,
        )
    ledger = read(tmp_path)
    assert_whole(ledger, grid=3, model=2, enqueued=1)
    (enqueued,) = [t for t in ledger.trials.values() if t.stage == "enqueued"]
    assert enqueued.params == point
    assert enqueued.number < 5  # before what was left of the plan
    assert (ledger.trials[2].state, ledger.trials[2].reason) == ("STOPPED", "by request: poor")
    others = {trial.state for trial in ledger.trials.values() if trial.number != 2}
    assert others == {"COMPLETED"}
    assert waiting(tmp_path) == []


def test_the_end_of_the_time_budget_is_a_normal_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("search.tuner.PATIENCE_SECONDS", 1.0)
    stop = StopRequest()
    runs = ClosedFormRuns(folder=tmp_path, pace=100, faults={0: Fault("hang", 110)})
    hung_since = []

    def end_when_hung(key: RunKey, progress: Progress) -> None:
        if key.number == 0:
            hung_since.append(time.monotonic())
        elif hung_since and time.monotonic() > hung_since[0] + 0.5:
            stop.ask("time_budget")

    spec = study(grid=7, model=0)
    with open_history(tmp_path, spec) as history:
        run_trials(
            spec, history, runs, tmp_path, max_concurrent=2, stop=stop, on_progress=end_when_hung
        )
    trials = read(tmp_path).trials
    ends = {(t.state, t.reason) for t in trials.values()}
    assert ends <= {("STOPPED", "time_budget"), ("COMPLETED", None)}
    assert trials[0].reason == "time_budget"
    assert trials[0].total_kimg == 100  # it hung, so it was left where it had last reported


def test_a_record_that_cannot_be_written_stops_the_study(tmp_path: Path) -> None:
    def full(event: Event) -> None:
        if isinstance(event, Measured):
            raise OSError("no space left on device")

    spec = study(grid=3, model=0)
    with open_history(tmp_path, spec) as history:
        history.listen(full)
        with pytest.raises(OSError, match="no space left"):
            run_trials(
                spec,
                history,
                ClosedFormRuns(folder=tmp_path),
                tmp_path,
                max_concurrent=2,
                stop=StopRequest(),
            )


DRIVER = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
import closed_form
from ray import cloudpickle
from search.cluster import ray_running
from search.stop_request import StopRequest
from search.tuner import run_trials
cloudpickle.register_pickle_by_value(closed_form)
folder = Path(sys.argv[1])
spec = closed_form.study()
runs = closed_form.ClosedFormRuns(folder=folder, pace=100)
with closed_form.open_history(folder, spec) as history, ray_running("local"):
    run_trials(spec, history, runs, folder, max_concurrent=2, stop=StopRequest())
"""


def measured(folder: Path) -> int:
    path = folder / "journal.jsonl"
    return path.read_bytes().count(b'"measured"') if path.exists() else 0


def test_a_killed_driver_loses_and_doubles_nothing(tmp_path: Path) -> None:
    tests = str(Path(__file__).parent)
    driver = subprocess.Popen([sys.executable, "-c", DRIVER, str(tmp_path), tests])
    deadline = time.monotonic() + 120
    while measured(tmp_path) < 3 and time.monotonic() < deadline:
        assert driver.poll() is None
        time.sleep(0.05)
    os.kill(driver.pid, signal.SIGKILL)
    driver.wait()
    before = read(tmp_path)
    unfinished = before.unfinished()
    assert any(trial.checkpoint for trial in unfinished)
    events = run(study(), tmp_path, ClosedFormRuns(folder=tmp_path), StopRequest())
    after = read(tmp_path)
    assert_whole(after, grid=4, model=3)
    starts = {e.number: e.from_kimg for e in events if isinstance(e, Started)}
    for trial in unfinished:
        assert starts[trial.number] == (trial.checkpoint.kimg if trial.checkpoint else 0)
    for number in after.trials:
        assert kimgs(after, number) == [100, 200, 300, 400]
