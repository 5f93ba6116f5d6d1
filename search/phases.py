"""The phases of a study: search, race, confirmation, shadows, each in its time."""

from collections.abc import Callable, Sequence
from typing import Protocol

from search import confirming, racing
from search.confirming import MOST_KEPT_BACK
from search.events import Event, Measured, Purpose, Replicated
from search.history import History
from search.lines import Lines
from search.requests import waiting
from search.shadow import shadow_claims
from search.stop_request import StopRequest, StudyInterrupted
from search.study import StudySpec


class RunPhase(Protocol):
    """Runs what was claimed for a purpose; `search.tuner.run_trials` with all else settled."""

    def __call__(self, stop: StopRequest, purpose: Purpose) -> None:
        """Returns when all is run, or at a stop."""
        ...


class Phases:
    """Takes a study through what is left of its phases; which that is, its record says.

    Args:
        spec: the study.
        history: its record.
        lines: validation lines.
        run: runs the trials of a phase.
        seconds_left: of the time budget now, 0 when it is used up; None without one.
        kept_back: tells how many seconds of it are the confirmation's, as far as is known.
        say: prints one line to the user.
    """

    def __init__(
        self,
        spec: StudySpec,
        history: History,
        lines: Lines,
        run: RunPhase,
        *,
        seconds_left: Callable[[], float | None],
        kept_back: Callable[[], float],
        say: Callable[[str], None],
    ) -> None:
        self._spec, self._history, self._lines, self._run = spec, history, lines, run
        self._seconds_left, self._kept_back, self._say = seconds_left, kept_back, say
        self._stop: StopRequest | None = None  # of the phase that leaves time to another
        self._most_kept_back = 0.0
        history.listen(self._keep_back)

    def run(self) -> bool:
        """Returns whether the time budget ended one of them.

        Raises:
            StudyInterrupted: at SIGINT or SIGTERM.
        """
        cut = self._search()
        cut = self._confirm(out_of_time=cut) or cut
        return self._shadows() or cut

    def _search(self) -> bool:
        """Search and race; where they are over, how they ended is on record."""
        over = self._history.ledger.confirmation
        if over is not None and not self._search_goes_on():
            return over.out_of_time
        cut = self._phase("search")
        while not cut and self._race_is_on():
            cut = self._phase("race")
        if self._unfinished("race"):  # of a round that a kill cut short, when no time is left
            self._phase("race")
        return cut

    def _search_goes_on(self) -> bool:
        """Until a confirmation is opened; then again when something is added, or asked for.

        All that were begun of search and race have ended by then. Were one left, it would end as
        ever: in training, by its rungs or by the clock. What the clock left unbegun waits for
        an extension.
        """
        ledger = self._history.ledger
        searched = (run for run in ledger.unfinished() if run.purpose in ("search", "race"))
        left = any(run.attempts for run in searched)
        return left or not ledger.search_over or bool(waiting(self._history.folder))

    def _confirm(self, *, out_of_time: bool) -> bool:
        """Trains the best on fresh seeds, and the next in rank while all of them diverge."""
        ledger = self._history.ledger
        while True:
            opened = confirming.opening(self._spec, ledger, self._lines, out_of_time=out_of_time)
            if opened is not None:
                self._history.append(opened)
            cut = self._claim(confirming.claims(self._spec, ledger))
            left = {run.number for run in ledger.unfinished() if run.purpose == "confirmation"}
            if not left:
                return cut
            trials = ", ".join(map(str, sorted(left)))
            self._say(f"confirming trials {trials} on {self._spec.confirm.seeds} fresh seeds each")
            if self._phase("confirmation"):
                return True

    def _shadows(self) -> bool:
        """Trains a share of the stopped trials on, last of all and where time is left."""
        cut = self._claim(shadow_claims(self._spec, self._history.ledger))
        if not self._unfinished("shadow"):
            return cut
        self._say("training a share of the stopped trials on, to see what they would have been")
        return self._phase("shadow") or cut

    def _phase(self, purpose: Purpose) -> bool:
        left = self._seconds_left()
        stop = StopRequest(left, begun=self._history.ledger.session_training)
        self._stop = stop if purpose in ("search", "race") else None
        self._most_kept_back = MOST_KEPT_BACK * (left or 0.0)
        self._keep_back()
        with stop.on_signals():
            self._run(stop, purpose)
        if stop.reason == "interrupted":
            raise StudyInterrupted
        return stop.reason is not None

    def _keep_back(self, event: Event | None = None) -> None:
        """Leaves the confirmation its time; a measurement tells better how much that is."""
        if self._stop is not None and isinstance(event, Measured | None):
            self._stop.keep_back(min(self._kept_back(), self._most_kept_back))

    def _race_is_on(self) -> bool:
        """Completes the round that a kill or the clock cut short, else opens the next one."""
        ledger = self._history.ledger
        lacking = racing.claims(self._spec, ledger)
        if not lacking and not self._unfinished("race"):
            opened = racing.opening(self._spec, ledger, self._lines)
            if opened is None:
                return False
            self._history.append(opened)
            lacking = racing.claims(self._spec, ledger)
        self._claim(lacking)
        return True

    def _claim(self, lacking: Sequence[Replicated]) -> bool:
        """Claims what a phase lacks while there is time; returns whether there was none for it."""
        if self._seconds_left() == 0.0:
            return bool(lacking)
        for claimed in lacking:
            self._history.append(claimed)
        return False

    def _unfinished(self, purpose: Purpose) -> bool:
        return any(run.purpose == purpose for run in self._history.ledger.unfinished())
