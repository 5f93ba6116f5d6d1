"""The phases of a study: search, race, confirmation, shadows, each in its time."""

from collections.abc import Callable, Sequence
from typing import Protocol

from search import confirming, racing
from search.confirming import MOST_KEPT_BACK
from search.events import Purpose, Replicated
from search.history import History
from search.lines import Lines
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
        seconds_left: of the time budget now; None without one.
        kept_back: seconds of it that are the confirmation's.
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
        kept_back: float,
        say: Callable[[str], None],
    ) -> None:
        self._spec, self._history, self._lines, self._run = spec, history, lines, run
        self._seconds_left, self._kept_back, self._say = seconds_left, kept_back, say

    def run(self) -> bool:
        """Returns whether the time budget ended one of them.

        Raises:
            StudyInterrupted: at SIGINT or SIGTERM.
        """
        cut = self._phase("search", self._kept_back)
        while not cut and self._race_is_on():
            cut = self._phase("race", self._kept_back)
        if self._unfinished("race"):  # of a round that a kill cut short, when no time is left
            self._phase("race", self._kept_back)
        cut = self._confirm() or cut
        return self._shadows(cut=cut) or cut

    def _confirm(self) -> bool:
        """Trains the best on fresh seeds, and the next in rank while all of them diverge."""
        while numbers := self._to_confirm():
            trials = ", ".join(map(str, numbers))
            self._say(f"confirming trials {trials} on {self._spec.confirm.seeds} fresh seeds each")
            if self._phase("confirmation", 0.0):
                return True
        return False

    def _to_confirm(self) -> list[int]:
        ledger = self._history.ledger
        opened = confirming.opening(self._spec, ledger, self._lines)
        if opened is not None:
            self._history.append(opened)
        self._claim(confirming.claims(self._spec, ledger))
        return sorted({run.number for run in ledger.unfinished() if run.purpose == "confirmation"})

    def _shadows(self, *, cut: bool) -> bool:
        """Trains a share of the stopped trials on, last of all and where time is left."""
        if not cut:
            self._claim(shadow_claims(self._spec, self._history.ledger))
        if not self._unfinished("shadow"):
            return False
        self._say("training a share of the stopped trials on, to see what they would have been")
        return self._phase("shadow", 0.0)

    def _phase(self, purpose: Purpose, kept_back: float) -> bool:
        left = self._seconds_left()
        if left is not None:
            left -= min(kept_back, MOST_KEPT_BACK * left)
        stop = StopRequest(left)
        with stop.on_signals():
            self._run(stop, purpose)
        if stop.reason == "interrupted":
            raise StudyInterrupted
        return stop.reason is not None

    def _race_is_on(self) -> bool:
        """Completes the claims of a round that a kill cut short, else opens the next one."""
        ledger = self._history.ledger
        self._claim(racing.claims(self._spec, ledger))
        if not self._unfinished("race"):
            opened = racing.opening(self._spec, ledger, self._lines)
            if opened is None:
                return False
            self._history.append(opened)
            self._claim(racing.claims(self._spec, ledger))
        return True

    def _claim(self, claimed: Sequence[Replicated]) -> None:
        for event in claimed:
            self._history.append(event)

    def _unfinished(self, purpose: Purpose) -> bool:
        return any(run.purpose == purpose for run in self._history.ledger.unfinished())
