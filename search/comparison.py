"""Whether a repeated trial measures what was recorded: bit for bit, within a tolerance, or not."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from search.recorded_trial import RecordedTrial
from search.referee import infeasibility
from search.trial_run import Progress

Verdict = Literal["equal", "within_tolerance", "different"]
Told = float | str | None  # a value, a state in words, or nothing
END = "state"  # in place of a metric: how the trial ended, or that it was measured


@dataclass(frozen=True, kw_only=True)
class Difference:
    """One thing that is not as recorded; `recorded` or `now` is None where it is not there."""

    kimg: float
    metric: str
    recorded: Told
    now: Told

    @property
    def size(self) -> float:
        """The absolute difference; infinite where one of both is no number."""
        if isinstance(self.recorded, float) and isinstance(self.now, float):
            return abs(self.recorded - self.now)
        return math.inf

    def __str__(self) -> str:
        return f"{self.metric} at {self.kimg:g} kimg: recorded {self.recorded}, now {self.now}"


@dataclass
class Comparison:
    """Compares a course with its record, one `Progress` after another.

    Two values are equal within the tolerance t if |a - b| <= t max(|a|, |b|, 1).

    Args:
        trial: The record.
        tolerance: t.
        until_kimg: What comes later is left out, the end of the trial too; None compares all.
    """

    trial: RecordedTrial
    tolerance: float
    until_kimg: float | None = None
    num_measurements: int = 0
    num_values: int = 0
    unequal: list[Difference] = field(default_factory=list)
    finished: bool = False

    def __post_init__(self) -> None:
        limit = math.inf if self.until_kimg is None else self.until_kimg
        self._left = {k: v for k, v in self.trial.measurements.items() if k <= limit}
        self._to_end = self.trial.infeasible and self.until_kimg is None
        self.last_kimg = max(self._left, default=0.0)

    @property
    def empty(self) -> bool:
        """Whether the record has nothing to compare."""
        return not (self.last_kimg or self._to_end)

    def take(self, progress: Progress) -> list[Difference]:
        """Compares where a run stands; returns what is not equal bit for bit."""
        found: list[Difference] = []
        ended = infeasibility(progress)
        if ended is not None:
            found = self._end(progress.kimg, ended)
        elif progress.metrics is not None:
            found = self._compare(progress.kimg, progress.metrics)
            self.finished = self.finished or not (self._left or self._to_end)
            if progress.done and not self.finished:
                found += self._end(progress.kimg, "COMPLETED")
        self.unequal += found
        return found

    def _compare(self, kimg: float, metrics: Mapping[str, float]) -> list[Difference]:
        if kimg not in self._left:
            past = self._to_end and not self._left  # where it was infeasible
            self.finished = past
            recorded = self.trial.reason if past else None
            return [Difference(kimg=kimg, metric=END, recorded=recorded, now="measured")]
        values = self._left.pop(kimg)
        self.num_measurements += 1
        self.num_values += len(values)
        return [
            Difference(kimg=kimg, metric=name, recorded=value, now=metrics.get(name))
            for name, value in sorted(values.items())
            if value != metrics.get(name)
        ]

    def _end(self, kimg: float, now: str) -> list[Difference]:
        """Compares the end of a run that did not come to the last recorded measurement."""
        self.finished = True
        missing = [
            Difference(kimg=k, metric=END, recorded="measured", now=None) for k in self._left
        ]
        recorded = self.trial.reason if self.trial.infeasible else self.trial.state
        if recorded == now:
            return missing
        return [Difference(kimg=kimg, metric=END, recorded=recorded, now=now), *missing]

    def beyond(self) -> list[Difference]:
        """Returns what is not equal within the tolerance either."""
        return [one for one in self.unequal if not self._is_close(one)]

    def _is_close(self, one: Difference) -> bool:
        if not (isinstance(one.recorded, float) and isinstance(one.now, float)):
            return False
        t = self.tolerance
        return math.isclose(one.recorded, one.now, rel_tol=t, abs_tol=t)

    @property
    def verdict(self) -> Verdict:
        """How all that was taken in compares."""
        if not self.unequal:
            return "equal"
        return "different" if self.beyond() else "within_tolerance"

    def to_mapping(self) -> dict[str, Any]:
        """Returns the verdict and what it rests on, as JSON has it."""
        beyond = self.beyond()
        sized = [one for one in self.unequal if math.isfinite(one.size)]
        largest = max(sized, key=lambda one: one.size, default=None)
        return {
            "verdict": self.verdict,
            "tolerance": self.tolerance,
            "measurements": self.num_measurements,
            "values": self.num_values,
            "values_not_equal": len(self.unequal),
            "infeasible_again": self._to_end and self.finished and not beyond,
            "first_difference": vars(beyond[0]) if beyond else None,
            "largest_difference": vars(largest) if largest else None,
        }
