"""Delivers a recorded study to MLflow, whether it ended or its driver is gone."""

from collections.abc import Sequence

from cgan_core.model import BEST_FOLDER
from search.events import Event, SessionClosed, SessionOpened
from search.history import History
from search.lines import Lines
from search.prepared import painter
from search.study import StudySpec
from search.study_file import read_study
from search.summary import read_summary
from search.tracking import Tracker


def open_record(history: History, tracker: Tracker) -> None:
    """Hands a tracker all that is on record of a study; nothing is written.

    Raises:
        StudyError: if `study.json` is missing or broken.
    """
    recorded, folder = read_study(history.folder), history.folder
    opened = history.ledger.study
    assert opened is not None
    spec = StudySpec.from_mapping(opened.spec)
    lines = Lines.from_mapping(recorded["validation_lines"])
    tracker.open(history.ledger, painter(spec, folder, opened, recorded["dataset"], lines))
    summary = read_summary(folder, history.ledger)
    if summary is not None:
        tracker.log_outcome(summary, folder / BEST_FOLDER if summary["best"] else None)
    tracker.handle(last_close(history.journal.found, finished=summary is not None))


def last_close(events: Sequence[Event], *, finished: bool) -> SessionClosed:
    """Returns how a study was put down; where nobody could say so, at its last event.

    Args:
        events: All of them.
        finished: Whether its summary was written.
    """
    for event in reversed(events):
        if isinstance(event, SessionClosed):
            return event
        if isinstance(event, SessionOpened):
            break
    return SessionClosed(reason="finished" if finished else "interrupted", at=events[-1].at)
