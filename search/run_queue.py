"""Which run gets the next free place, from the record and what is on its way."""

from collections.abc import Iterator

from search.events import Purpose, RunKey
from search.ledger import Ledger
from search.run_state import RunState
from search.waiting import Decision, Waiting


class RunQueue:
    """The claimed runs of one phase of a study that want a place.

    Args:
        purpose: Of the runs of this phase.
        waiting: Where runs wait at rungs; None where they never do.

    Attributes:
        handed: Runs that were given a place and have not left it. The record knows of them only
            once they have started.
    """

    def __init__(self, purpose: Purpose, waiting: Waiting | None = None) -> None:
        self.handed: set[RunKey] = set()
        self._purpose, self._waiting = purpose, waiting

    def ready(self, ledger: Ledger) -> RunKey | None:
        """The run that should go on or begin: those that were begun come first.

        Of a confirmation all trials have their first seed before any has its second, so that a
        clock that ends it leaves them comparable.
        """
        ready = (run for run in self._wanting(ledger) if not self._waits(run, ledger))
        wanting = sorted(ready, key=lambda run: (run.noise_draw, run.key))
        begun = [run for run in wanting if run.attempts]
        return next((run.key for run in (*begun, *wanting)), None)

    def decision(self, ledger: Ledger, *, last: bool = False) -> Decision | None:
        """What is next to be recorded of waiting runs; `last` where nothing else is left."""
        if self._waiting is None:
            return None
        return self._waiting.last_decision(ledger) if last else self._waiting.decision(ledger)

    def idle(self, ledger: Ledger) -> RunKey | None:
        """A run that waits for others which are in training: better trained on than no run."""
        if self._waiting is None or self._waiting.strict:
            return None
        return next((run.key for run in self._wanting(ledger)), None)

    def pauses(self, run: RunState, ledger: Ledger, *, others_wait: bool) -> bool:
        """Whether a run that was just measured gives its place to another."""
        if self._waiting is None or not self._waiting.waits(run, ledger):
            return False
        return self._waiting.strict or others_wait or self.ready(ledger) is not None

    def never_promoted(self, ledger: Ledger) -> list[RunState]:
        """The runs that wait for a promotion: at the end of the study there is none to come."""
        if self._waiting is None or not self._waiting.strict:
            return []
        return [run for run in self._wanting(ledger) if self._waiting.waits(run, ledger)]

    def _waits(self, run: RunState, ledger: Ledger) -> bool:
        return self._waiting is not None and self._waiting.waits(run, ledger)

    def _wanting(self, ledger: Ledger) -> Iterator[RunState]:
        for run in ledger.unfinished():
            stopped = run.purpose == "search" and ledger.trials[run.number].stop_reason is not None
            if run.purpose == self._purpose and run.key not in self.handed and not stopped:
                yield run
