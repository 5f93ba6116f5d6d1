"""The rules of early stopping for very many trials: the same decisions, from what is kept sorted.

The pure functions look at every trial of a study at each decision, which is right for hundreds.
For the simulator's hundred thousand, each pruner here takes measurements in one by one and keeps
the values of a rung in order, so that a decision costs a binary search and a move of memory. That
both decide alike is tested.
"""

import math
from bisect import bisect_left, insort
from collections.abc import Sequence
from typing import Literal, Protocol

from search.hyperband import Bracket, bracket_of
from search.median import below_median
from search.scheduling import PairedError, clearly_behind, cut
from search.sorted_rungs import SortedRungs

Verdict = Literal["go_on", "stop", "pause"]


class Pruner(Protocol):
    """Rules on each measurement, in the order in which they are made."""

    def measured(self, number: int, kimg: float, value: float) -> Verdict:
        """Takes in a value to be maximised; a trial's kimg ascend."""
        ...

    def broke(self, number: int) -> None:
        """A trial became INFEASIBLE."""
        ...

    def resumed(self, *, last: bool = False) -> int | None:
        """A paused trial that a free worker should train on, which then counts as running.

        With `last`, where nothing else is left to do and none was trained in full, one that has
        come furthest.
        """
        ...


class NoPruner:
    """Lets every trial train in full."""

    def measured(self, number: int, kimg: float, value: float) -> Verdict:
        """Lets it go on."""
        return "go_on"

    def broke(self, number: int) -> None:
        """Changes nothing."""

    def resumed(self, *, last: bool = False) -> int | None:
        """Nobody was paused."""
        return None


class HalvingPruner:
    """`search.scheduling.decide`: asynchronous successive halving in its stopping form.

    Args:
        rungs: Levels in kimg, ascending.
        reduction_factor: One in so many goes on at each rung.
        paired_error: How sure the differences are; None takes every one for real.
    """

    def __init__(
        self,
        rungs: Sequence[float],
        reduction_factor: float,
        paired_error: PairedError | None = None,
    ) -> None:
        self._rungs = SortedRungs(rungs)
        self._factor, self._paired_error = reduction_factor, paired_error
        self._leading = -math.inf

    def measured(self, number: int, kimg: float, value: float) -> Verdict:
        """Judges the trial at every rung that it has passed, unless it is the best of all."""
        known = self._rungs
        known.take(number, kimg, value)
        mine = known.best[number]
        if mine >= self._leading:
            self._leading = mine
            return "go_on"
        for index in range(known.reached[number] - 1, -1, -1):
            level, rival = cut(known.entries[index], self._factor)
            at_rung = known.values[index]
            if at_rung[number] < level and self._behind(at_rung, number, rival, index):
                return "stop"
        return "go_on"

    def broke(self, number: int) -> None:
        """Counts it as minus infinity up to the rung that it would have met next."""
        led = self._rungs.best.get(number, -math.inf) >= self._leading
        self._rungs.sink(number)
        if led:
            self._leading = max(self._rungs.best.values(), default=-math.inf)

    def resumed(self, *, last: bool = False) -> int | None:
        """Nobody was paused."""
        return None

    def _behind(self, at_rung: dict[int, float], number: int, rival: int, index: int) -> bool:
        if self._paired_error is None:
            return True
        rung = self._rungs.rungs[index]
        lead = at_rung[rival] - at_rung[number]
        return clearly_behind(lead, self._paired_error(number, rival, rung))


class HyperbandPruner:
    """`search.hyperband.decide_in_bracket`: each bracket is halved by itself."""

    def __init__(
        self,
        brackets: Sequence[Bracket],
        reduction_factor: float,
        paired_error: PairedError | None = None,
    ) -> None:
        self._brackets = brackets
        self._pruners = [
            HalvingPruner(bracket.rungs, reduction_factor, paired_error) for bracket in brackets
        ]

    def measured(self, number: int, kimg: float, value: float) -> Verdict:
        """Judges the trial within its bracket."""
        return self._of(number).measured(number, kimg, value)

    def broke(self, number: int) -> None:
        """Counts it in its bracket."""
        self._of(number).broke(number)

    def resumed(self, *, last: bool = False) -> int | None:
        """Nobody was paused."""
        return None

    def _of(self, number: int) -> HalvingPruner:
        return self._pruners[bracket_of(number, self._brackets)]


class MedianPruner:
    """`search.median.decide_by_median`, where all trials are measured at the same points."""

    def __init__(self, grace_kimg: float) -> None:
        self._grace = grace_kimg
        self._means: dict[float, list[float]] = {}
        self._courses: dict[int, list[tuple[float, float]]] = {}  # kimg and running mean
        self._totals: dict[int, float] = {}
        self._best: dict[int, float] = {}

    def measured(self, number: int, kimg: float, value: float) -> Verdict:
        """Judges the trial against the means of the others up to the same point."""
        others = self._means.setdefault(kimg, [])
        best = self._best[number] = max(self._best.get(number, -math.inf), value)
        stops = kimg >= self._grace and below_median(best, others)
        total = self._totals[number] = self._totals.get(number, 0.0) + value
        course = self._courses.setdefault(number, [])
        mean = total / (len(course) + 1)
        course.append((kimg, mean))
        insort(others, mean)
        return "stop" if stops else "go_on"

    def broke(self, number: int) -> None:
        """Counts it as minus infinity at every point where it was measured."""
        for kimg, mean in self._courses.pop(number, []):
            means = self._means[kimg]
            del means[bisect_left(means, mean)]
            means.insert(0, -math.inf)

    def resumed(self, *, last: bool = False) -> int | None:
        """Nobody was paused."""
        return None


class PromotionPruner:
    """`search.promotion.promote`: a trial pauses at every rung until it is in the top there."""

    def __init__(self, rungs: Sequence[float], reduction_factor: int) -> None:
        self._rungs = SortedRungs(rungs)
        self._factor = reduction_factor
        self._waiting: list[list[tuple[float, int]]] = [[] for _ in rungs]  # worst first

    def measured(self, number: int, kimg: float, value: float) -> Verdict:
        """Pauses the trial where it comes to a rung."""
        before = self._rungs.reached.get(number, 0)
        self._rungs.take(number, kimg, value)
        reached = self._rungs.reached[number]
        for index in range(before, reached):  # of two rungs at once it waits at both
            insort(self._waiting[index], (self._rungs.values[index][number], -number))
        return "pause" if reached > before else "go_on"

    def broke(self, number: int) -> None:
        """Promotes it never again."""
        for waiting, values in zip(self._waiting, self._rungs.values, strict=True):
            entry = (values.get(number, -math.inf), -number)
            place = bisect_left(waiting, entry)
            if waiting[place : place + 1] == [entry]:
                del waiting[place]
        self._rungs.sink(number)

    def resumed(self, *, last: bool = False) -> int | None:
        """Promotes the best trial of the highest rung whose top it is in; `last`, if in none."""
        for index in reversed(range(len(self._waiting))):
            waiting, entries = self._waiting[index], self._rungs.entries[index]
            top = len(entries) // self._factor
            if not waiting or not (top or last):
                continue
            value, negative = waiting[-1]
            if last or self._place_from_top(entries, value, -negative) < top:
                waiting.pop()
                return -negative
        return None

    def _place_from_top(self, entries: list[tuple[float, int]], value: float, number: int) -> int:
        # Of equals the lowest number is first, but entries have it last from the top.
        above = len(entries) - bisect_left(entries, (value, math.inf))
        equal_before = bisect_left(entries, (value, number)) - bisect_left(entries, (value, -1))
        return above + equal_before
