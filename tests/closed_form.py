"""A study whose learning curves are a formula, with faults to order."""

import json
import math
import os
import signal
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from search.events import SessionOpened, StudyOpened
from search.history import JOURNAL_NAME, History
from search.points import write_points
from search.study import StudySpec
from search.trial_run import Progress

STEPS = 40  # updates between measurements
DIFFICULTY = np.array([-90.0, 0.0, 90.0])  # of each point, common to all trials


def score(params: Mapping[str, Any], kimg: float) -> float:
    """Nats after so much training: best at rate 0.1 and dropout 0.3, where it tends to 0."""
    rate_loss = 4 * (math.log10(params["learning_rate"]) + 1) ** 2
    dropout_loss = 9 * (params["d_dropout"] - 0.3) ** 2
    value: float = -100 * (rate_loss + dropout_loss + math.exp(-kimg / 200))
    return value


def pace(params: Mapping[str, Any]) -> float:
    """Nats that a growing run gains with each kimg: at most 1, at rate 0.1 and dropout 0.3."""
    return math.exp(score(params, math.inf) / 100)


def drifting_pace(params: Mapping[str, Any], share: float) -> float:
    """The same, but what is best moves: from rate 0.5 and dropout 0.1 to 0.005 and 0.5."""
    rate_loss = (math.log10(params["learning_rate"]) + 0.3 + 2 * share) ** 2
    dropout_loss = 9 * (params["d_dropout"] - 0.1 - 0.4 * share) ** 2
    return math.exp(-2 * (rate_loss + dropout_loss))


@dataclass(frozen=True)
class Fault:
    """What goes wrong with a trial once it has trained `kimg`; "once" leaves a mark."""

    kind: Literal["raise", "kill_once", "poison_once", "infeasible", "nan", "hang"]
    kimg: float
    words: str | None = None  # of "raise"


@dataclass(frozen=True)
class ClosedFormRuns:
    """Makes lanes; `pace` is in kimg a second (infinite: no waiting), `folder` holds marks."""

    folder: Path
    kimg_per_trial: float = 400.0
    measure_kimg: float = 100.0
    pace: float = math.inf
    faults: Mapping[Any, Fault] = field(default_factory=dict)
    fused: bool = False
    points: bool = False  # whether the points of a measurement are written
    seed_noise: float = 0.0  # nats; a run's seed adds so much times a normal variate
    grows: bool = False  # the score is what `pace` has added up, inherited with the state
    drifts: bool = False  # with it, the pace is `drifting_pace`

    def __call__(self, device: str, capacity: int) -> "ClosedFormLanes":
        return ClosedFormLanes(self, self.fused, device)


@dataclass
class ClosedFormLanes:
    """Advances one run after another; `chunks` tells the numbers of those in each chunk."""

    runs: ClosedFormRuns
    fused: bool
    device: str
    streams: str = "none"
    processor: str = "closed form"
    chunks: list[list[int]] = field(default_factory=list)

    def open(self, trial: Mapping[str, Any]) -> "ClosedFormRun":
        return ClosedFormRun(self.runs, trial)

    def advance(self, runs: Sequence["ClosedFormRun"], num_steps: int) -> None:
        self.chunks.append([run.trial["number"] for run in runs])
        for run in runs:
            run.train(num_steps)
            if run.poisoned:
                raise RuntimeError("illegal memory access")


@dataclass(frozen=True)
class ClosedFormSnapshot:
    state: Mapping[str, Any]

    def save(self, folder: Path) -> None:
        (folder / "state.json").write_text(json.dumps(self.state))


