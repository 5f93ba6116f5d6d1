"""A pool of workers in one thread, driven as Tune drives it, in any order and killed anywhere."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from random import Random
from typing import Any

from closed_form import ClosedFormRun, ClosedFormRuns, open_history

from search.cause import Cause
from search.checkpoints import TUNE_FOLDER, keep_newest, run_folder
from search.early_stopping import early_stopping
from search.events import Event, Purpose, RunKey
from search.history import History
from search.journal import Journal
from search.lines import Lines
from search.phases import Phases
from search.proposer import Proposer
from search.referee import Referee
from search.run_queue import RunQueue
from search.searcher import StudySearcher
from search.seat import Place, open_run
from search.stop_request import StopRequest
from search.study import StudySpec

FINISHED = "FINISHED"


class Killed(BaseException):
    """Nothing after it is done."""


class FakePool:
    """Trains the runs of one purpose; which worker answers next is drawn at random."""

    def __init__(
        self,
        spec: StudySpec,
        history: History,
        runs: ClosedFormRuns,
        *,
        workers: int = 3,
        seed: int = 0,
        purpose: Purpose = "search",
        stop: StopRequest | None = None,
    ) -> None:
        self.folder, self.history, self.purpose = history.folder, history, purpose
        self.lanes = runs("cpu", workers)
        proposer = Proposer(spec) if purpose == "search" else None
        stopping = early_stopping(spec, self.folder) if purpose == "search" else None
        queue = RunQueue(purpose, None if stopping is None else stopping.waiting)
        stop = stop or StopRequest()
        self.referee = Referee(history, stop, queue, stopping, proposer=proposer)
        self.referee.settle(spec.budget.kimg_per_trial)
        self.searcher = StudySearcher(
            proposer, history, queue, self.folder, max_concurrent=workers, threads=1, stop=stop
        )
        self.stop = stop
        self.random = Random(seed)
        self.places: dict[str, tuple[RunKey, ClosedFormRun]] = {}
        self.asked = 0
        self.busiest = 0

    def run(self) -> None:
        """Works until the searcher has finished."""
        while self._fill():
            place = self.random.choice(sorted(self.places))
            self._advance(place)
        if self.stop.reason is None:
            self.referee.close_waiting()
        elif self.stop.reason == "time_budget":
            self.referee.close_unfinished(self.purpose, "time_budget")
        assert self.referee.fault is None, self.referee.fault

    def _fill(self) -> bool:
        while True:
            self.asked += 1
            trial_id = f"t{self.asked}"
            given = self.searcher.suggest(trial_id)
            if not isinstance(given, dict):
                # Tune asks nothing and nobody else where there is no trial and the answer is None.
                assert self.places or given == FINISHED
                self.busiest = max(self.busiest, len(self.places))
                return bool(self.places)
            key = RunKey(given["number"], given["replicate"])
            assert key not in {busy for busy, _ in self.places.values()}
            self.places[trial_id] = (key, self._open(key, given))

    def _open(self, key: RunKey, given: dict[str, Any]) -> ClosedFormRun:
        folder = None if given["resume_from"] is None else Path(given["resume_from"])
        run: ClosedFormRun = open_run(self.lanes, given, folder)  # type: ignore[assignment]
        place = Place(node="n", device="cpu", pid=1)
        restored = given["resume_from"] is not None
        self.referee.started(key, place, pack=1, restored=restored)
        return run

    def _advance(self, place: str) -> None:
        key, run = self.places[place]
        run.train(run.steps_left)
        try:
            progress = run.measure()
        except RuntimeError as error:
            self._fail(place, str(error))
            return
        leaves = self.referee.progressed(key, progress)
        if progress.metrics is not None:
            self._save(key, run)
        if leaves:
            self.searcher.on_trial_complete(place)
            self.referee.finished(key)
            del self.places[place]

    def _fail(self, place: str, cause: str) -> None:
        key, _ = self.places.pop(place)
        self.searcher.on_trial_complete(place, error=True)
        self.referee.lost(key, Cause("code", cause))

    def _save(self, key: RunKey, run: ClosedFormRun) -> None:
        attempt = self.history.ledger.run(key).attempts
        path = Path(f"{TUNE_FOLDER}/{run_folder(key)}-{attempt:03d}/checkpoint_{run.steps:06d}")
        (self.folder / path).mkdir(exist_ok=True, parents=True)
        run.snapshot().save(self.folder / path)
        self.referee.checkpointed(key, run.kimg, path)
        keep_newest(self.folder, key, 1, self.referee.needed_checkpoints(key))


def drive(
    spec: StudySpec,
    folder: Path,
    kills: Iterable[int] = (),
    *,
    runs: ClosedFormRuns | None = None,
    seed: int = 0,
    workers: int = 3,
) -> list[Event]:
    """Takes a study through all its phases and through kills; returns the journal.

    Each kill comes after so many events of its session.
    """
    ends: Iterator[int] = iter(kills)
    while True:
        with open_history(folder, spec) as history:
            _kill_after(history, next(ends, None))
            try:
                phases(spec, history, runs, workers=workers, seed=seed).run()
            except Killed:
                continue
        return Journal.read(folder / "journal.jsonl")


def phases(
    spec: StudySpec,
    history: History,
    runs: ClosedFormRuns | None = None,
    *,
    workers: int = 3,
    seed: int = 0,
) -> Phases:
    """The phases of a study with a pool in place of Tune."""
    made = runs or ClosedFormRuns(folder=history.folder, points=spec.scheduler.paired)

    def run(stop: StopRequest, purpose: Purpose) -> None:
        pool = FakePool(
            spec, history, made, workers=workers, seed=seed, purpose=purpose, stop=stop
        )
        pool.run()

    return Phases(
        spec,
        history,
        Lines(untrained=-1e9, real_data=1e9),
        run,
        seconds_left=lambda: None,
        kept_back=0.0,
        say=lambda line: None,
    )


def _kill_after(history: History, events: int | None) -> None:
    """Raises once so many events were appended, as if the process had died there."""
    left = [events or 0]

    def listen(event: Event) -> None:
        left[0] -= 1
        if left[0] == 0:
            raise Killed

    history.listen(listen)
