"""The values of very many trials at the rungs of a study, kept in order."""

import math
from bisect import bisect_left, insort
from collections.abc import Sequence


class SortedRungs:
    """What each trial was worth at each rung that it has come to, in order.

    Args:
        rungs: Levels in kimg, ascending.

    Attributes:
        best: The best value so far of each feasible trial.
        reached: How many rungs each trial has a value at.
        entries: For each rung the values and numbers, ascending.
        values: For each rung the value of each number.
    """

    def __init__(self, rungs: Sequence[float]) -> None:
        self.rungs = tuple(rungs)
        self.best: dict[int, float] = {}
        self.reached: dict[int, int] = {}
        self.entries: list[list[tuple[float, int]]] = [[] for _ in rungs]
        self.values: list[dict[int, float]] = [{} for _ in rungs]

    def take(self, number: int, kimg: float, value: float) -> None:
        """Takes a measurement in."""
        before = self.best.get(number, -math.inf)
        best = self.best[number] = max(before, value)
        reached = self.reached.setdefault(number, 0)
        while reached < len(self.rungs) and kimg >= self.rungs[reached]:
            self._put(reached, number, best if kimg == self.rungs[reached] else before)
            reached += 1
        self.reached[number] = reached

    def sink(self, number: int) -> None:
        """Puts an INFEASIBLE trial last at every rung up to the one it would have met next."""
        self.best.pop(number, None)
        reached = self.reached.get(number, 0)
        for index in range(min(reached + 1, len(self.rungs))):
            old = self.values[index].get(number)
            if old is not None:
                del self.entries[index][bisect_left(self.entries[index], (old, number))]
            self._put(index, number, -math.inf)

    def _put(self, index: int, number: int, value: float) -> None:
        self.values[index][number] = value
        insort(self.entries[index], (value, number))
