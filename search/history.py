"""The history of a study: what happened is on disk before anything acts on it."""

from collections.abc import Callable
from pathlib import Path
from typing import Self

from search.events import Event
from search.ledger import Ledger

JOURNAL_NAME = "journal.jsonl"

Listener = Callable[[Event], None]


class HistoryError(ValueError):
    """A folder that holds no study to go on with."""


class History:
    """Journal, ledger and listeners of one study; one thread and one process own it.

    Example:
        with History.create(folder) as history:
            history.listen(print)
            history.append(StudyOpened(...))
            history.append(SessionOpened(pid=os.getpid()))
            number = history.ledger.next_number()
            history.append(Proposed(number=number, ...))
    """

    ledger: Ledger
    folder: Path

    @classmethod
    def create(cls, folder: Path) -> Self:
        """Starts the history of a new study in `folder`, made where missing.

        Raises:
            JournalExists: The folder already holds a study.
            JournalLocked: Another process writes it.
            JournalError: The folder cannot be written.
        """
        raise NotImplementedError

    @classmethod
    def resume(cls, folder: Path) -> Self:
        """Takes up the study in `folder`; a torn last line is dropped.

        Raises:
            HistoryError: The folder holds no study, or one without a single event.
            JournalLocked: Another process writes it.
            JournalError: A line of the journal is broken.
            LedgerError: The journal's events contradict each other.
        """
        raise NotImplementedError

    def listen(self, listener: Callable[[Event], None]) -> None:
        """Calls `listener` with every event from now on, after it is on disk and in the ledger."""
        raise NotImplementedError

    def append(self, *events: Event) -> None:
        """Checks, writes and fsyncs events (once for all), applies them, tells the listeners.

        Raises:
            LedgerError: An event cannot follow; none was written.
            JournalError: The disk refused (full); none was written.
        """
        raise NotImplementedError

    def close(self) -> None:
        """Releases the journal."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
