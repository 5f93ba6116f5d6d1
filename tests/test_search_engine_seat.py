"""Studies whose trials share an engine, in one real Ray, against the same study without one."""

import functools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import closed_form
import psutil
import pytest
from closed_form import ClosedFormRuns, Fault, open_history, study
from tiny_study import content, write_npz

from search import run_study
from search.engine_seat import EngineSeat
from search.events import Event, Measured, Retried, Started
from search.journal import Journal
from search.ledger import Ledger
from search.record import read_trials
from search.room import TrialResources
from search.stop_request import StopRequest
from search.study import StudySpec
from search.trial_run import Progress
from search.tuner import run_trials

pytestmark = pytest.mark.ray

PACKED = TrialResources(cpus=0.5, pack=4)


@pytest.fixture(autouse=True)
def shipped(local_ray: None) -> Iterator[None]:
    """Workers cannot import tests, so their code travels with them."""
    from ray import cloudpickle

    cloudpickle.register_pickle_by_value(closed_form)
    yield
    cloudpickle.unregister_pickle_by_value(closed_form)


def run(
    folder: Path, runs: ClosedFormRuns, resources: TrialResources, on_progress: Any = None
) -> list[Event]:
    """A study of a manual point and five cells of a grid; returns what was written."""
    folder.mkdir(exist_ok=True)
    spec = study(grid=5, model=0)
    with open_history(folder, spec) as history:
        run_trials(
            spec,
            history,
            runs,
            folder,
            max_concurrent=4 if resources.pack > 1 else 2,
            stop=StopRequest(),
            resources=resources,
            on_progress=on_progress,
        )
    return Journal.read(folder / "journal.jsonl")


def record(events: list[Event]) -> dict[int, Any]:
    """All of each trial that does not depend on when and where it was trained."""
    trials = Ledger(events).trials.values()
    return {
        trial.number: (
            trial.params,
            trial.seed,
            trial.state,
            trial.reason,
            [(m.kimg, m.elapsed_seconds, m.metrics) for m in trial.measurements],
        )
        for trial in trials
    }


def test_the_record_is_that_of_the_study_without_an_engine(tmp_path: Path) -> None:
    faults = {2: Fault("raise", 150), 3: Fault("infeasible", 150), 4: Fault("nan", 200)}
    runs = ClosedFormRuns(folder=tmp_path, faults=faults)
    alone = run(tmp_path / "alone", runs, TrialResources())
    fused = run(tmp_path / "fused", runs, PACKED)
    assert record(fused) == record(alone)
    starts = [event for event in fused if isinstance(event, Started)]
    assert {(start.pack, start.device) for start in starts} == {(4, "cpu")}
    assert len({start.pid for start in starts}) == 1
    assert {event.pack for event in alone if isinstance(event, Started)} == {1}
    wait_for_end_of(starts[0].pid)


@pytest.mark.parametrize(
    ("victim", "cause"),
    [
        ("engine", "EngineLostError: its engine died"),
        ("broker", "EngineLostError: its engine died"),
        ("device", "EngineError: the engine is broken (RuntimeError('illegal memory access'))"),
    ],
)
def test_a_lost_engine_costs_nobody_more_than_its_last_interval(
    tmp_path: Path, victim: str, cause: str
) -> None:
    killed: list[int] = []

    def kill(number: int, progress: Progress) -> None:
        if progress.kimg >= 200 and not killed and victim != "device":
            events = Journal.read(tmp_path / "journal.jsonl")
            engine = next(e.pid for e in events if isinstance(e, Started))
            killed.append(engine if victim == "engine" else _broker())
            os.kill(killed[0], signal.SIGKILL)

    faults = {1: Fault("poison_once", 210)} if victim == "device" else {}
    runs = ClosedFormRuns(folder=tmp_path, pace=1000, faults=faults)
    events = run(tmp_path, runs, PACKED, kill)
    ledger = Ledger(events)
    assert {trial.state for trial in ledger.trials.values()} == {"COMPLETED"}
    assert len(ledger.cells) == len(ledger.trials) == 6
    for trial in ledger.trials.values():
        assert [m.kimg for m in trial.measurements] == [100, 200, 300, 400]
    retried = [event for event in events if isinstance(event, Retried)]
    causes = {event.cause for event in retried}
    assert causes
    # On a busy machine all may hear of it late, when the broker has another engine already.
    assert causes <= {cause, "EngineLostError: its engine died"}
    assert 1 <= len(retried) == len({event.number for event in retried}) <= 4
    pids = {event.pid for event in events if isinstance(event, Started)}
    assert len(pids) == 2
    # From the last checkpoint, and nothing before it was measured again.
    for lost in retried:
        starts = [e for e in events if isinstance(e, Started) and e.number == lost.number]
        assert len(starts) == 2
        kimgs = [e.kimg for e in events if isinstance(e, Measured) and e.number == lost.number]
        before = [kimg for kimg in kimgs if kimg < starts[1].from_kimg]
        assert len(before) == len({*before})


