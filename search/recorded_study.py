"""A study as its journal has it, read without a lock: also while a driver writes it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Self

from search.events import CloseReason, SessionClosed
from search.history import JOURNAL_NAME
from search.journal import Journal
from search.ledger import Ledger, LedgerError
from search.parquet import RecordError
from search.study import StudySpec


@dataclass(frozen=True)
class RecordedStudy:
    """One study on record.

    Attributes:
        folder: Its output folder.
        ledger: All that happened.
        spec: What is searched.
        closed: How the last driver put it down; None where one has it still, or was killed.
    """

    folder: Path
    ledger: Ledger
    spec: StudySpec
    closed: CloseReason | None

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Reads the journal in a study's folder.

        Raises:
            RecordError: There is none, it is empty, or its events contradict each other.
            JournalError: It cannot be read, or a line is broken.
        """
        path = folder / JOURNAL_NAME
        if not path.is_file():
            raise RecordError(f"{folder}: must be the folder of a study, but has no {path.name}")
        events = Journal.read(path)
        try:
            ledger = Ledger(events)
        except LedgerError as error:
            raise RecordError(f"{path}: must hold events in their order, but {error}") from None
        if ledger.study is None:
            raise RecordError(f"{folder}: the study has not begun: nothing is recorded yet")
        last = [event for event in events if isinstance(event, SessionClosed)][-1:]
        closed = None if ledger.session_open or not last else last[0].reason
        return cls(folder, ledger, StudySpec.from_mapping(ledger.study.spec), closed)

    @property
    def driver(self) -> str | None:
        """The process that runs the study now; None where none does."""
        return Journal.writer(self.folder / JOURNAL_NAME)
