"""MLflow from the driver: threads make its runs equal to the ledger, and nobody waits."""

import os
import sys
import threading
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from search.backlog import Backlog
from search.couriers import deliver_in_order
from search.events import Event, RunKey, SessionClosed
from search.ledger import Ledger
from search.mlflow_runs import MlflowRuns
from search.run_painter import Outcome, RunPainter
from search.run_picture import Point
from search.secrets import redacted
from search.system_metrics import SystemMetrics
from search.tracking_place import find_place

GATHER_SECONDS = 1.0  # at most one batch a run in this time
LONGEST_BACK_OFF_SECONDS = 60.0
# Trials that are delivered at once: a server works while the next call is made ready. A file
# takes one after another.
_AT_ONCE = 2
# For how long these threads may keep Python from the driver's, which waits for it after each fsync
# of the journal. By Python's 5 ms, at 200 results a second, they took half of the driver's time.
_SWITCH_SECONDS = 0.0005


class Tracker:
    """Mirrors a study to MLflow: a parent run, a run a trial, and below it those of its runs.

    What is waiting is a set of trials, each with its latest state, so it never grows beyond the
    study and no measurement can be lost on the way: a failed call is repeated with back-off, and
    what MLflow has not taken when the tracker is closed is delivered by the next `--resume`, or
    by `search.sync`.

    Args:
        uri: Tracking URI; None for what `find_place` says.
        on_problem: Called with one line when MLflow does not take runs (from another thread).
        sample_seconds: Time between two readings of this machine's load; None for no readings.

    Raises:
        TrackingError: No run can be kept at `uri`.
    """

    def __init__(
        self,
        uri: str | None,
        *,
        on_problem: Callable[[str], None],
        sample_seconds: float | None = 10.0,
    ) -> None:
        self._place = find_place(uri)
        self._on_problem = on_problem
        self._sample_seconds = sample_seconds
        self._next_reading = 0.0
        self._switch_seconds = sys.getswitchinterval()
        self._load: SystemMetrics | None = None
        self._give_up = threading.Event()
        self._thread = threading.Thread(target=self._work, name="tracker", daemon=True)
        self._backlog: Backlog | None = None
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
        return self._run_ids.copy()  # at once, whoever adds to it meanwhile

    @property
    def left(self) -> list[str]:
        """Names the runs whose latest state MLflow has not taken."""
        return [] if self._backlog is None else self._backlog.left

    def open(self, ledger: Ledger, painter: RunPainter) -> None:
        """Starts to deliver a study, with all that `ledger` holds already; returns at once."""
        self._painter = painter
        experiment = os.environ.get("MLFLOW_EXPERIMENT_NAME") or painter.study.study
        self._runs = MlflowRuns(self._place, experiment, painter.study.study_id)
        self._backlog = Backlog(ledger)
        sys.setswitchinterval(_SWITCH_SECONDS)
        self._thread.start()

    def handle(self, event: Event) -> None:
        """Takes in an event that the ledger has applied; before `open` there is no need to."""
        if self._backlog is not None:
            self._backlog.handle(event)

    def log_outcome(self, summary: Mapping[str, Any], best_dir: Path | None) -> None:
        """Shows the content of `summary.json` and the winner's folder, when both are written."""
        if self._backlog is not None:
            self._backlog.add_outcome(Outcome(summary=summary, best_dir=best_dir))

    def flush(self, timeout: float) -> bool:
        """Waits at most `timeout` seconds; true where MLflow has all."""
        if self._backlog is None:
            return False
        self._backlog.set_pace(hurry=True)
        done = self._backlog.wait_until_idle(timeout)
        self._backlog.set_pace(hurry=self._backlog.closing)
        return done

    def flush_patiently(self, patience: float) -> bool:
        """Waits until MLflow has all, or has taken nothing for `patience` seconds."""
        assert self._backlog is not None
        before = -1
        while self._backlog.progress > before:
            before = self._backlog.progress
            if self.flush(patience):
                return True
        return False

    def close(self, timeout: float = 30.0) -> list[str]:
        """Ends all runs, waits at most `timeout` seconds, names the runs that did not arrive."""
        backlog = self._backlog
        if backlog is None or backlog.closing:
            return []
        if backlog.study.closed is None:
            backlog.handle(SessionClosed(reason="interrupted"))
        backlog.set_pace(hurry=True, closing=True)
        self._thread.join(timeout)
        self._give_up.set()
        sys.setswitchinterval(self._switch_seconds)
        left = backlog.left
        if left:
            self._on_problem(
                f"MLflow at {self.uri} did not take {len(left)} runs to the end "
                f"({', '.join(left[:5])}{', ...' if len(left) > 5 else ''}); nothing is lost: "
                f"`python -m search.sync {self._painter.output}` delivers them, or --resume"
            )
        return left

    def _work(self) -> None:
        assert self._backlog is not None
        back_off = GATHER_SECONDS
        while not self._give_up.is_set() and not (self._backlog.closing and self._backlog.is_idle):
            try:
                self._deliver(self._backlog)
                back_off = GATHER_SECONDS
                self._rest(self._backlog)
            except Exception as problem:  # whatever MLflow raises, the search goes on
                self._complain(problem, first=back_off == GATHER_SECONDS)
                self._back_off(self._backlog, back_off)
                back_off = min(2 * back_off, LONGEST_BACK_OFF_SECONDS)

    def _rest(self, backlog: Backlog) -> None:
        """Lets events gather, then waits for one or for the time of the next reading."""
        backlog.wait_for_hurry(GATHER_SECONDS)
        backlog.wait_for_more(max(0.0, self._next_reading - time.monotonic()))

    def _back_off(self, backlog: Backlog, seconds: float) -> None:
        backlog.wait_for_hurry(seconds)
        if backlog.hurry:
            self._give_up.wait(GATHER_SECONDS / 2)

    def _deliver(self, backlog: Backlog) -> None:
        numbers = backlog.round()
        try:
            self._runs.open()
            if self._study_run_id is None:
                self._study_run_id = self._begin_study(backlog)
            try:
                at_once = 1 if self._place.database else min(_AT_ONCE, len(numbers))
                deliver = partial(self._deliver_trial, backlog, self._study_run_id)
                deliver_in_order(numbers, deliver, at_once)
            finally:
                self._deliver_study(backlog)
            self._read_load(backlog, self._study_run_id)
        finally:
            backlog.end_round()

    def _begin_study(self, backlog: Backlog) -> str:
        """Takes up the study's run, unless it is ended for good: children need its ID."""
        closed = self._painter.draw_study(backlog.study.closed, None)
        found = self._runs.found_whole(closed)
        return found or self._runs.mirror(self._painter.draw_study(None, None))

    def _deliver_trial(self, backlog: Backlog, parent: str, number: int) -> None:
        if self._give_up.is_set():
            return
        trial, study = backlog.latest(number)
        try:
            picture = self._painter.draw_trial(trial, parent, study.closed, study.outcome)
            run_id = self._runs.mirror(picture)
            below: dict[int | RunKey, str] = {
                key: self._runs.mirror(picture)
                for key, picture in self._painter.draw_runs(trial, run_id, study.closed)
            }
        except BaseException:
            backlog.refused(number)
            raise
        self._run_ids.update(below | {number: run_id})
        backlog.took(number, trial)

    def _deliver_study(self, backlog: Backlog) -> None:
        if backlog.study_waits:
            state = backlog.study
            self._runs.mirror(self._painter.draw_study(state.closed, state.outcome))
            backlog.took_study(state)

    def _read_load(self, backlog: Backlog, parent: str) -> None:
        now = time.monotonic()
        if self._sample_seconds is None:
            self._next_reading = now + LONGEST_BACK_OFF_SECONDS
            return
        if now < self._next_reading or backlog.study.closed is not None:
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
            self._on_problem(
                f"MLflow at {self.uri} does not take runs ({type(problem).__name__}: "
                f"{text.partition(chr(10))[0][:200]}); it is tried again, and nobody waits for it"
                + ("; `python -m search.services up` restarts it" if self._place.services else "")
            )
