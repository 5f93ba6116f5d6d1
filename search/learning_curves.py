"""Learning curves to replay: those of a recorded study, or a family whose optimum is known."""

import math
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path
from typing import Protocol

import numpy as np

from cgan_core.streams import stream
from search.domains import FloatDomain, IntDomain, Params
from search.neighbours import Neighbours
from search.record import MeasurementRecord, RecordError, read_measurements, read_trials
from search.space import Space
from search.study import StudySpec
from search.study_file import read_study

_BLOCK = 256


@dataclass(frozen=True, kw_only=True, slots=True)
class LearningCurve:
    """What a trial would measure, were it never stopped; values are to be maximised.

    Attributes:
        kimg: Training up to each measurement.
        values: The objective at each measurement.
        seconds: Time of its device up to each measurement.
        truth: What the configuration is worth when trained in full, without noise if known.
        infeasible: Whether it diverges after the last measurement.
    """

    kimg: Sequence[float]
    values: Sequence[float]
    seconds: Sequence[float]
    truth: float
    infeasible: bool = False


class LearningCurves(Protocol):
    """A search space with the curve of every point of it.

    Attributes:
        space: The searched parameters.
        optimum: The best truth that there is.
        kimg_per_trial: Full budget of a trial.
        measure_kimg: Distance between measurements.
    """

    space: Space
    optimum: float
    kimg_per_trial: float
    measure_kimg: float

    def curve(self, number: int, params: Params) -> LearningCurve:
        """Returns the curve of a trial with these parameters."""
        ...

    def standard_error(self, number: int, rival: int, rung: float) -> float | None:
        """That of the paired difference of two trials at a rung; None where it is not known."""
        ...


class ClosedFormCurves:
    """Noisy curves by formula, with slow starters that end better.

    With learning rate a, dropout b, momentum m and units u a configuration is worth
    f = -100 [(log10 a + 1)^2 + 9 (b - 0.3)^2 + (m - 0.5)^2 + 0.1 (log10 u - 3)^2] nats, at most
    0. After t of T kimg it scores f - 300 (exp(-t/c) - exp(-T/c)) / (1 - exp(-T/c)), where
    c = T/12 (0.1/a)^0.5: a low rate learns slowly. A measurement adds a normal of its own and one
    of its trial (the seed). A kimg takes 10 + 20 u/1000 seconds. Where trials end before T, what
    they are worth is what they score there without noise.

    Args:
        seed: Of the noise.
        noise: Standard deviation of each measurement in nats.
        seed_noise: Standard deviation between trainings of one configuration in nats.
        kimg_per_trial: Budget of a trial.
        measure_kimg: Distance between measurements.
        full_kimg: T; `kimg_per_trial` if left out.
    """

    def __init__(
        self,
        seed: int = 0,
        *,
        noise: float = 2.0,
        seed_noise: float = 3.0,
        kimg_per_trial: float = 81.0,
        measure_kimg: float = 1.0,
        full_kimg: float | None = None,
    ) -> None:
        self.space: Space = {
            "learning_rate": (FloatDomain(type="float", low=0.001, high=1.0, log=True),),
            "d_dropout": (FloatDomain(type="float", low=0.0, high=0.6),),
            "momentum": (FloatDomain(type="float", low=0.0, high=0.9),),
            "units": (IntDomain(type="int", low=100, high=1000, log=True),),
        }
        self.optimum = 0.0
        self.kimg_per_trial, self.measure_kimg = kimg_per_trial, measure_kimg
        self._full = full_kimg or kimg_per_trial
        self._seed, self._noise, self._seed_noise = seed, noise, seed_noise
        count = math.ceil(kimg_per_trial / measure_kimg - 1e-9)
        at = np.minimum(np.arange(1, count + 1) * measure_kimg, kimg_per_trial)
        self._at, self._kimg = at, at.tolist()
        self._block: tuple[int, np.ndarray] = (-1, np.empty(0))

    def truth(self, params: Params) -> float:
        """What a configuration is worth at the end of its budget, in nats."""
        rate, _, _, _ = _numbers(params)
        return self._in_full(params) - float(self._unlearnt(rate, self._at[-1:])[0])

    def curve(self, number: int, params: Params) -> LearningCurve:
        """Returns the curve of a trial with these parameters; its noise is that of the number."""
        rate, _, _, units = _numbers(params)
        in_full, unlearnt, noise = (
            self._in_full(params),
            self._unlearnt(rate, self._at),
            self._normals(number),
        )
        values = noise[1:] * self._noise - unlearnt
        values += in_full + float(noise[0]) * self._seed_noise
        return LearningCurve(
            kimg=self._kimg,
            values=array("d", values.tobytes()),
            seconds=array("d", (self._at * (10 + units / 50)).tobytes()),
            truth=in_full - float(unlearnt[-1]),
        )

    def standard_error(self, number: int, rival: int, rung: float) -> float | None:
        """That of the difference of two trials, each the sum of both kinds of noise."""
        return math.sqrt(2 * (self._noise**2 + self._seed_noise**2))

    def _in_full(self, params: Params) -> float:
        rate, dropout, momentum, units = _numbers(params)
        loss = (math.log10(rate) + 1) ** 2 + 9 * (dropout - 0.3) ** 2
        loss += (momentum - 0.5) ** 2 + 0.1 * (math.log10(units) - 3) ** 2
        return -100 * loss

    def _unlearnt(self, rate: float, kimg: np.ndarray) -> np.ndarray:
        """What a configuration still lacks of its score at T, in nats."""
        scale = self._full / 12 * (0.1 / rate) ** 0.5
        end = math.exp(-self._full / scale)
        lacking: np.ndarray = (np.exp(kimg / -scale) - end) * (300 / (1 - end))
        lacking[kimg == self._full] = 0.0  # whatever the two exponentials round to
        return lacking

    def _normals(self, number: int) -> np.ndarray:
        index, place = divmod(number, _BLOCK)
        if self._block[0] != index:
            rng = stream(self._seed, "noise", index)
            self._block = index, rng.standard_normal((_BLOCK, 1 + len(self._kimg)))
        normals: np.ndarray = self._block[1][place]
        return normals


