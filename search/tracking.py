"""MLflow from the driver: one thread makes its runs equal to the ledger, and nobody waits."""

import os
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from search.events import Event, RunKey, SessionClosed, TrialEvent
from search.ledger import Ledger
from search.mlflow_runs import MlflowRuns
from search.run_painter import Outcome, RunPainter
from search.run_picture import Point
from search.secrets import redacted
from search.system_metrics import SystemMetrics
from search.tracking_place import find_place
from search.trial import TrialState

GATHER_SECONDS = 1.0  # at most one batch a run in this time
LONGEST_BACK_OFF_SECONDS = 60.0


class Tracker:
    """Mirrors a study to MLflow: a parent run, a run a trial, and below it those of its runs.

    What is waiting is a set of trials, each with its latest state, so it never grows beyond the
    study and no measurement can be lost on the way: a failed call is repeated with back-off, and
    what MLflow has not taken when the tracker is closed is delivered by the next `--resume`.

    Args:
        uri: Tracking URI; None for what `find_place` says.
        on_problem: Called with one line when MLflow does not take runs (from another thread).
        sample_seconds: Time between two readings of this machine's load.

    Raises:
        TrackingError: No run can be kept at `uri`.
    """

    def __init__(
        self,
        uri: str | None,
        *,
        on_problem: Callable[[str], None],
        sample_seconds: float = 10.0,
    ) -> None:
        self._place = find_place(uri)
        self._on_problem = on_problem
        self._sample_seconds = sample_seconds
        self._next_reading = 0.0
        self._load: SystemMetrics | None = None
        self._changed = threading.Condition()
        self._give_up = threading.Event()
        self._thread = threading.Thread(target=self._work, name="tracker", daemon=True)
        # All below is guarded by `_changed`.
        self._ledger: Ledger | None = None
        self._waiting: dict[int, TrialState] = {}
        self._study_changes = self._study_changes_delivered = 0
        self._delivering = False
        self._hurry = False
        self._closing = False
        self._closed: SessionClosed | None = None
        self._outcome: Outcome | None = None
        self._run_ids: dict[int | RunKey, str] = {}
        self._study_run_id: str | None = None

    @property
    def uri(self) -> str:
        """The tracking URI, absolute and without a password."""
        return self._place.shown

    @property
    def study_run_id(self) -> str | None:
        """Run ID of the study; None until MLflow has it."""
        return self._study_run_id

    @property
    def run_ids(self) -> dict[int | RunKey, str]:
        """Run IDs that MLflow has given so far: of a trial by its number, of runs below it."""
        with self._changed:
            return dict(self._run_ids)

    def open(self, ledger: Ledger, painter: RunPainter) -> None:
        """Starts to deliver a study, with all that `ledger` holds already; returns at once."""
        self._painter = painter
        experiment = os.environ.get("MLFLOW_EXPERIMENT_NAME") or painter.study.study
        self._runs = MlflowRuns(self._place, experiment)
        with self._changed:
            self._ledger = ledger
            self._study_changes += 1
            for number in ledger.trials:
                self._await_delivery(number)
        self._thread.start()

    def handle(self, event: Event) -> None:
        """Takes in an event that the ledger has applied; before `open` there is no need to."""
        with self._changed:
            if self._ledger is None:
                return
            if isinstance(event, TrialEvent):
                self._await_delivery(event.number)
            elif isinstance(event, SessionClosed):
                self._close_runs(event)
            self._changed.notify_all()

    def log_outcome(self, summary: Mapping[str, Any], best_dir: Path | None) -> None:
        """Shows the content of `summary.json` and the winner's folder, when both are written."""
        with self._changed:
            self._outcome = Outcome(summary=summary, best_dir=best_dir)
            self._study_changes += 1
            if summary.get("best") is not None:
                self._await_delivery(summary["best"]["number"])
            self._changed.notify_all()

    def flush(self, timeout: float) -> bool:
        """Waits at most `timeout` seconds; true where MLflow has all."""
        with self._changed:
            if self._ledger is None:
                return False
            self._hurry = True
            self._changed.notify_all()
            done = self._changed.wait_for(self._is_idle, timeout)
            self._hurry = self._closing
            return done

    def close(self, timeout: float = 30.0) -> list[str]:
        """Ends all runs, waits at most `timeout` seconds, names the runs that did not arrive."""
        with self._changed:
            if self._ledger is None or self._closing:
                return []
            if self._closed is None:
                self._close_runs(SessionClosed(reason="interrupted"))
            self._closing = self._hurry = True
            self._changed.notify_all()
        self._thread.join(timeout)
        self._give_up.set()
        with self._changed:
            left = ["the study"] if self._study_waits() else []
            left += [f"trial {number}" for number in sorted(self._waiting)]
        if left:
            self._say(
                f"MLflow at {self.uri} did not take {len(left)} runs to the end "
                f"({', '.join(left[:5])}{', ...' if len(left) > 5 else ''}); "
                "nothing is lost: --resume delivers them"
            )
        return left

    def _await_delivery(self, number: int) -> None:
        assert self._ledger is not None
        # A copy, for the driver goes on changing the trial.
        self._waiting[number] = self._ledger.trials[number].copy()

    def _close_runs(self, event: SessionClosed) -> None:
        assert self._ledger is not None
        self._closed = event
        self._study_changes += 1
        for number in {run.number for run in self._ledger.unfinished()}:
            self._await_delivery(number)

    def _study_waits(self) -> bool:
        return self._study_changes_delivered != self._study_changes

    def _is_idle(self) -> bool:
        return not (self._waiting or self._study_waits() or self._delivering)

    def _work(self) -> None:
        back_off = GATHER_SECONDS
        while not self._give_up.is_set() and not (self._closing and self._is_idle()):
            try:
                self._deliver()
                back_off = GATHER_SECONDS
                self._rest()
            except Exception as problem:  # whatever MLflow raises, the search goes on
                self._complain(problem, first=back_off == GATHER_SECONDS)
                self._back_off(back_off)
                back_off = min(2 * back_off, LONGEST_BACK_OFF_SECONDS)

    def _rest(self) -> None:
        """Lets events gather, then waits for one or for the time of the next reading."""
        with self._changed:
            self._changed.wait_for(lambda: self._hurry, GATHER_SECONDS)
            until_reading = max(0.0, self._next_reading - time.monotonic())
            self._changed.wait_for(lambda: self._closing or not self._is_idle(), until_reading)

    def _back_off(self, seconds: float) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._hurry, seconds)
        if self._hurry:
            self._give_up.wait(GATHER_SECONDS / 2)

    def _deliver(self) -> None:
        with self._changed:
            self._delivering = True
            numbers = list(self._waiting)
        try:
            self._runs.open()
            if self._study_run_id is None:
                self._study_run_id = self._runs.mirror(self._painter.draw_study(None, None))
            try:
                for number in numbers:
                    self._deliver_trial(number, self._study_run_id)
            finally:
                self._deliver_study()
            self._read_load(self._study_run_id)
        finally:
            with self._changed:
                self._delivering = False
                self._changed.notify_all()

    def _deliver_trial(self, number: int, parent: str) -> None:
        with self._changed:
            trial, closed, outcome = self._waiting[number], self._closed, self._outcome
        try:
            run_id = self._runs.mirror(self._painter.draw_trial(trial, parent, closed, outcome))
            below: dict[int | RunKey, str] = {
                key: self._runs.mirror(picture)
                for key, picture in self._painter.draw_runs(trial, run_id, closed)
            }
        except BaseException:
            with self._changed:  # last in line, so that one bad trial does not hold up others
                self._waiting[number] = self._waiting.pop(number)
            raise
        with self._changed:
            self._run_ids[number] = run_id
            self._run_ids.update(below)
            if self._waiting[number] is trial:
                del self._waiting[number]

    def _deliver_study(self) -> None:
        with self._changed:
            changes, closed, outcome = self._study_changes, self._closed, self._outcome
        if changes != self._study_changes_delivered:
            self._runs.mirror(self._painter.draw_study(closed, outcome))
            self._study_changes_delivered = changes

    def _read_load(self, parent: str) -> None:
        now = time.monotonic()
        if now < self._next_reading or self._closed is not None:
            return
        self._next_reading = now + self._sample_seconds
        if self._load is None:
            self._load = SystemMetrics()  # the first reading tells nothing yet
            return
        seconds = time.time() - self._painter.study.at.timestamp()
        point = Point(
            step=int(seconds), milliseconds=int(time.time() * 1000), values=self._load.read()
        )
        self._runs.log_metrics(parent, point)

    def _complain(self, problem: Exception, *, first: bool) -> None:
        if first:
            text = redacted(str(problem).replace(self._place.uri, self.uri)).strip()
            self._say(
                f"MLflow at {self.uri} does not take runs ({type(problem).__name__}: "
                f"{text.partition(chr(10))[0][:200]}); the search goes on and tries again"
                + ("; `python -m search.services up` restarts it" if self._place.services else "")
            )

    def _say(self, line: str) -> None:
        self._on_problem(line)
