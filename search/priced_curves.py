"""Curves by formula at a study's budget, with what its trials cost on this machine."""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from search.calibration import Calibration
from search.domains import Params
from search.learning_curves import ClosedFormCurves, LearningCurve
from search.study import StudySpec

NOISE, SEED_NOISE = 2.0, 3.0
"""Nats of chance in one training's measurement, and in the training, by the formula."""


class PricedCurves(ClosedFormCurves):
    """`ClosedFormCurves` of the trials of a study; a value is the mean of all runs of a trial.

    Args:
        spec: The study.
        seed: Of the noise.
        full_kimg: T of the formula.
        calibration: What training and measuring take here.
        stretch: How many times as long as one training alone a trial takes.
    """

    def __init__(
        self,
        spec: StudySpec,
        seed: int,
        *,
        full_kimg: float,
        calibration: Calibration,
        stretch: float = 1.0,
    ) -> None:
        runs, budget = spec.replication.replicates, spec.budget
        super().__init__(
            seed,
            noise=NOISE / math.sqrt(runs),
            seed_noise=SEED_NOISE / math.sqrt(runs),
            kimg_per_trial=budget.kimg_per_trial,
            measure_kimg=budget.measure_kimg,
            full_kimg=full_kimg,
        )
        seconds = self._at * calibration.seconds_per_kimg
        seconds += np.arange(1, len(seconds) + 1) * calibration.seconds_per_measurement
        self._seconds: Sequence[float] = (seconds * stretch).tolist()

    def curve(self, number: int, params: Params) -> LearningCurve:
        """Returns the curve of a trial with these parameters; all trials are as fast."""
        return replace(super().curve(number, params), seconds=self._seconds)