class RecordedCurves:
    """The curves of a recorded study: each configuration has that of the nearest recorded one.

    Only what was trained to its end can be replayed: COMPLETED trials, and INFEASIBLE ones up to
    where they broke. A recorded configuration is worth its best measurement, one that broke as
    much as the worst of the others.

    Args:
        folder: The study's folder.

    Raises:
        RecordError: There is no such record, or it has no COMPLETED trial.
        StudyError: `study.json` is missing or broken.
    """

    def __init__(self, folder: Path) -> None:
        self.spec = StudySpec.from_mapping(read_study(folder)["spec"])
        self.space: Space = self.spec.space
        self.kimg_per_trial = self.spec.budget.kimg_per_trial
        self.measure_kimg = self.spec.budget.measure_kimg
        trials = read_trials(folder)
        complete = {t.number for t in trials if t.state == "COMPLETED" and t.objective is not None}
        whole = [t for t in trials if t.number in complete or t.state == "INFEASIBLE"]
        if not complete:
            raise RecordError(
                f"{folder}: must hold a trial that was trained to its end, but none of "
                f"{len(trials)} is COMPLETED; run a study with --set scheduler.kind=none"
            )
        self.left_out = len(trials) - len(whole)
        courses: dict[int, list[MeasurementRecord]] = {trial.number: [] for trial in whole}
        for measured in read_measurements(folder):
            if measured.replicate == 0 and measured.number in courses:
                courses[measured.number].append(measured)
        curves = [self._curve(course, n not in complete) for n, course in courses.items()]
        worst = min(curve.truth for curve in curves if not curve.infeasible)
        self._curves = [replace(c, truth=worst) if c.infeasible else c for c in curves]
        self._neighbours = Neighbours(self.space, [dict(trial.params) for trial in whole])
        self.optimum = max(curve.truth for curve in self._curves)

    def __len__(self) -> int:
        return len(self._curves)

    def curve(self, number: int, params: Params) -> LearningCurve:
        """Returns the curve of the nearest recorded configuration."""
        return self._curves[self._neighbours.nearest(params)]

    def standard_error(self, number: int, rival: int, rung: float) -> float | None:
        """Unknown: a record keeps the points of a trial's best measurement only."""
        return None

    def _curve(self, course: list[MeasurementRecord], infeasible: bool) -> LearningCurve:
        metric = self.spec.objective.metric
        sign = 1.0 if self.spec.objective.direction == "maximize" else -1.0
        values = [sign * m.metrics[metric] if metric in m.metrics else -math.inf for m in course]
        return LearningCurve(
            kimg=[m.kimg for m in course],
            values=values,
            seconds=list(accumulate((m.elapsed_seconds for m in course), max)),
            truth=max(values, default=-math.inf),
            infeasible=infeasible,
        )


def _numbers(params: Params) -> tuple[float, float, float, float]:
    return (
        float(params["learning_rate"]),
        float(params["d_dropout"]),
        float(params["momentum"]),
        float(params["units"]),
    )
