"""Runs that were given a machine and have yet to say where: an engine may take minutes."""

from typing import Any, NamedTuple, Protocol

from search.events import RunKey
from search.referee import Referee
from search.seat import Place

# An actor that has given a result has answered already, or is about to.
PATIENCE_SECONDS = 30.0
NOWHERE = Place(node="unknown", device="unknown", pid=0)


class Question(Protocol):
    """Where a run is trained, asked of its actor."""

    def answer(self, patience_seconds: float) -> Place | None:
        """Returns it; None where there is none yet, `NOWHERE` where none will come."""
        ...


class _Arrival(NamedTuple):
    question: Question
    restored: bool
    threads: int


class Arrivals:
    """Records each attempt once it has said where it is: all of Tune would wait for the answer.

    Args:
        referee: keeps the record.
        pack: trials that share an engine.
    """

    def __init__(self, referee: Referee, pack: int) -> None:
        self._referee, self._pack = referee, pack
        self._expected: dict[RunKey, _Arrival] = {}

    def expect(self, key: RunKey, question: Question, config: dict[str, Any]) -> None:
        """An attempt was given a machine; `config` as `StudySearcher` made it."""
        restored = config["resume_from"] is not None
        self._expected[key] = _Arrival(question, restored, config["threads"])
        self._record(key, 0.0)

    def look(self) -> None:
        """Records those that have answered."""
        for key in list(self._expected):
            self._record(key, 0.0)

    def settle(self, key: RunKey) -> None:
        """Records a run of which something else is about to be, wherever it is."""
        if key in self._expected and not self._record(key, PATIENCE_SECONDS):
            self._start(key, NOWHERE)

    def _record(self, key: RunKey, patience_seconds: float) -> bool:
        place = self._expected[key].question.answer(patience_seconds)
        if place is None:
            return False
        self._start(key, place)
        return True

    def _start(self, key: RunKey, place: Place) -> None:
        arrival = self._expected.pop(key)
        self._referee.started(
            key, place, pack=self._pack, restored=arrival.restored, threads=arrival.threads
        )
