"""Runs a study from its spec to its summary: what `python -m search.run` and notebooks call."""

import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from search.cluster import TrialResources, fit_resources, ray_running, room_for_trials
from search.estimate import Estimate, describe
from search.events import Event, SessionClosed, SessionOpened
from search.history import JOURNAL_NAME, History
from search.machine import cores
from search.outcome import BEST_FOLDER, SUMMARY_NAME, Closing, trial_flags
from search.prepared import PreparedStudy, check_same_spec, painter, read_study
from search.record import write_record
from search.screen import Screen
from search.stop_request import StopRequest
from search.study import StudySpec, load_spec
from search.tracking import Tracker
from search.tuner import run_trials

RECORD_SECONDS = 30.0
DELIVERY_SECONDS = 30.0  # patience with a tracking server at the end; --resume delivers the rest


class StudyInterrupted(KeyboardInterrupt):
    """The study was stopped by a signal; all is recorded, and `resume` goes on."""


def run_study(
    spec: StudySpec | str | Path,
    output: str | Path | None = None,
    *,
    resume: bool = False,
    address: str = "auto",
    tracking_uri: str | None = None,
    max_concurrent: int | None = None,
    extra_trials: int = 0,
    extra_seconds: float = 0.0,
    progress: bool = True,
) -> dict[str, Any]:
    """Runs or resumes a study; returns what `summary.json` holds.

    Example:
        >>> from search import load_spec, run_study
        >>> summary = run_study(load_spec("spaces/mnist.yaml", size="quick"))
        >>> summary["best"]["params"]

    Args:
        spec: what is searched, or the path of a space file.
        output: the study's folder; by default `runs/<study>[-<size>]`.
        resume: go on with the study in that folder; a finished one is only read.
        address: `auto`, `local`, or `HOST:PORT` of a Ray cluster.
        tracking_uri: of MLflow; by default `MLFLOW_TRACKING_URI`, else `runs/mlflow.db`.
        max_concurrent: trials at a time; by default as many as fit.
        extra_trials: added to the budget of a resumed study.
        extra_seconds: added to the time of a resumed study.
        progress: whether to print on standard error.

    Raises:
        ValueError: if it cannot be started or gone on with (SpecError, StudyError, DataError,
            ClusterError, JournalError, …); the message names file, key, value and remedy.
        StudyInterrupted: at SIGINT or SIGTERM, when all is saved.
    """
    spec = spec if isinstance(spec, StudySpec) else load_spec(spec)
    folder = (Path(output) if output is not None else default_output(spec)).resolve()
    screen = Screen(silent=not progress)
    tracker = Tracker(tracking_uri, on_problem=screen.say)
    extension = SessionOpened(
        pid=os.getpid(), extra_trials=extra_trials, extra_seconds=extra_seconds
    )
    resume = resume and not _never_begun(folder)
    extended = extra_trials > 0 or extra_seconds > 0
    if resume and not extended and (folder / SUMMARY_NAME).exists():
        return _read_finished(spec, folder, tracker)
    prepared = PreparedStudy(spec, folder, resume=resume, say=screen.say)
    opened = History.resume(folder) if resume else History.create(folder)
    with opened as history, ray_running(address):
        place = Place.found(spec, screen, max_concurrent)
        session = _Session(prepared, history, tracker, screen, place)
        return session.run(extension)


def default_output(spec: StudySpec) -> Path:
    """Returns `runs/<study>[-<size>]`."""
    return Path("runs") / (spec.study + (f"-{spec.size}" if spec.size else ""))


def dry_run(spec: StudySpec, output: Path, max_concurrent: int | None = None) -> str:
    """Returns the resolved study, its plan and its cost on this machine; nothing is begun.

    Raises:
        DataError: if the data cannot be had.
    """
    notes: list[str] = []
    prepared = PreparedStudy(spec, output, resume=False, say=notes.append)
    room = max_concurrent or max(1, int(cores() / spec.resources.cpus_per_trial))
    cost = prepared.estimate(min(room, spec.budget.trials))
    resolved = json.dumps(spec.model_dump(mode="json"), indent=2)
    return "\n".join([*notes, resolved, *describe(spec, cost)])


def _never_begun(folder: Path) -> bool:
    """Returns whether a start was cut short before anything was recorded."""
    journal = folder / JOURNAL_NAME
    return journal.exists() and journal.stat().st_size == 0


def _read_finished(spec: StudySpec, folder: Path, tracker: Tracker) -> dict[str, Any]:
    """Returns the summary of a study that has ended, after delivering what MLflow lacks of it.

    Raises:
        StudyError: if it is another study than `spec`.
    """
    recorded = read_study(folder)
    check_same_spec(spec, recorded["spec"], folder)
    summary: dict[str, Any] = json.loads((folder / SUMMARY_NAME).read_text())
    with History.resume(folder) as history:
        closed = SessionClosed(reason="finished")
        if history.ledger.session_open:  # killed after its last file, before its last line
            history.append(closed)
        assert history.ledger.study is not None
        dataset = recorded["dataset"]
        tracker.open(history.ledger, painter(spec, folder, history.ledger.study, dataset))
        tracker.log_outcome(summary, folder / BEST_FOLDER if summary["best"] else None)
        tracker.handle(closed)
        tracker.close(DELIVERY_SECONDS)
    return summary


