"""What the driver does at each turn of a trial: write it down, then rule whether it goes on."""

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path

from search.early_stopping import EarlyStopping
from search.events import Checkpointed, Ended, Measured, Retried, Started, TrialEvent
from search.history import History
from search.seat import Place
from search.stop_request import StopRequest
from search.trial_run import Progress

OnProgress = Callable[[int, Progress], None]
HOPELESS_FAILURES = 3


class StudyFailedError(RuntimeError):
    """Trials fail one after another, so that to go on would only use up the study."""


class Referee:
    """Keeps the record of running trials and decides which of them stop.

    Knows nothing of Ray. A record that cannot be written, or trials that all fail, stop the
    study: the error is kept in `fault`, for Tune swallows or wraps what is raised in its hooks.

    Args:
        history: the study's record; everything is in it before anything acts on it.
        stop: a wish that the study stop.
        early_stopping: who goes on; None lets every trial train to its full budget.
        on_progress: hears of every result, measured or not.
    """

    def __init__(
        self,
        history: History,
        stop: StopRequest,
        early_stopping: EarlyStopping | None = None,
        on_progress: OnProgress | None = None,
    ) -> None:
        self.fault: Exception | None = None
        self.running: set[int] = set()
        self._history = history
        self._stop = stop
        self._early_stopping = early_stopping
        self._on_progress = on_progress
        self._rulings: dict[int, Ended] = {}
        self._failures = 0
        self._measured = False

    def started(
        self, number: int, place: Place, *, pack: int, restored: bool, threads: int | None = None
    ) -> None:
        """An attempt begins, from the latest checkpoint if `restored`."""
        self.running.add(number)
        trial = self._history.ledger.trials[number]
        from_kimg = trial.checkpoint.kimg if restored and trial.checkpoint else 0.0
        self._write(
            Started(
                number=number,
                attempt=trial.attempts,
                from_kimg=from_kimg,
                pack=pack,
                threads=threads,
                **dataclasses.asdict(place),
            )
        )

    def progressed(self, number: int, progress: Progress) -> bool:
        """Records a measurement; returns whether the trial must stop."""
        infeasible = infeasibility(progress)
        if progress.metrics is not None and not infeasible:
            self._measured = True
            self._keep_points(number, progress.kimg)
            self._write(
                Measured(
                    number=number,
                    kimg=progress.kimg,
                    elapsed_seconds=progress.elapsed_seconds,
                    metrics=dict(progress.metrics),
                )
            )
        if self._on_progress is not None:
            self._on_progress(number, progress)
        ruling = self._rule(number, progress, infeasible)
        if ruling is not None:
            self._rulings[number] = ruling
        return ruling is not None or self.stopping

    def checkpointed(self, number: int, kimg: float, path: Path) -> None:
        """The state at `kimg` is in the folder `path`, relative to the output folder."""
        self._write(Checkpointed(number=number, kimg=kimg, path=path.as_posix()))

    def checkpoint_of(self, number: int) -> str | None:
        """Returns the folder that the record would resume a trial from."""
        checkpoint = self._history.ledger.trials[number].checkpoint
        return None if checkpoint is None else checkpoint.path

    def retried(self, number: int, cause: str) -> None:
        """An attempt was lost and another one will follow."""
        self.running.discard(number)
        self._rulings.pop(number, None)
        self._write(Retried(number=number, cause=cause))

    def failed(self, number: int, cause: str) -> None:
        """The last attempt was lost."""
        self.running.discard(number)
        self._write(Ended(number=number, state="FAILED", reason=cause))
        self._failures += 1
        if self._failures == HOPELESS_FAILURES and not self._measured:
            self.fault = self.fault or StudyFailedError(
                f"the first {HOPELESS_FAILURES} trials failed before any measurement, the last "
                f"one by {cause}"
            )

    def finished(self, number: int) -> None:
        """The trial is off its machine: it ends as ruled, or stays unfinished to be resumed."""
        self.running.discard(number)
        ruling = self._rulings.pop(number, None)
        if ruling is not None:
            self._write(ruling)

    def close_unfinished(self) -> None:
        """At the end of the time budget, ends the trials that were waiting or hung."""
        for trial in self._history.ledger.unfinished():
            self._write(Ended(number=trial.number, state="STOPPED", reason="time_budget"))

    @property
    def stopping(self) -> bool:
        """Whether no trial should go on."""
        return self._stop.reason is not None or self.fault is not None

    def may_be_resumed(self, number: int) -> bool:
        """Whether a trial that stops now will be wanted again."""
        return self.stopping and number not in self._rulings

    def _rule(self, number: int, progress: Progress, infeasible: str | None) -> Ended | None:
        if infeasible:
            return Ended(number=number, state="INFEASIBLE", reason=infeasible)
        if progress.done:
            return Ended(number=number, state="COMPLETED")
        if self._stop.reason == "time_budget":
            return Ended(number=number, state="STOPPED", reason="time_budget")
        if progress.metrics is None or self._early_stopping is None or self.fault is not None:
            return None
        rule, trials = self._early_stopping.rule, self._history.ledger.trials
        if rule.rung_to_stop_at(number, trials) is None:
            return None
        return Ended(number=number, state="STOPPED", reason=rule.name)

    def _keep_points(self, number: int, kimg: float) -> None:
        if self._early_stopping is None or self._early_stopping.points is None or self.fault:
            return
        try:
            self._early_stopping.points.keep(number, kimg)
        except Exception as fault:
            self.fault = fault

    def _write(self, event: TrialEvent) -> None:
        if self.fault is not None:
            return
        try:
            self._history.append(event)
        except Exception as fault:
            self.fault = fault


def infeasibility(progress: Progress) -> str | None:
    """Says why a trial cannot go on: its training says so, or a score is not finite."""
    if progress.infeasible:
        return progress.infeasible
    for name, value in (progress.metrics or {}).items():
        if not math.isfinite(value):
            return f"{name} is {value} at {progress.kimg:g} kimg"
    return None
