"""Trainings whose whole state is a chaotic orbit: what a fault lost or did twice shows in it."""

import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from search.study import StudySpec
from search.trial_run import Progress

METRIC = "validation_log_likelihood"
STEPS = 20  # updates between measurements
MEASURE_KIMG, KIMG_PER_TRIAL = 100.0, 400.0
HOPELESS_KIMG = 200.0  # where a configuration that cannot be trained is found out


def orbit(seed: int, kimg: float) -> float:
    """Returns the state of a run after so much training: the logistic map x -> 4 x (1 - x)."""
    state = (seed % 997 + 1) / 1000
    for _ in range(round(kimg / MEASURE_KIMG * STEPS)):
        state = 4 * state * (1 - state)
    return state


def score(params: Mapping[str, Any], kimg: float) -> float:
    """Nats after so much training: best at rate 0.1 and dropout 0.3, where it tends to 0."""
    rate_loss = 4 * (math.log10(params["learning_rate"]) + 1) ** 2
    dropout_loss = 9 * (params["d_dropout"] - 0.3) ** 2
    value: float = -100 * (rate_loss + dropout_loss + math.exp(-kimg / 200))
    return value


def is_hopeless(params: Mapping[str, Any]) -> bool:
    """Whether a configuration ends INFEASIBLE: one corner of the grid does."""
    return bool(params["learning_rate"] > 0.9 and params["d_dropout"] > 0.5)


def orbit_study(seed: int = 0) -> StudySpec:
    """A manual point, a grid of 9 cells, 2 proposals of a model, and 2 fresh seeds of the best."""
    return StudySpec.from_mapping(
        {
            "study": "faults",
            "seed": seed,
            "data": {"name": "mnist"},
            "model": {"momentum": 0.5},
            "space": {
                "learning_rate": {"type": "float", "low": 0.01, "high": 1.0, "log": True},
                "d_dropout": {"type": "float", "low": 0.0, "high": 0.6},
            },
            "stages": [
                {"kind": "manual", "points": [{"learning_rate": 0.07, "d_dropout": 0.25}]},
                {"kind": "full_grid", "levels": {"learning_rate": 3, "d_dropout": 3}},
                {"kind": "model", "sampler": "tpe", "trials": 2},
            ],
            "scheduler": {"kind": "none"},
            "confirm": {"top": 1, "seeds": 2},
            "budget": {
                "kimg_per_trial": KIMG_PER_TRIAL,
                "measure_kimg": MEASURE_KIMG,
                "trials": 12,
            },
        }
    )


@dataclass(frozen=True)
class OrbitRuns:
    """Makes lanes; from measurement to measurement a run takes so many seconds."""

    seconds: float

    def __call__(self, device: str, capacity: int) -> "OrbitLanes":
        """Returns the lanes of one process."""
        return OrbitLanes(self, device)


@dataclass
class OrbitLanes:
    """Advances one run after another: `search.trial_run.Lanes`."""

    runs: OrbitRuns
    device: str
    fused: bool = False
    streams: str = "none"
    processor: str = "none"

    def open(self, trial: Mapping[str, Any]) -> "OrbitRun":
        """Begins a trial."""
        return OrbitRun(self.runs.seconds / STEPS, trial["seed"], trial["params"])

    def advance(self, runs: Sequence["OrbitRun"], num_steps: int) -> None:
        """Trains each of them in turn."""
        for run in runs:
            run.train(num_steps)


@dataclass(frozen=True)
class OrbitSnapshot:
    """The whole state of a run."""

    steps: int
    state: float

    def save(self, folder: Path) -> None:
        """Writes it into a folder."""
        (folder / "state.json").write_text(json.dumps([self.steps, self.state]))


class OrbitRun:
    """One training: `search.trial_run.TrialRun`."""

    signature = None

    def __init__(self, seconds: float, seed: int, params: Mapping[str, Any]) -> None:
        self._seconds, self._params = seconds, params
        self._steps, self._state, self._due = 0, orbit(seed, 0.0), STEPS

    @property
    def steps_left(self) -> int:
        """Updates to the next measurement."""
        return self._due - self._steps

    def train(self, num_steps: int) -> None:
        """Moves along the orbit."""
        for _ in range(num_steps):
            time.sleep(self._seconds)
            self._steps += 1
            self._state = 4 * self._state * (1 - self._state)

    def measure(self) -> Progress:
        """Tells where it is."""
        here = self.progress()
        if is_hopeless(self._params) and here.kimg >= HOPELESS_KIMG:
            reason = f"cannot be trained beyond {HOPELESS_KIMG:g} kimg"
            return Progress(kimg=here.kimg, elapsed_seconds=here.kimg, infeasible=reason)
        self._due += STEPS
        return Progress(
            kimg=here.kimg,
            elapsed_seconds=here.kimg,
            metrics={
                METRIC: score(self._params, here.kimg),
                "standard_error": 1.0,
                "orbit": self._state,
            },
            done=here.kimg >= KIMG_PER_TRIAL,
        )

    def progress(self) -> Progress:
        """Tells how far it is; a kimg takes it a second by its own clock."""
        kimg = self._steps / STEPS * MEASURE_KIMG
        return Progress(kimg=kimg, elapsed_seconds=kimg)

    def snapshot(self) -> OrbitSnapshot:
        """Copies the state."""
        return OrbitSnapshot(self._steps, self._state)

    def load(self, folder: Path) -> None:
        """Goes on from a snapshot."""
        self._steps, self._state = json.loads((folder / "state.json").read_text())
        self._due = (self._steps // STEPS + 1) * STEPS

    def inherit(self, folder: Path) -> None:
        """Goes on from that of another trial."""
        self.load(folder)

    def close(self) -> None:
        """Holds nothing."""
