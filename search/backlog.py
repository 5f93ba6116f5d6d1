"""What MLflow has not taken yet: trials, each with its latest state, and the study itself."""

import threading
from collections.abc import Callable
from typing import NamedTuple

from search.events import Event, SessionClosed, TrialEvent
from search.ledger import Ledger
from search.run_painter import Outcome
from search.trial import TrialState

_ROUND_TRIALS = 200  # between two looks at the study's own run


class StudyState(NamedTuple):
    """What the study's run shows beside its trials; `changes` counts how often that changed."""

    changes: int
    closed: SessionClosed | None
    outcome: Outcome | None


class Backlog:
    """Shared by the driver, which adds to it and never waits, and those who deliver.

    It holds each trial once, so it cannot grow beyond the study, and a trial leaves it only when
    its latest state was taken.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._lock = threading.Condition()
        self._waiting: dict[int, TrialState] = {}
        self._study = StudyState(changes=1, closed=None, outcome=None)
        self._taken_changes = 0
        self._delivering = False
        self._progress = 0
        self.hurry = self.closing = False
        for number in ledger.trials:
            self._add(number)

    def handle(self, event: Event) -> None:
        """Takes in an event that the ledger has applied."""
        with self._lock:
            was_empty = not (self._waiting or self._study_waits())
            if isinstance(event, TrialEvent):
                self._add(event.number)
            elif isinstance(event, SessionClosed):
                self._change_study(closed=event)
                for run in self._ledger.unfinished():
                    self._add(run.number)
            if was_empty:  # else they are at work, and each wake-up costs the driver time
                self._lock.notify_all()

    def add_outcome(self, outcome: Outcome) -> None:
        """Takes in how the study came out."""
        best = outcome.summary.get("best")
        with self._lock:
            self._change_study(outcome=outcome)
            if best is not None:
                self._add(best["number"])
            self._lock.notify_all()

    def set_pace(self, *, hurry: bool, closing: bool = False) -> None:
        """Says whether somebody waits, and whether nothing more will come."""
        with self._lock:
            self.hurry, self.closing = hurry, closing or self.closing
            self._lock.notify_all()

    def round(self) -> list[int]:
        """Begins a round: the numbers that have waited longest."""
        with self._lock:
            self._delivering = True
            return list(self._waiting)[:_ROUND_TRIALS]

    def end_round(self) -> None:
        """Lets those know who wait for the last one."""
        with self._lock:
            self._delivering = False
            self._lock.notify_all()

    def latest(self, number: int) -> tuple[TrialState, StudyState]:
        """Returns what is to be delivered of a trial."""
        with self._lock:
            return self._waiting[number], self._study

    def took(self, number: int, trial: TrialState) -> None:
        """MLflow has this state of a trial."""
        with self._lock:
            self._progress += 1
            if self._waiting[number] is trial:
                del self._waiting[number]

    def refused(self, number: int) -> None:
        """Puts a trial last in line, so that it does not hold up others."""
        with self._lock:
            self._waiting[number] = self._waiting.pop(number)

    @property
    def study(self) -> StudyState:
        """What is to be shown of the study itself."""
        with self._lock:
            return self._study

    def took_study(self, state: StudyState) -> None:
        """MLflow has this state of the study."""
        with self._lock:
            self._progress += self._taken_changes != state.changes
            self._taken_changes = state.changes

    @property
    def progress(self) -> int:
        """Grows with what is taken."""
        with self._lock:
            return self._progress

    @property
    def study_waits(self) -> bool:
        """Whether the study's own run has changed."""
        with self._lock:
            return self._study_waits()

    @property
    def left(self) -> list[str]:
        """Names what has not been taken."""
        with self._lock:
            named = ["the study"] if self._study_waits() else []
            return named + [f"trial {number}" for number in sorted(self._waiting)]

    @property
    def is_idle(self) -> bool:
        """Whether all was taken."""
        with self._lock:
            return self._idle()

    def wait_until_idle(self, timeout: float) -> bool:
        """Waits at most so many seconds; returns whether all was taken."""
        with self._lock:
            return self._lock.wait_for(self._idle, timeout)

    def wait_for_hurry(self, timeout: float) -> None:
        """Waits at most so many seconds, less where somebody else waits."""
        self._wait(lambda: self.hurry, timeout)

    def wait_for_more(self, timeout: float) -> None:
        """Waits at most so many seconds, less where there is something to deliver."""
        self._wait(lambda: self.closing or not self._idle(), timeout)

    def _wait(self, condition: Callable[[], bool], timeout: float) -> None:
        with self._lock:
            self._lock.wait_for(condition, timeout)

    def _add(self, number: int) -> None:
        # A copy, for the driver goes on changing the trial.
        self._waiting[number] = self._ledger.trials[number].copy()

    def _change_study(
        self, *, closed: SessionClosed | None = None, outcome: Outcome | None = None
    ) -> None:
        before = self._study
        self._study = StudyState(
            changes=before.changes + 1,
            closed=closed or before.closed,
            outcome=outcome or before.outcome,
        )

    def _study_waits(self) -> bool:
        return self._taken_changes != self._study.changes

    def _idle(self) -> bool:
        return not (self._waiting or self._study_waits() or self._delivering)
