"""History: on disk before in memory, in memory before anyone is told, and resumed as it was."""

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_events import proposed

from search.cell import cell_key
from search.events import (
    Ended,
    Event,
    Measured,
    Retried,
    SessionOpened,
    Started,
    StudyOpened,
)
from search.history import JOURNAL_NAME, History, HistoryError
from search.journal import Journal, JournalError, JournalExists, JournalLocked
from search.ledger import Ledger, LedgerError

OPENED = StudyOpened(
    study="toy",
    study_id="0" * 32,
    spec={},
    spec_digest="s",
    dataset_digest="d",
    protocol_digest="p",
)


def started(number: int, attempt: int = 0) -> Started:
    return Started(number=number, attempt=attempt, node="n", device="cpu", pid=1)


def measured(number: int, kimg: float) -> Measured:
    return Measured(number=number, kimg=kimg, elapsed_seconds=kimg, metrics={"score": kimg})


COURSE: list[Event] = [
    OPENED,
    SessionOpened(pid=1),
    proposed(0, {"x": 0.5}),
    started(0),
    measured(0, 1.0),
    proposed(1, {"x": 1.5}),
    Retried(number=0, cause="node died"),
    started(0, attempt=1),
    measured(0, 1.0),
    Ended(number=0, state="COMPLETED"),
]


def test_an_event_is_on_disk_and_in_the_ledger_when_listeners_hear_it(tmp_path: Path) -> None:
    heard: list[Event] = []
    with History.create(tmp_path) as history:

        def listener(event: Event) -> None:
            heard.append(event)
            assert Journal.read(tmp_path / JOURNAL_NAME) == heard
            assert vars(Ledger(heard)) == vars(history.ledger)

        history.listen(listener)
        for event in COURSE:
            history.append(event)
    assert [event.model_copy(update={"session_seconds": None}) for event in heard] == COURSE
    assert history.folder == tmp_path


def test_events_say_when_in_their_session_by_a_clock_that_nobody_sets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds = iter([5.0, 1000.0, 1002.5, 1010.0, 7.0, 9.0])
    with History.create(tmp_path) as history:
        monkeypatch.setattr("time.monotonic", lambda: next(seconds))
        for event in COURSE[:4]:
            history.append(event)
        monkeypatch.undo()
    with History.resume(tmp_path) as resumed:
        monkeypatch.setattr("time.monotonic", lambda: next(seconds))
        resumed.append(SessionOpened(pid=2))  # on another machine, say
        resumed.append(started(0, 1))
        monkeypatch.undo()
    times = [event.session_seconds for event in Journal.read(tmp_path / JOURNAL_NAME)]
    assert times == [None, 0.0, 2.5, 10.0, 0.0, 2.0]


def test_a_resumed_history_is_the_one_that_was_left(tmp_path: Path) -> None:
    with History.create(tmp_path) as history:
        for event in COURSE:
            history.append(event)
    with History.resume(tmp_path) as resumed:
        assert vars(resumed.ledger) == vars(history.ledger)
        resumed.append(SessionOpened(pid=2))
        assert [trial.number for trial in resumed.ledger.unfinished()] == [1]


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_killed_at_any_byte_it_can_be_finished(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("history")
    with History.create(folder) as history:
        for event in COURSE:
            history.append(event)
    whole = (folder / JOURNAL_NAME).read_bytes()
    first = whole.index(b"\n") + 1
    share = data.draw(st.floats(0, 1))  # the times in the journal are not always equally long
    cut = first + round(share * (len(whole) - first))
    (folder / JOURNAL_NAME).write_bytes(whole[:cut])
    with History.resume(folder) as resumed:
        resumed.append(SessionOpened(pid=2))
        for x in (0.5, 1.5):  # a driver proposes what is not there and runs what is unfinished
            if cell_key({"x": x}) not in resumed.ledger.cells:
                resumed.append(proposed(resumed.ledger.next_number(), {"x": x}))
        for trial in resumed.ledger.unfinished():
            resumed.append(started(trial.number, trial.attempts))
            resumed.append(measured(trial.number, 1.0))
            resumed.append(Ended(number=trial.number, state="COMPLETED"))
        trials = resumed.ledger.trials
    assert {n: trial.params["x"] for n, trial in trials.items()} == {0: 0.5, 1: 1.5}
    assert [len(trial.measurements) for trial in trials.values()] == [1, 1]


def test_what_cannot_follow_is_not_written(tmp_path: Path) -> None:
    heard: list[Event] = []
    with History.create(tmp_path) as history:
        history.listen(heard.append)
        history.append(OPENED)
        with pytest.raises(LedgerError):
            history.append(started(0))
        assert Journal.read(tmp_path / JOURNAL_NAME) == [OPENED] == heard


def test_what_the_disk_refused_did_not_happen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(file: int, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    with History.create(tmp_path) as history:
        history.append(OPENED)
        monkeypatch.setattr(os, "write", full)
        with pytest.raises(JournalError, match="No space left"):
            history.append(SessionOpened(pid=1))
        assert history.ledger.sessions == []
        monkeypatch.undo()
        history.append(SessionOpened(pid=1))
    assert len(Journal.read(tmp_path / JOURNAL_NAME)) == 2


def test_an_interrupt_between_disk_and_memory_closes_the_history(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(event: Event) -> None:
        raise KeyboardInterrupt

    history = History.create(tmp_path)
    history.append(OPENED)
    monkeypatch.setattr(history.ledger, "apply", interrupt)
    with pytest.raises(KeyboardInterrupt):
        history.append(SessionOpened(pid=1))
    with pytest.raises(JournalError, match="is closed"):
        history.append(SessionOpened(pid=1))
    with History.resume(tmp_path) as resumed:
        assert len(resumed.ledger.sessions) == 1


def test_there_is_one_study_a_folder_and_one_driver_a_study(tmp_path: Path) -> None:
    with History.create(tmp_path) as history:
        history.append(OPENED)
        with pytest.raises(JournalLocked):
            History.resume(tmp_path)
    with pytest.raises(JournalExists):
        History.create(tmp_path)


def test_a_study_killed_before_its_first_event_is_started_anew(tmp_path: Path) -> None:
    History.create(tmp_path).close()
    with pytest.raises(HistoryError, match="start it without --resume"):
        History.resume(tmp_path)
    with pytest.raises(JournalError, match="holds no study"):
        History.resume(tmp_path / "elsewhere")
    with History.create(tmp_path) as history:
        history.append(OPENED)