@dataclass(eq=False)
class ClosedFormRun:
    """Trains 40 steps from measurement to measurement; its state is a chaotic orbit."""

    runs: ClosedFormRuns
    trial: Mapping[str, Any]
    steps: int = 0
    loaded: float = 0.0
    grown: float = 0.0  # nats
    infeasible: str | None = None
    fault: Exception | None = None
    closed: bool = False
    poisoned: bool = False

    def __post_init__(self) -> None:
        self.state = (self.trial["seed"] % 997 + 1) / 1000
        generator = np.random.default_rng(self.trial["seed"])
        self.luck = self.runs.seed_noise * generator.standard_normal()
        self._aim()

    @property
    def kimg(self) -> float:
        return self.steps * self.runs.measure_kimg / STEPS

    @property
    def signature(self) -> Any:
        return self.trial["params"].get("units")

    @property
    def steps_left(self) -> int:
        return 0 if self.infeasible or self.fault else self.due - self.steps

    def train(self, num_steps: int) -> None:
        for _ in range(num_steps):
            if self.infeasible or self.fault:
                return
            time.sleep(self.runs.measure_kimg / STEPS / self.runs.pace)
            self.steps += 1
            if self.runs.grows:
                self.grown += self._pace() * self.runs.measure_kimg / STEPS
            self.state = 4 * self.state * (1 - self.state)
            try:
                self._suffer()
            except Exception as fault:
                self.fault = fault

    def measure(self) -> Progress:
        if self.fault is not None:
            raise self.fault
        if self.infeasible:
            return self.progress()
        fault = self._fault
        value = self.grown if self.runs.grows else score(self.trial["params"], self.kimg)
        value += self.luck
        if fault and fault.kind == "nan" and self.kimg >= fault.kimg:
            value = math.nan
        metrics = {
            "validation_log_likelihood": value,
            "standard_error": 1.0,
            "state": self.state,
            "loaded_kimg": self.loaded,
            "visible_gpu": float(os.environ.get("CUDA_VISIBLE_DEVICES") or -1),
        }
        self._aim()
        if self.runs.points:
            number, replicate = self.trial["number"], self.trial["replicate"]
            own = np.array([0.0, 300.0, -300.0]) * (number % 3)  # leaves the mean as it is
            path = self.runs.folder / f"points/{number}-{replicate}.parquet"
            write_points(path, value + DIFFICULTY + own, None)
        return replace(
            self.progress(), metrics=metrics, done=self.kimg >= self.runs.kimg_per_trial
        )

    def progress(self) -> Progress:
        return Progress(kimg=self.kimg, elapsed_seconds=self.kimg, infeasible=self.infeasible)

    def snapshot(self) -> ClosedFormSnapshot:
        return ClosedFormSnapshot({"steps": self.steps, "state": self.state, "grown": self.grown})

    def load(self, folder: Path) -> None:
        saved = json.loads((folder / "state.json").read_text())
        self.steps, self.state, self.grown = saved["steps"], saved["state"], saved["grown"]
        self.loaded = self.kimg
        self._aim()

    def inherit(self, folder: Path) -> None:
        own = self.trial["seed"] % 997 / 1e6
        self.load(folder)
        self.state = (self.state + own) % 1.0

    def close(self) -> None:
        assert not self.closed
        self.closed = True

    def _pace(self) -> float:
        params = self.trial["params"]
        if not self.runs.drifts:
            return pace(params)
        return drifting_pace(params, self.kimg / self.runs.kimg_per_trial)

    def _aim(self) -> None:
        whole = round(self.runs.kimg_per_trial / self.runs.measure_kimg) * STEPS
        self.due = min((self.steps // STEPS + 1) * STEPS, whole)

    @property
    def _fault(self) -> Fault | None:
        """That of this very run, or of the first run of its trial."""
        number, replicate = self.trial["number"], self.trial.get("replicate", 0)
        of_trial = self.runs.faults.get(number) if replicate == 0 else None
        return self.runs.faults.get((number, replicate), of_trial)

    def _suffer(self) -> None:
        number, fault = self.trial["number"], self._fault
        if fault is None or self.kimg < fault.kimg:
            return
        mark = self.runs.folder / f"fault-{number}"
        if fault.kind == "raise":
            raise RuntimeError(fault.words or f"boom in trial {number}")
        if fault.kind == "kill_once" and not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if fault.kind == "poison_once" and not mark.exists():
            mark.touch()
            self.poisoned = True
        if fault.kind == "hang":
            time.sleep(600)
        if fault.kind == "infeasible":
            self.infeasible = f"loss is nan at {self.kimg:g} kimg"


def study(*, grid: int = 4, model: int = 3, seed: int = 0, **overrides: Any) -> StudySpec:
    """A manual point that lies on the grid of 12 cells, then cells of it, then a model."""
    stages: list[dict[str, Any]] = [
        {"kind": "manual", "points": [{"learning_rate": 0.1, "d_dropout": 0.3}]},
        {"kind": "random_grid", "levels": {"learning_rate": 4, "d_dropout": 3}, "trials": grid},
    ]
    if model:
        stages.append({"kind": "model", "trials": model})
    space = {
        "learning_rate": {"type": "float", "low": 0.001, "high": 1.0, "log": True},
        "d_dropout": {"type": "float", "low": 0.0, "high": 0.6},
    }
    budget = {"kimg_per_trial": 400.0, "measure_kimg": 100.0, "trials": 1 + grid + model}
    sections: dict[str, Any] = {
        "study": "closed_form",
        "seed": seed,
        "data": {"name": "mnist"},
        "model": {"momentum": 0.5},
        "space": space,
        "stages": stages,
        "scheduler": {"kind": "none"},
        "budget": budget,
    }
    return StudySpec.from_mapping(sections | overrides)


def open_history(
    folder: Path, spec: StudySpec, extra_trials: int = 0, extra_seconds: float = 0.0
) -> History:
    """Begins the study in the folder, or goes on with it and with what is added to it."""
    if (folder / JOURNAL_NAME).exists():
        history = History.resume(folder)
    else:
        history = History.create(folder)
        history.append(
            StudyOpened(
                study=spec.study,
                study_id="0" * 32,
                spec=spec.model_dump(mode="json"),
                spec_digest=spec.digest,
                dataset_digest="none",
                protocol_digest="none",
            )
        )
    history.append(
        SessionOpened(pid=os.getpid(), extra_trials=extra_trials, extra_seconds=extra_seconds)
    )
    return history
