"""What `benchmarks.selection` can be tried on: noisy learning curves whose truth is known."""

from collections.abc import Mapping
from typing import Protocol

from search.domains import Params, Scalar
from search.learning_curves import LearningCurve
from search.space import Space


class Problem(Protocol):
    """A search space with the learning curve of every training in it.

    A problem is made by a function of a seed: `--objective module:function`. Everything random in
    it follows from that seed, so that all searches of one study meet the same problem.

    Attributes:
        space: The searched parameters.
        optimum: The best truth that there is.
        kimg_per_trial: Full budget of a training. Budgets are counted in kimg; the curves'
            `seconds` are not looked at.
        measure_kimg: Distance between measurements.
    """

    space: Space
    optimum: float
    kimg_per_trial: float
    measure_kimg: float

    def truth(self, params: Mapping[str, Scalar]) -> float:
        """What a configuration is worth: the mean over seeds of a full training's last value."""
        ...

    def curve(self, number: int, params: Params, replicate: int = 0) -> LearningCurve:
        """One training of a configuration, to its end; larger values are better.

        Args:
            number: The trial's number. Each number has noise of its own.
            params: The configuration.
            replicate: 0 in the search. From 1 on fresh seeds, with the noise of the evaluation
                drawn anew: it is common to all trials of one replicate.
        """
        ...

    def standard_error(self, number: int, rival: int, rung: float) -> float | None:
        """That of the paired difference of two trials at a rung; None where it is not known."""
        ...
