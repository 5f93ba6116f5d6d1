"""Bounds that a winner must keep, such as `label_accuracy >= 0.9`."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

_FORM = re.compile(r"\s*([a-z_]+)\s*(>=|<=)\s*(\S+)\s*")


@dataclass(frozen=True)
class Constraint:
    """A bound on a metric, held against a trial where its objective is best.

    Args:
        metric: its recorded name.
        sense: `>=` or `<=`.
        bound: which the metric must keep.
    """

    metric: str
    sense: str
    bound: float

    @classmethod
    def parse(cls, text: str) -> Self:
        """Reads `label_accuracy >= 0.9`.

        Raises:
            ValueError: It has another form, or its bound is no finite number.
        """
        match = _FORM.fullmatch(text)
        try:
            bound = float(match[3]) if match else math.nan
        except ValueError:
            bound = math.nan
        if match is None or not math.isfinite(bound):
            form = "must look like `label_accuracy >= 0.9` (or `<=`)"
            raise ValueError(f"{form}, but got {text!r}")
        return cls(match[1], match[2], bound)

    def __str__(self) -> str:
        return f"{self.metric} {self.sense} {self.bound:g}"

    def violation(self, metrics: Mapping[str, float]) -> float:
        """How far the metric lies beyond the bound: 0 where it is kept, infinite if unknown."""
        if self.metric not in metrics:
            return math.inf
        beyond = self.bound - metrics[self.metric]
        return max(beyond if self.sense == ">=" else -beyond, 0.0)
