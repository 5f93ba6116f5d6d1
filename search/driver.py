"""Runs a study from its spec to its summary: what `python -m search.run` and notebooks call."""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from search.cluster import ray_running
from search.events import SessionOpened
from search.extension import refusal_of_trials
from search.history import History
from search.joining import wait_for_workers
from search.ledger import LedgerError
from search.prepared import PreparedStudy
from search.redelivery import last_close, open_record
from search.requests import waiting
from search.room import TrialResources, check_fits
from search.screen import Screen
from search.session import DELIVERY_SECONDS, Place, Session
from search.shared_storage import check_shared
from search.stop_request import StudyInterrupted, signals_held_back
from search.study import StudySpec, load_spec
from search.study_file import StudyError, check_same_spec, read_study
from search.study_folder import check_free, default_output, never_begun, out_of_order
from search.summary import SUMMARY_NAME, read_summary
from search.tracking import Tracker

__all__ = ["StudyInterrupted", "default_output", "run_study"]


def run_study(
    spec: StudySpec | str | Path,
    output: str | Path | None = None,
    *,
    resume: bool = False,
    address: str = "auto",
    without_token: bool = False,
    tracking_uri: str | None = None,
    max_concurrent: int | None = None,
    extra_trials: int = 0,
    extra_seconds: float = 0.0,
    look_again: bool = False,
    progress: bool = True,
    hint: str | None = None,
) -> dict[str, Any]:
    """Runs or resumes a study; returns what `summary.json` holds.

    Example:
        >>> from search import load_spec, run_study
        >>> summary = run_study(load_spec("spaces/mnist.yaml", size="quick"))
        >>> summary["best"]["params"]

    Args:
        spec: what is searched, or the path of a space file.
        output: the study's folder; by default that of `default_output`.
        resume: go on with the study in that folder; a finished one is only read.
        address: `auto`, `local`, or `HOST:PORT` of a Ray cluster.
        without_token: whether that cluster may be one that asks nobody for a token.
        tracking_uri: of MLflow; by default `MLFLOW_TRACKING_URI`, else that of this host's
            services (`search.services`), else `runs/mlflow.db`.
        max_concurrent: trials at a time; by default as many as fit.
        extra_trials: added to the budget of a resumed study.
        extra_seconds: added to the time of a resumed study.
        look_again: score the winner on the test set though another one was before, on record.
        progress: whether to print on standard error.
        hint: printed once there is something to resume, such as how.

    Raises:
        ValueError: if it cannot be started or gone on with (SpecError, StudyError, DataError,
            ClusterError, JournalError, …); the message names file, key, value and remedy.
        StudyInterrupted: at SIGINT or SIGTERM, when all is saved and can be resumed.
        KeyboardInterrupt: at SIGINT before this call has recorded anything.
    """
    spec = spec if isinstance(spec, StudySpec) else load_spec(spec)
    folder = (
        Path(output) if output is not None else default_output(spec, resume=resume)
    ).resolve()
    screen = Screen(silent=not progress, hint=hint)
    tracker = Tracker(tracking_uri, on_problem=screen.say)
    extension = SessionOpened(
        pid=os.getpid(), extra_trials=extra_trials, extra_seconds=extra_seconds
    )
    if refusal := refusal_of_trials(spec, extra_trials):
        raise StudyError(f"{folder}: {refusal}")
    if resume and never_begun(folder):
        screen.say(f"NOTE: nothing is recorded in {folder} yet, so the study begins")
        resume = False
    extended = extra_trials > 0 or extra_seconds > 0 or look_again
    asked = extended or bool(waiting(folder))
    if resume and not asked and (folder / SUMMARY_NAME).exists():
        summary = _read_finished(spec, folder, tracker)
        if summary is not None:
            return summary
    wanted = spec.resources
    pack = 1 if wanted.pack == "auto" else wanted.pack
    check_fits(TrialResources(wanted.cpus_per_trial, wanted.gpus_per_trial, pack), address)
    # The record is opened before the data are read: a folder in use is told at once.
    with ExitStack() as stack:
        with signals_held_back():
            history = stack.enter_context(_opened(spec, folder, resume=resume))
            stack.enter_context(_told_apart(history))
        prepared = PreparedStudy(spec, folder, resume=resume, say=screen.say)
        with signals_held_back():
            stack.enter_context(ray_running(address, without_token=without_token))
        wait_for_workers(screen.say, gpus=wanted.gpus_per_trial > 0)
        check_shared(folder)
        place = Place.found(prepared, history.ledger, screen, max_concurrent)
        session = Session(prepared, history, tracker, screen, place, look_again=look_again)
        return session.run(extension)


def _opened(spec: StudySpec, folder: Path, *, resume: bool) -> History:
    if not resume:
        check_free(spec, folder)
        return History.create(folder)
    read_study(folder)  # says best what is missing
    try:
        return History.resume(folder)
    except LedgerError as error:
        raise out_of_order(folder, error) from None


@contextmanager
def _told_apart(history: History) -> Iterator[None]:
    """Tells what left something to resume from what came too early, of which nothing is left."""
    before = len(history.ledger.sessions)
    try:
        yield
    except KeyboardInterrupt:
        if len(history.ledger.sessions) > before:
            raise StudyInterrupted from None
        raise
    finally:
        if history.ledger.study is None:  # refused, or cut short: it must not look like a study
            history.discard()


def _read_finished(spec: StudySpec, folder: Path, tracker: Tracker) -> dict[str, Any] | None:
    """Returns the summary of a study that has ended, after delivering what MLflow lacks of it.

    None where it was gone on with since then, and not to an end.

    Raises:
        StudyError: if it is another study than `spec`.
    """
    check_same_spec(spec, read_study(folder)["spec"], folder)
    with History.resume(folder) as history:
        summary = read_summary(folder, history.ledger)
        if summary is None:
            return None
        if history.ledger.session_open:  # killed after its last file, before its last line
            history.append(last_close(history.journal.found, finished=True))
        open_record(history, tracker)
        tracker.close(DELIVERY_SECONDS)
    return summary
