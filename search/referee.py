"""What the driver does at each turn of a run: write it down, then rule whether it goes on."""

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path

from search.cause import Cause
from search.early_stopping import EarlyStopping
from search.events import (
    Checkpointed,
    Ended,
    Measured,
    Paused,
    Purpose,
    Retried,
    RunEvent,
    RunKey,
    Started,
)
from search.failure_streak import FailureStreak, StudyFailedError
from search.history import History
from search.lost_attempt import end_of, full_disk
from search.proposer import Proposer
from search.run_queue import RunQueue
from search.run_state import RunState
from search.seat import Place
from search.stop_request import StopRequest
from search.trial_run import Progress

OnProgress = Callable[[RunKey, Progress], None]


class Referee:
    """Keeps the record of running trials and decides which of them stop or pause.

    Knows nothing of Ray. A record that cannot be written, or trials that all fail, stop the
    study: the error is kept in `fault`, for Tune swallows or wraps what is raised in its hooks.

    Args:
        history: the study's record; everything is in it before anything acts on it.
        stop: a wish that the study stop.
        queue: the runs that want a place.
        early_stopping: who goes on; None lets every trial train to its full budget.
        on_progress: hears of every result, measured or not.
        proposer: what may propose further trials; None where nothing is proposed any more.
    """

    def __init__(
        self,
        history: History,
        stop: StopRequest,
        queue: RunQueue,
        early_stopping: EarlyStopping | None = None,
        on_progress: OnProgress | None = None,
        proposer: Proposer | None = None,
    ) -> None:
        self.fault: Exception | None = None
        self.running: set[RunKey] = set()
        self._history = history
        self._stop = stop
        self._queue = queue
        self._early_stopping = early_stopping
        self._on_progress = on_progress
        self._proposer = proposer
        self._rulings: dict[RunKey, Ended | Paused] = {}
        self._streak = FailureStreak()

    def started(
        self, key: RunKey, place: Place, *, pack: int, restored: bool, threads: int | None = None
    ) -> None:
        """An attempt begins, from the latest checkpoint if `restored`."""
        self.running.add(key)
        self._stop.begin()
        run = self._history.ledger.run(key)
        from_kimg = run.checkpoint.kimg if restored and run.checkpoint else 0.0
        self._write(
            Started(
                **key._asdict(),
                attempt=run.attempts,
                from_kimg=from_kimg,
                pack=pack,
                threads=threads,
                **dataclasses.asdict(place),
            )
        )

    def progressed(self, key: RunKey, progress: Progress) -> bool:
        """Records a measurement; returns whether the run must leave its machine."""
        infeasible = infeasibility(progress)
        if progress.metrics is not None and not infeasible:
            self._streak.measured(self._history.ledger.run(key).node)
            self._keep_points(key, progress.kimg)
            self._write(
                Measured(
                    **key._asdict(),
                    kimg=progress.kimg,
                    elapsed_seconds=progress.elapsed_seconds,
                    metrics=dict(progress.metrics),
                )
            )
        if self._on_progress is not None:
            self._on_progress(key, progress)
        ruling = self._rule(key, progress, infeasible)
        if ruling is not None:
            self._rulings[key] = ruling
        return ruling is not None or self.stopping

    def checkpointed(self, key: RunKey, kimg: float, path: Path) -> None:
        """The state at `kimg` is in the folder `path`, relative to the output folder."""
        self._write(Checkpointed(**key._asdict(), kimg=kimg, path=path.as_posix()))

    def needed_checkpoints(self, key: RunKey) -> set[str]:
        """The folders that the record would begin a run from, this one or any unfinished one.

        An exploit begins from its donor's until it has saved its own, wherever the donor is now.
        """
        ledger = self._history.ledger
        runs = [ledger.run(key), *ledger.unfinished()]
        return {run.checkpoint.path for run in runs if run.checkpoint is not None}

    def host_of(self, key: RunKey) -> str | None:
        """The machine of a run's latest attempt."""
        return self._history.ledger.run(key).node

    def lost(self, key: RunKey, cause: Cause) -> None:
        """An attempt was lost: the run wants a place again, or ends."""
        self.running.discard(key)
        self._rulings.pop(key, None)
        run = self._history.ledger.run(key)
        end, stops = end_of(run, cause), full_disk(run, cause)
        if end is None:
            self._write(Retried(**key._asdict(), cause=cause.text, kind=cause.kind))
            if stops is not None:
                self.fault = self.fault or StudyFailedError(stops)
            self._end_idle(key.number)  # its trial may have been stopped meanwhile
            return
        self._end(end)
        if end.state == "FAILED":
            node = self._history.ledger.run(key).node
            self.guard(lambda: self._streak.failed(node, cause.text))

    def finished(self, key: RunKey) -> None:
        """The run is off its machine: it ends as ruled, pauses, or stays to be resumed."""
        self.running.discard(key)
        ruling = self._rulings.pop(key, None)
        if isinstance(ruling, Ended):
            self._end(ruling)
        elif ruling is not None:
            self._write(ruling)
            self._end_idle(key.number)  # its trial may have been stopped while it saved

    def settle(self, kimg_per_trial: float) -> None:
        """Makes up for what the last driver was killed before it could write.

        A run may have been measured and saved, but not yet ruled upon. One that came to its full
        budget so is COMPLETED, whatever its rungs and the clock say by now.

        Args:
            kimg_per_trial: that budget.
        """
        for run in self._history.ledger.unfinished():
            saved = None if run.checkpoint is None else run.checkpoint.kimg
            if not run.measurements or saved != run.total_kimg:
                continue
            if run.attempts and run.total_kimg >= kimg_per_trial:
                self._write(Ended(**run.key._asdict(), state="COMPLETED"))
            elif run.purpose == "search":
                reason = self._falls_behind(run.number)
                if reason is not None:
                    self._write(Ended(**run.key._asdict(), state="STOPPED", reason=reason))
        self.end_stopped()

    def end_stopped(self) -> None:
        """Ends idle runs of trials that were asked to stop, or stopped just before a kill."""
        for number in self._history.ledger.trials:
            self._end_idle(number)

    def close_unfinished(self, purpose: Purpose, reason: str) -> None:
        """Ends the runs that were waiting or hung when their time was over.

        A run of the search that was never begun stays claimed, or its cell would be lost: a later
        session runs it first. It ends where its trial does. Runs of other phases are claimed anew.
        """
        for run in self._history.ledger.unfinished():
            if run.purpose == purpose and (run.attempts or purpose != "search"):
                self._write(Ended(**run.key._asdict(), state="STOPPED", reason=reason))
        for run in self._history.ledger.unfinished():
            stopped = self._history.ledger.trials[run.number].stop_reason
            if run.purpose == purpose == "search" and stopped is not None:
                self._write(Ended(**run.key._asdict(), state="STOPPED", reason=stopped))

    def close_waiting(self) -> None:
        """At the end of the search, ends the runs that nobody promoted."""
        for run in self._queue.never_promoted(self._history.ledger):
            self._write(Ended(**run.key._asdict(), state="STOPPED", reason="asha"))

    @property
    def stopping(self) -> bool:
        """Whether no trial should go on."""
        return self._stop.reason is not None or self.fault is not None

    def may_be_resumed(self, key: RunKey) -> bool:
        """Whether a run that stops now will be wanted again."""
        return self.stopping and not isinstance(self._rulings.get(key), Ended)

    def _rule(
        self, key: RunKey, progress: Progress, infeasible: str | None
    ) -> Ended | Paused | None:
        here, run = key._asdict(), self._history.ledger.run(key)
        if infeasible:
            return Ended(**here, state="INFEASIBLE", reason=infeasible)
        if progress.done:
            return Ended(**here, state="COMPLETED")
        if self._stop.reason == "time_budget":
            return Ended(**here, state="STOPPED", reason="time_budget")
        if run.purpose != "search":
            return None
        reason = self._history.ledger.trials[key.number].stop_reason
        if reason is None and progress.metrics is not None and self.fault is None:
            reason = self._falls_behind(key.number)
            if reason is None and self._pauses(run):
                return Paused(**here)
        return None if reason is None else Ended(**here, state="STOPPED", reason=reason)

    def _falls_behind(self, number: int) -> str | None:
        rule = None if self._early_stopping is None else self._early_stopping.rule
        if rule is None or rule.rung_to_stop_at(number, self._history.ledger.trials) is None:
            return None
        return rule.name

    def _pauses(self, run: RunState) -> bool:
        ledger = self._history.ledger
        others_wait = self._proposer is not None and self._proposer.has_more(ledger)
        return self._queue.pauses(run, ledger, others_wait=others_wait)

    def _end(self, ended: Ended) -> None:
        self._write(ended)
        self._end_idle(ended.number)

    def _end_idle(self, number: int) -> None:
        """Ends what is on no machine of a trial that was stopped; the rest stops by itself."""
        trial = self._history.ledger.trials[number]
        reason = trial.stop_reason
        for run in trial.search_runs:
            if reason is not None and not run.ended and run.key not in self._queue.handed:
                self._write(Ended(**run.key._asdict(), state="STOPPED", reason=reason))

    def _keep_points(self, key: RunKey, kimg: float) -> None:
        if self._early_stopping is None or self._early_stopping.points is None or self.fault:
            return
        try:
            self._early_stopping.points.keep(key, kimg)
        except Exception as fault:
            self.fault = fault

    def guard(self, act: Callable[[], None]) -> None:
        """Does what writes the record, until a fault stops the study; what it raises is kept."""
        if self.fault is not None:
            return
        try:
            act()
        except Exception as fault:
            self.fault = fault

    def _write(self, event: RunEvent) -> None:
        self.guard(lambda: self._history.append(event))


def infeasibility(progress: Progress) -> str | None:
    """Says why a trial cannot go on: its training says so, or a score is not finite."""
    if progress.infeasible:
        return progress.infeasible
    for name, value in (progress.metrics or {}).items():
        if not math.isfinite(value):
            return f"{name} is {value} at {progress.kimg:g} kimg"
    return None