class NotingSeat(EngineSeat):
    """Leaves a file named after its process, which says whether torch is loaded there."""

    def __init__(self, folder: Path, broker: Any) -> None:
        super().__init__(broker)
        self._folder = folder

    def step(self, seconds: float) -> Progress:
        progress = super().step(seconds)
        (self._folder / str(os.getpid())).write_text(str("torch" in sys.modules))
        return progress


@pytest.fixture
def proxies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with a file for each process that was a trial's actor."""
    from ray import cloudpickle

    here = sys.modules[__name__]
    cloudpickle.register_pickle_by_value(here)
    folder = tmp_path / "proxies"
    folder.mkdir()
    noting = functools.partial(NotingSeat, folder)
    monkeypatch.setattr("search.engine_seat.EngineSeat", noting)
    yield folder
    cloudpickle.unregister_pickle_by_value(here)


def test_a_killed_trial_goes_on_in_the_same_engine(tmp_path: Path, proxies: Path) -> None:
    """The proxy dies, not what trains."""
    killed: list[int] = []

    def kill(number: int, progress: Progress) -> None:
        if progress.kimg >= 200 and not killed:
            killed.append(int(next(proxies.iterdir()).name))
            os.kill(killed[0], signal.SIGKILL)

    events = run(tmp_path, ClosedFormRuns(folder=tmp_path, pace=1000), PACKED, kill)
    ledger = Ledger(events)
    assert {trial.state for trial in ledger.trials.values()} == {"COMPLETED"}
    for trial in ledger.trials.values():
        assert [m.kimg for m in trial.measurements] == [100, 200, 300, 400]
    assert len([event for event in events if isinstance(event, Retried)]) == 1
    assert len({event.pid for event in events if isinstance(event, Started)}) == 1


def test_a_study_of_nets_has_the_same_record_in_packs(tmp_path: Path, proxies: Path) -> None:
    """Manual and grid stages without a scheduler: scores, points and pictures, bit for bit."""
    stages = content(Path("any"))["stages"][:2]
    changes: dict[str, Any] = {"stages": stages, "scheduler": {"kind": "none"}}
    changes["budget"] = {"kimg_per_trial": 0.6, "measure_kimg": 0.2, "trials": 4}
    file = write_npz(tmp_path / "tiny.npz")
    for name, resources in (("alone", {}), ("fused", {"cpus_per_trial": 0.5, "pack": 4})):
        spec = StudySpec.from_mapping(content(file, **changes, resources=resources))
        uri = f"sqlite:///{tmp_path / name}.db"
        run_study(spec, tmp_path / name, tracking_uri=uri, progress=False)
    alone, fused = (
        record(Journal.read(tmp_path / name / "journal.jsonl")) for name in ("alone", "fused")
    )
    assert len(alone) == 4
    assert [_timeless(trial) for trial in fused.values()] == [
        _timeless(trial) for trial in alone.values()
    ]
    for kind in ("samples", "points"):
        files = [path for path in (tmp_path / "alone" / kind).rglob("*") if path.is_file()]
        assert files
        for path in files:
            twin = tmp_path / "fused" / path.relative_to(tmp_path / "alone")
            assert twin.read_bytes() == path.read_bytes()
    rows = read_trials(tmp_path / "fused")
    assert {(row.pack, row.device) for row in rows} == {(4, "cpu")}
    # What trains has torch; the four that speak for the trials have not.
    assert {path.read_text() for path in proxies.iterdir()} == {"False"}


