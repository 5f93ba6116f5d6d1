"""A study whose learning curves are a formula, with faults to order."""

import json
import math
import os
import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from search.events import SessionOpened, StudyOpened
from search.history import JOURNAL_NAME, History
from search.study import StudySpec
from search.trial_run import Progress


def score(params: Mapping[str, Any], kimg: float) -> float:
    """Nats after so much training: best at rate 0.1 and dropout 0.3, where it tends to 0."""
    rate_loss = 4 * (math.log10(params["learning_rate"]) + 1) ** 2
    dropout_loss = 9 * (params["d_dropout"] - 0.3) ** 2
    value: float = -100 * (rate_loss + dropout_loss + math.exp(-kimg / 200))
    return value


@dataclass(frozen=True)
class Fault:
    """What goes wrong with a trial once it has trained `kimg`; "once" leaves a mark."""

    kind: Literal["raise", "kill_once", "infeasible", "nan", "hang"]
    kimg: float


@dataclass(frozen=True)
class ClosedFormRuns:
    """Makes runs; `pace` is in kimg a second (infinite: no waiting), `folder` holds marks."""

    folder: Path
    kimg_per_trial: float = 400.0
    measure_kimg: float = 100.0
    pace: float = math.inf
    faults: Mapping[int, Fault] = field(default_factory=dict)

    def __call__(self, config: Mapping[str, Any]) -> "ClosedFormRun":
        return ClosedFormRun(self, config)


class ClosedFormRun:
    """Trains in chunks of a tenth of the distance between measurements."""

    def __init__(self, runs: ClosedFormRuns, config: Mapping[str, Any]) -> None:
        self.runs, self.config = runs, config
        self.chunks = 0
        self.loaded = 0.0

    @property
    def kimg(self) -> float:
        return self.chunks * self.runs.measure_kimg / 10

    def advance(self, seconds: float) -> Progress:
        until = time.monotonic() + seconds
        while self.kimg < self.runs.kimg_per_trial:
            time.sleep(self.runs.measure_kimg / 10 / self.runs.pace)
            self.chunks += 1
            infeasible = self._suffer()
            if infeasible or (self.chunks % 10 and time.monotonic() > until):
                return Progress(kimg=self.kimg, elapsed_seconds=self.kimg, infeasible=infeasible)
            if self.chunks % 10 == 0:
                break
        return self._measured()

    def _measured(self) -> Progress:
        fault = self.runs.faults.get(self.config["number"])
        value = score(self.config["params"], self.kimg)
        if fault and fault.kind == "nan" and self.kimg >= fault.kimg:
            value = math.nan
        return Progress(
            kimg=self.kimg,
            elapsed_seconds=self.kimg,
            metrics={
                "validation_log_likelihood": value,
                "standard_error": 1.0,
                "loaded_kimg": self.loaded,
            },
            done=self.kimg >= self.runs.kimg_per_trial,
        )

    def _suffer(self) -> str | None:
        number = self.config["number"]
        fault = self.runs.faults.get(number)
        if fault is None or self.kimg < fault.kimg:
            return None
        mark = self.runs.folder / f"fault-{number}"
        if fault.kind == "raise":
            raise RuntimeError(f"boom in trial {number}")
        if fault.kind == "kill_once" and not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if fault.kind == "hang":
            time.sleep(600)
        return f"loss is nan at {self.kimg:g} kimg" if fault.kind == "infeasible" else None

    def save(self, folder: Path) -> None:
        (folder / "state.json").write_text(json.dumps({"chunks": self.chunks}))

    def load(self, folder: Path) -> None:
        self.chunks = json.loads((folder / "state.json").read_text())["chunks"]
        self.loaded = self.kimg

    def close(self) -> None:
        pass


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


def open_history(folder: Path, spec: StudySpec) -> History:
    """Begins the study in the folder, or goes on with it."""
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
    history.append(SessionOpened(pid=os.getpid()))
    return history
