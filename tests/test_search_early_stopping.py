"""Every rule over the fake trainer, killed at any measurement and resumed from the journal."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from closed_form import ClosedFormRun, ClosedFormRuns, open_history, study

from search.early_stopping import early_stopping
from search.events import Ended, Event, Measured, Proposed
from search.history import History
from search.hyperband import Hyperband
from search.journal import Journal
from search.ledger import Ledger
from search.median import MedianStopping
from search.proposer import Proposer
from search.referee import Referee
from search.scheduling import Halving
from search.seat import Place
from search.stop_request import StopRequest
from search.study import SpecError, StudySpec

SCHEDULERS: dict[str, dict[str, Any]] = {
    "asha": {"kind": "asha", "grace_kimg": 100.0},
    "paired": {"kind": "asha", "grace_kimg": 100.0, "paired": True},
    "hyperband": {"kind": "hyperband", "grace_kimg": 100.0, "reduction_factor": 2},
    "median": {"kind": "median", "grace_kimg": 100.0},
}
WORKERS = 3


def spec_of(name: str) -> StudySpec:
    return study(grid=11, model=0, scheduler=SCHEDULERS[name])


class Killed(BaseException):
    """Nothing after it is done."""


class Drive:
    """Trains the study of a folder in turns, three trials at a time, without Ray."""

    def __init__(self, spec: StudySpec, folder: Path, history: History) -> None:
        self.spec, self.folder, self.history = spec, folder, history
        self.lanes = ClosedFormRuns(folder=folder, points=True)("cpu", WORKERS)
        self.referee = Referee(history, StopRequest(), early_stopping(spec, folder))
        self.runs: dict[int, ClosedFormRun] = {}
        self.waiting = iter([trial.number for trial in history.ledger.unfinished()])

    def run(self, measurements: int | None) -> None:
        """Goes on to the end, or is killed after so many measurements."""
        done = 0
        while self._fill():
            for number, run in list(self.runs.items()):
                run.train(run.steps_left)
                progress = run.measure()
                stops = self.referee.progressed(number, progress)
                assert self.referee.fault is None
                done += 1
                if done == measurements:
                    raise Killed
                self._save(number, run)
                if stops or progress.done:
                    self.referee.finished(number)
                    del self.runs[number]

    def _fill(self) -> bool:
        while len(self.runs) < WORKERS and (number := self._next()) is not None:
            trial = self.history.ledger.trials[number]
            self.runs[number] = run = self.lanes.open(
                {"number": number, "seed": trial.seed, "params": trial.params}
            )
            if trial.checkpoint is not None:
                run.load(self.folder / trial.checkpoint.path)
            place = Place(node="n", device="cpu", pid=1)
            self.referee.started(number, place, pack=1, restored=True)
        return bool(self.runs)

    def _next(self) -> int | None:
        number = next(self.waiting, None)
        if number is not None:
            return number
        proposed = Proposer(self.spec).propose(self.history.ledger)
        if proposed is not None:
            self.history.append(proposed)
        return None if proposed is None else proposed.number

    def _save(self, number: int, run: ClosedFormRun) -> None:
        place = Path(f"checkpoint-{number}-{run.steps}")
        (self.folder / place).mkdir(exist_ok=True)
        run.snapshot().save(self.folder / place)
        self.referee.checkpointed(number, run.kimg, place)


def drive(spec: StudySpec, folder: Path, kills: Iterator[int]) -> list[Event]:
    """Runs a study through its kills; returns its journal."""
    while True:
        with open_history(folder, spec) as history:
            try:
                Drive(spec, folder, history).run(next(kills, None))
            except Killed:
                continue
        return Journal.read(folder / "journal.jsonl")


@pytest.mark.parametrize("name", SCHEDULERS)
@pytest.mark.parametrize("kills", [(), (1,), (4, 5, 6), (13,)], ids=str)
def test_a_study_decides_by_its_record_alone(
    tmp_path: Path, name: str, kills: tuple[int, ...]
) -> None:
    spec = spec_of(name)
    events = drive(spec, tmp_path, iter(kills))
    assert len({e.cell for e in events if isinstance(e, Proposed)}) == 12
    stopping = early_stopping(spec, tmp_path)
    assert stopping is not None
    ledger, falls = Ledger(), dict[int, bool]()
    for event in events:
        ledger.apply(event)
        if isinstance(event, Measured):
            full = event.kimg == spec.budget.kimg_per_trial
            level = stopping.rule.rung_to_stop_at(event.number, ledger.trials)
            falls[event.number] = level is not None and not full
        if isinstance(event, Ended):
            assert event.state == ("STOPPED" if falls[event.number] else "COMPLETED")
    count = ledger.count_by_state()
    assert count["STOPPED"] >= 2
    assert count["COMPLETED"] >= 1
    assert count["STOPPED"] + count["COMPLETED"] == 12
    best = ledger.incumbent(spec.objective.metric)
    assert best is not None
    assert best.params == {"learning_rate": 0.1, "d_dropout": 0.3}


def test_chance_saves_trials_that_the_plain_rule_stops(tmp_path: Path) -> None:
    stopped = {}
    for name in ("asha", "paired"):
        events = drive(spec_of(name), tmp_path / name, iter(()))
        stopped[name] = {e.number for e in events if isinstance(e, Ended) and e.reason}
    assert stopped["paired"] < stopped["asha"]


@pytest.mark.parametrize(
    ("name", "kind"), [("asha", Halving), ("hyperband", Hyperband), ("median", MedianStopping)]
)
def test_the_rule_is_that_of_the_spec(tmp_path: Path, name: str, kind: type[Any]) -> None:
    stopping = early_stopping(spec_of(name), tmp_path)
    assert stopping is not None
    assert isinstance(stopping.rule, kind)
    assert stopping.rule.name == SCHEDULERS[name]["kind"]
    assert stopping.points is None
    assert early_stopping(study(), tmp_path) is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scheduler": {"kind": "median"}}, "`grace_kimg` must be given where `kind` is median"),
        ({"scheduler": {**SCHEDULERS["median"], "paired": True}}, "but got kind=median"),
        (
            {"scheduler": SCHEDULERS["paired"], "objective": {"metric": "label_accuracy"}},
            "but got metric=label_accuracy",
        ),
    ],
)
def test_a_rule_that_cannot_be_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        study(**changes)