def _timeless(trial: tuple[Any, ...]) -> tuple[Any, ...]:
    *rest, measured = trial
    return (*rest, [(kimg, metrics) for kimg, _, metrics in measured])


DRIVER = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
import closed_form
from ray import cloudpickle
from search.cluster import ray_running
from search.room import TrialResources
from search.engine_seat import probed_pack
from search.stop_request import StopRequest
from search.tuner import run_trials
import ray
cloudpickle.register_pickle_by_value(closed_form)
folder, mode = Path(sys.argv[1]), sys.argv[3]
resources = TrialResources(cpus=0.5, pack=4)
if mode == "gpus":
    ray.init("local", num_cpus=2, num_gpus=2, include_dashboard=False, log_to_driver=False)
    resources = TrialResources(cpus=0.1, gpus=0.5, pack=2)
    trial = {"number": 0, "replicate": 0, "seed": 0, "params": {}}
    runs = closed_form.ClosedFormRuns(folder, 1e9, 1e9, pace=1e9, fused=True)
    assert probed_pack(runs, trial, 2) in (1, 2)
spec = closed_form.study(grid=5, model=0)
runs = closed_form.ClosedFormRuns(folder=folder, pace=100 if mode == "killed" else 1000)
with closed_form.open_history(folder, spec) as history, ray_running("auto"):
    run_trials(spec, history, runs, folder, max_concurrent=4, stop=StopRequest(),
        resources=resources)
"""


def drive(folder: Path, mode: str, **environment: str) -> subprocess.Popen[bytes]:
    words = [sys.executable, "-c", DRIVER, str(folder), str(Path(__file__).parent), mode]
    return subprocess.Popen(words, env=os.environ | environment)


def test_an_engine_ends_with_its_driver_though_the_cluster_goes_on(tmp_path: Path) -> None:
    import ray

    address = ray.get_runtime_context().gcs_address
    driver = drive(tmp_path, "killed", RAY_ADDRESS=address)
    journal = tmp_path / "journal.jsonl"
    deadline = time.monotonic() + 120
    while not (journal.exists() and b'"measured"' in journal.read_bytes()):
        assert driver.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    driver.kill()
    driver.wait()
    engine = next(event.pid for event in Journal.read(journal) if isinstance(event, Started))
    wait_for_end_of(engine)
    events = run(tmp_path, ClosedFormRuns(folder=tmp_path), PACKED)
    for trial in Ledger(events).trials.values():
        assert trial.state == "COMPLETED"
        assert [m.kimg for m in trial.measurements] == [100, 200, 300, 400]


def test_each_gpu_has_an_engine_that_sees_no_other(tmp_path: Path) -> None:
    """Ray is told of two GPUs that are not there; nothing here touches one."""
    assert drive(tmp_path, "gpus").wait(200) == 0
    events = Journal.read(tmp_path / "journal.jsonl")
    starts = [event for event in events if isinstance(event, Started)]
    assert {start.device for start in starts} == {"cuda:0", "cuda:1"}
    assert len({(start.pid, start.device) for start in starts}) == 2
    device = {start.number: float(start.device.removeprefix("cuda:")) for start in starts}
    measured = [event for event in events if isinstance(event, Measured)]
    assert len(measured) == 6 * 4
    assert all(event.metrics["visible_gpu"] == device[event.number] for event in measured)


def wait_for_end_of(pid: int) -> None:
    deadline = time.monotonic() + 30
    while _lives(pid):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _broker() -> int:
    """The process of the broker in this test's own Ray."""
    workers = psutil.Process().children(recursive=True)
    return next(worker.pid for worker in workers if "Broker" in " ".join(worker.cmdline()))


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    status = Path(f"/proc/{pid}/stat")
    return not status.exists() or status.read_text().rpartition(")")[2].split()[0] != "Z"
