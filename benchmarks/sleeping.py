"""Trials that sleep: all that their study takes beyond that is the platform's."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.spans import note_span
from search.study import StudySpec
from search.trial_run import Progress

METRICS = ("validation_log_likelihood", "standard_error")
_NAPS = 20  # between measurements, so that a stop is heard in time


@dataclass(frozen=True)
class SleepingRuns:
    """Makes lanes; a run sleeps `seconds` in all, and is measured so often on the way.

    When it began and ended is noted in `folder`.
    """

    folder: Path
    seconds: float
    measurements: int

    def __call__(self, device: str, capacity: int) -> "SleepingLanes":
        """Returns the lanes of one process."""
        return SleepingLanes(self, device)


@dataclass
class SleepingLanes:
    """Runs that nothing but time advances: `search.trial_run.Lanes`."""

    runs: SleepingRuns
    device: str
    fused: bool = False
    streams: str = "none"
    processor: str = "none"

    def open(self, trial: Mapping[str, Any]) -> "SleepingRun":
        """Begins a trial."""
        return SleepingRun(self.runs, float(trial["params"]["learning_rate"]))

    def advance(self, runs: Sequence["SleepingRun"], num_steps: int) -> None:
        """Sleeps for each of them in turn."""
        for run in runs:
            run.sleep(num_steps)


@dataclass(frozen=True)
class SleepingSnapshot:
    """How far a run has slept."""

    naps: int

    def save(self, folder: Path) -> None:
        """Writes it into a folder."""
        (folder / "naps").write_text(str(self.naps))


class SleepingRun:
    """One trial: `search.trial_run.TrialRun`."""

    signature = None

    def __init__(self, runs: SleepingRuns, level: float) -> None:
        self._runs, self._level, self._naps = runs, level, 0
        self._all = _NAPS * runs.measurements
        self._began = time.time()

    @property
    def steps_left(self) -> int:
        """Naps to the next measurement."""
        return min((self._naps // _NAPS + 1) * _NAPS, self._all) - self._naps

    def sleep(self, num_steps: int) -> None:
        """Naps so often; never past a measurement."""
        time.sleep(self._runs.seconds * num_steps / self._all)
        self._naps += num_steps

    def measure(self) -> Progress:
        """Returns a point on a curve that rises."""
        if self._naps == self._all:
            note_span(self._runs.folder, self._began, time.time())
        values = (curve(self._level, self._naps / _NAPS), 1.0)
        progress = self.progress()
        return Progress(
            kimg=progress.kimg,
            elapsed_seconds=progress.elapsed_seconds,
            metrics=dict(zip(METRICS, values, strict=True)),
            done=self._naps == self._all,
        )

    def progress(self) -> Progress:
        """Tells how far it is; a measurement is a kimg."""
        seconds = self._runs.seconds * self._naps / self._all
        return Progress(kimg=self._naps / _NAPS, elapsed_seconds=seconds)

    def snapshot(self) -> SleepingSnapshot:
        """Copies the state."""
        return SleepingSnapshot(self._naps)

    def load(self, folder: Path) -> None:
        """Goes on from a snapshot."""
        self._naps = int((folder / "naps").read_text())

    def inherit(self, folder: Path) -> None:
        """Goes on from that of another trial."""
        self.load(folder)

    def close(self) -> None:
        """Holds nothing."""


def curve(level: float, measurement: float) -> float:
    """Nats that a sleeping trial claims to have reached."""
    return level - 100.0 / (1.0 + measurement)


def sleeping_study(trials: int, measurements: int, seed: int = 0) -> StudySpec:
    """A study of random points, each trained to its end."""
    return StudySpec.from_mapping(
        {
            "study": "sleeping",
            "seed": seed,
            "data": {"name": "mnist"},
            "model": {"momentum": 0.5},
            "space": {
                "learning_rate": {"type": "float", "low": 0.001, "high": 1.0, "log": True},
                "d_dropout": {"type": "float", "low": 0.0, "high": 0.6},
            },
            "stages": [{"kind": "model", "sampler": "random", "trials": trials}],
            "scheduler": {"kind": "none"},
            "budget": {
                "kimg_per_trial": float(measurements),
                "measure_kimg": 1.0,
                "trials": trials,
            },
        }
    )
