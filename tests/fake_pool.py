"""A pool of workers in one thread, driven as Tune drives it, in any order and killed anywhere."""

import math
from collections import deque
from collections.abc import Iterable, Sequence
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

from closed_form import ClosedFormRun, ClosedFormRuns, open_history

from search.cause import Cause
from search.checkpoints import TUNE_FOLDER, keep_newest, run_folder
from search.early_stopping import early_stopping
from search.events import Event, Purpose, RunKey, SessionClosed
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


class FakeClock:
    """Time that passes only when a worker has trained to its next measurement: one tick."""

    TICK = 1e4  # seconds; so many that the real clock, which runs too, comes nowhere near

    def __init__(self) -> None:
        self.seconds = 0.0

    def tick(self) -> None:
        self.seconds += self.TICK

    def deadline(self, stop: StopRequest) -> float:
        """When the time of a phase that begins now is over."""
        left = stop.remaining_seconds
        return math.inf if left is None else self.seconds + left - self.TICK / 100


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

    def run(self, clock: FakeClock) -> None:
        """Works until the searcher has finished; the clock may ask for a stop before."""
        deadline = clock.deadline(self.stop)
        while self._fill():
            place = self.random.choice(sorted(self.places))
            self._advance(place)
            clock.tick()
            if clock.seconds >= deadline:
                self.stop.ask("time_budget")
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


class Turn(NamedTuple):
    """One driver's turn at a study: what it adds, what it keeps back, and when it is killed.

    `kill_after` so many of its events it dies; None lets it come to its end.
    """

    kill_after: int | None = None
    extra_trials: int = 0
    extra_seconds: float = 0.0
    kept_back: float = 0.0


def drive(
    spec: StudySpec,
    folder: Path,
    kills: Iterable[int] = (),
    *,
    turns: Sequence[Turn] = (),
    runs: ClosedFormRuns | None = None,
    seed: int = 0,
    workers: int = 3,
    clock: FakeClock | None = None,
) -> list[Event]:
    """Takes a study through all its phases and through kills; returns the journal.

    Each kill comes after so many events of its session. With `turns` every one of them is taken,
    in virtual time, and at last one more if that was killed.
    """
    left, clock = deque(turns or map(Turn, kills)), clock or FakeClock()
    while True:
        turn = left.popleft() if left else Turn()
        whole = take_turn(spec, folder, turn, runs=runs, seed=seed, workers=workers, clock=clock)
        if whole and not (turns and left):
            return Journal.read(folder / "journal.jsonl")


def take_turn(
    spec: StudySpec,
    folder: Path,
    turn: Turn,
    *,
    runs: ClosedFormRuns | None = None,
    seed: int = 0,
    workers: int = 3,
    clock: FakeClock | None = None,
) -> bool:
    """Takes a study up for one session; returns whether that came to its end."""
    with open_history(folder, spec, turn.extra_trials, turn.extra_seconds) as history:
        _kill_after(history, turn.kill_after)
        through = phases(
            spec,
            history,
            runs,
            workers=workers,
            seed=seed,
            clock=clock,
            kept_back=turn.kept_back,
        )
        try:
            cut = through.run()
            history.append(SessionClosed(reason="time_budget" if cut else "finished"))
        except Killed:
            return False
    return True


def phases(
    spec: StudySpec,
    history: History,
    runs: ClosedFormRuns | None = None,
    *,
    workers: int = 3,
    seed: int = 0,
    clock: FakeClock | None = None,
    kept_back: float = 0.0,
) -> Phases:
    """The phases of a study with a pool in place of Tune, and a clock that its steps move."""
    made = runs or ClosedFormRuns(folder=history.folder, points=spec.scheduler.paired)
    ticking = clock or FakeClock()

    def run(stop: StopRequest, purpose: Purpose) -> None:
        pool = FakePool(
            spec, history, made, workers=workers, seed=seed, purpose=purpose, stop=stop
        )
        pool.run(ticking)

    def seconds_left() -> float | None:
        limit = spec.budget.time
        if limit is None:
            return None
        return max(0.0, limit + history.ledger.extra_seconds - ticking.seconds)

    return Phases(
        spec,
        history,
        Lines(untrained=-1e9, real_data=1e9),
        run,
        seconds_left=seconds_left,
        kept_back=lambda: kept_back,
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
