"""The history of a study: what happened is on disk before anything acts on it."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Self

from search.events import Event, SessionOpened
from search.journal import Journal, JournalError
from search.ledger import Ledger

JOURNAL_NAME = "journal.jsonl"
LOCK_NAME = "journal.lock"  # beside it, by `Journal`

Listener = Callable[[Event], None]


class HistoryError(ValueError):
    """A folder that holds no study to go on with."""


class History:
    """Journal, ledger and listeners of one study; one thread of one process owns it.

    Example:
        with History.create(folder) as history:
            history.listen(tracking)
            history.append(StudyOpened(...))
            history.append(SessionOpened(pid=os.getpid()))
            history.append(Proposed(number=history.ledger.next_number(), ...))
    """

    def __init__(self, journal: Journal, ledger: Ledger) -> None:
        self.journal = journal
        self.ledger = ledger
        self._listeners: list[Listener] = []
        self._session_began: float | None = None  # by the monotonic clock

    @classmethod
    def create(cls, folder: Path) -> Self:
        """Begins the history of a new study in `folder`, made where missing.

        Raises:
            JournalExists: The folder already holds a study.
            JournalLocked: Another process writes it.
            JournalError: The folder cannot be written.
        """
        return cls(Journal.open(folder / JOURNAL_NAME, create=True), Ledger())

    @classmethod
    def resume(cls, folder: Path) -> Self:
        """Takes up the study in `folder`; a torn last line is dropped.

        Raises:
            HistoryError: Nothing was recorded yet, so there is nothing to go on with.
            JournalLocked: Another process writes it.
            JournalError: The folder holds no journal, or one with a broken line.
            LedgerError: The events contradict each other.
        """
        journal = Journal.open(folder / JOURNAL_NAME, create=False)
        try:
            ledger = Ledger(journal.found)
            if ledger.study is None:
                raise HistoryError(f"{folder}: nothing is recorded yet; start it without --resume")
        except ValueError:
            journal.close()
            raise
        return cls(journal, ledger)

    @property
    def folder(self) -> Path:
        """The output folder of the study."""
        return self.journal.path.parent

    def listen(self, listener: Listener) -> None:
        """Calls `listener` with every later event, once it is on disk and in the ledger.

        A listener must not append: those after it would hear the two in the wrong order.
        """
        self._listeners.append(listener)

    def append(self, event: Event) -> None:
        """Checks an event, writes and fsyncs it, applies it, tells the listeners.

        It is written with its time since the session was opened.

        Raises:
            LedgerError: The event cannot follow; it was not written.
            JournalError: The disk refused it (full); it was not written.
        """
        self.ledger.check(event)
        event = self._timed(event)
        try:
            self.journal.append(event)
            self.ledger.apply(event)
        except JournalError:
            raise
        except BaseException:
            # Interrupted between disk and memory: only a replay can tell what counts.
            self.journal.close()
            raise
        for listener in self._listeners:
            listener(event)

    def _timed(self, event: Event) -> Event:
        now = time.monotonic()
        if isinstance(event, SessionOpened):
            self._session_began = now
        if self._session_began is None or event.session_seconds is not None:
            return event
        return event.model_copy(update={"session_seconds": round(now - self._session_began, 3)})

    def discard(self) -> None:
        """Releases the journal and leaves no trace of it where nothing was recorded."""
        self.journal.discard()

    def close(self) -> None:
        """Releases the journal; what is recorded stays."""
        self.journal.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