@dataclass(frozen=True)
class Place:
    """What there is to run on: what a trial gets, and how many trials fit."""

    resources: TrialResources
    concurrent: int

    @classmethod
    def found(cls, spec: StudySpec, screen: Screen, max_concurrent: int | None) -> Self:
        """Looks at the cluster, and says what is missing.

        Raises:
            ClusterError: if not even one trial fits.
        """
        wanted = TrialResources(spec.resources.cpus_per_trial, spec.resources.gpus_per_trial)
        resources, notice = fit_resources(wanted)
        if notice:
            screen.say(f"NOTE: {notice}")
        return cls(resources, max_concurrent or room_for_trials(resources))


class _Session:
    """One driver's turn at a study."""

    def __init__(
        self,
        prepared: PreparedStudy,
        history: History,
        tracker: Tracker,
        screen: Screen,
        place: Place,
    ) -> None:
        self._prepared, self._history, self._tracker = prepared, history, tracker
        self._screen, self._place, self._spec = screen, place, prepared.spec
        self._recorded = time.monotonic()

    def run(self, extension: SessionOpened) -> dict[str, Any]:
        cost = self._prepared.estimate(min(self._place.concurrent, self._spec.budget.trials))
        for line in describe(self._spec, cost):
            self._screen.say(line)
        self._lines = self._prepared.lines()
        self._open(extension, cost)
        try:
            return self._run_and_close()
        except BaseException as error:
            reason = "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"
            if self._history.ledger.session_open:
                self._history.append(SessionClosed(reason=reason))
            raise
        finally:
            self._write_record()
            self._tracker.close(DELIVERY_SECONDS)

    def _open(self, extension: SessionOpened, cost: Estimate) -> None:
        history = self._history
        if history.ledger.study is None:
            opened = self._prepared.opened()
            self._prepared.write_study(opened, self._lines)
            history.append(opened)
        assert history.ledger.study is not None
        (history.folder / SUMMARY_NAME).unlink(missing_ok=True)  # of before an extension
        history.append(extension)
        self._screen.watch(self._spec, history.ledger, cost.seconds)
        for listener in (self._tracker.handle, self._screen.event, self._record_now_and_then):
            history.listen(listener)
        drawn = painter(self._spec, history.folder, history.ledger.study, self._prepared.dataset)
        self._tracker.open(history.ledger, drawn)

    def _run_and_close(self) -> dict[str, Any]:
        history, prepared = self._history, self._prepared
        stop = StopRequest(self._seconds_left())
        with stop.on_signals():
            run_trials(
                self._spec,
                history,
                prepared.make_runs(),
                prepared.output,
                max_concurrent=self._place.concurrent,
                stop=stop,
                resources=self._place.resources,
                on_progress=self._screen.progress,
            )
        if stop.reason == "interrupted":
            self._screen.status()
            raise StudyInterrupted
        self._screen.say("scoring the winner on the test set")
        self._tracker.flush(DELIVERY_SECONDS)  # so that the summary has every run's ID
        closing = Closing(
            self._spec, history.ledger, prepared.evaluator, self._lines, prepared.output
        )
        summary = closing.write(self._run_ids(), self._tracker.uri)
        best = prepared.output / BEST_FOLDER if summary["best"] else None
        self._tracker.log_outcome(summary, best)
        history.append(SessionClosed(reason="time_budget" if stop.reason else "finished"))
        return summary

    def _seconds_left(self) -> float | None:
        limit = self._spec.budget.time
        if limit is None:
            return None
        ledger = self._history.ledger
        return max(0.0, limit + ledger.extra_seconds - ledger.spent_seconds)

    def _run_ids(self) -> dict[int, str]:
        found = {n: self._tracker.run_id(n) for n in self._history.ledger.trials}
        return {number: run_id for number, run_id in found.items() if run_id is not None}

    def _record_now_and_then(self, event: Event) -> None:
        if time.monotonic() - self._recorded >= RECORD_SECONDS:
            self._write_record()

    def _write_record(self) -> None:
        self._recorded = time.monotonic()
        ledger, protocol = self._history.ledger, self._prepared.protocol
        write_record(
            ledger,
            self._prepared.output,
            protocol.dataset_digest,
            protocol.digest,
            self._run_ids(),
            metric=self._spec.objective.metric,
            direction=self._spec.objective.direction,
            flags=trial_flags(self._spec, ledger, self._lines),
        )
