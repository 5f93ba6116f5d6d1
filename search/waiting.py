"""Where runs of a trial wait at rungs: for each other, or to be promoted."""

import math
from collections.abc import Callable, Iterable
from typing import ClassVar, Protocol

from search.events import Ended, Promoted, Proposed
from search.ledger import Ledger
from search.promotion import promote
from search.run_state import RunState
from search.scheduling import Course, course
from search.trial import Direction

# That a trial goes on, that it stops, or that another one takes its place.
Decision = Promoted | Ended | Proposed


class Waiting(Protocol):
    """Where runs wait at a rung, and for what.

    Attributes:
        strict: Whether they wait even where nobody else wants their place.
    """

    strict: ClassVar[bool]

    def waits(self, run: RunState, ledger: Ledger) -> bool:
        """Whether a run that is on no machine must not go on yet."""
        ...

    def decision(self, ledger: Ledger) -> Decision | None:
        """What is next to be recorded of those that wait, so that one may go on."""
        ...

    def last_decision(self, ledger: Ledger) -> Decision | None:
        """The same where nothing else is left to do."""
        ...


class AmongReplicates:
    """At each rung the runs of a trial wait for each other, to be judged by their mean.

    Args:
        levels: The rungs of a trial in kimg, by its number.
    """

    strict: ClassVar[bool] = False

    def __init__(self, levels: Callable[[int], Iterable[float]]) -> None:
        self._levels = levels

    def waits(self, run: RunState, ledger: Ledger) -> bool:
        """Whether it stands at a rung that another run of its trial has not come to."""
        trial = ledger.trials[run.number]
        behind = any(other.total_kimg < run.total_kimg for other in trial.search_runs)
        return behind and stands_at(run, self._levels(run.number)) is not None

    def decision(self, ledger: Ledger) -> Decision | None:
        """None: a trial that is not stopped goes on."""
        return None

    def last_decision(self, ledger: Ledger) -> Decision | None:
        """None."""
        return None


class ForPromotion:
    """At each rung a trial waits until it is promoted (Li et al. 2020, algorithm 2).

    Args:
        rungs: Levels in kimg, ascending.
        reduction_factor: One in so many goes on at each rung.
        metric: The objective.
        direction: Whether more of it is better.
    """

    strict: ClassVar[bool] = True

    def __init__(
        self, rungs: tuple[float, ...], reduction_factor: int, metric: str, direction: Direction
    ) -> None:
        self._rungs, self._reduction_factor = rungs, reduction_factor
        self._metric, self._direction = metric, direction

    def waits(self, run: RunState, ledger: Ledger) -> bool:
        """Whether it stands at a rung that its trial was not promoted from."""
        rung = stands_at(run, self._rungs)
        return rung is not None and rung > ledger.trials[run.number].promoted_kimg

    def decision(self, ledger: Ledger) -> Decision | None:
        """The trial that `promote` names."""
        named = promote(
            self._courses(ledger), self._passed(ledger), self._rungs, self._reduction_factor
        )
        if named is None or ledger.trials[named.number].state != "RUNNING":
            return None
        return Promoted(number=named.number, kimg=self._rungs[named.rung])

    def last_decision(self, ledger: Ledger) -> Decision | None:
        """The best of the highest rung where one waits, until one trial is trained in full.

        With fewer trials than the factor the top floor(n / factor) is nobody.
        """
        if any(trial.state == "COMPLETED" for trial in ledger.trials.values()):
            return None
        courses, passed = self._courses(ledger), self._passed(ledger)
        standing = [
            (passed[number], one.best(), -number)
            for number, one in courses.items()
            if ledger.trials[number].state == "RUNNING" and self._waits_at(one, passed[number])
        ]
        if not standing:
            return None
        index, _, negative = max(standing)
        return Promoted(number=-negative, kimg=self._rungs[index])

    def _waits_at(self, one: Course, index: int) -> bool:
        return index < len(self._rungs) and math.isclose(one.kimg, self._rungs[index])

    def _courses(self, ledger: Ledger) -> dict[int, Course]:
        return {n: course(t, self._metric, self._direction) for n, t in ledger.trials.items()}

    def _passed(self, ledger: Ledger) -> dict[int, int]:
        return {
            # Who has ended fills its rung, but holds up nobody behind it.
            number: sum(rung <= trial.promoted_kimg for rung in self._rungs)
            if trial.state == "RUNNING"
            else len(self._rungs)
            for number, trial in ledger.trials.items()
        }


def stands_at(run: RunState, levels: Iterable[float]) -> float | None:
    """The level that a run was last measured at; None where it was between two."""
    return next((level for level in levels if math.isclose(run.total_kimg, level)), None)
