"""A trial of this project: a conditional adversarial net, scored while it trains."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from cgan_core.config import GANConfig
from cgan_core.data import DataSplits
from cgan_core.evaluation import Evaluator, Protocol, SampleError, Scores
from cgan_core.member import Member
from cgan_core.pictures import class_grid, save_grid, to_bytes
from cgan_core.stopping import BestState
from cgan_core.training import Trainer, next_point
from search.data_source import DataSource
from search.points import write_points
from search.trial import Direction
from search.trial_run import Progress

CHUNK_STEPS = 10  # updates between looks at the clock


@dataclass(frozen=True)
class GANRuns:
    """Makes the runs of one study; travels to the workers once.

    Args:
        data: where the data come from.
        protocol: how scores are made; its digest was taken from the same data.
        model: fixed hyperparameters, by GANConfig field.
        kimg_per_trial: full budget of a trial.
        measure_kimg: distance between measurements.
        output: the study's folder, for samples and per-point likelihoods.
        metric: the objective; the generator at its best value is kept.
        direction: whether more of it is better.
    """

    data: DataSource
    protocol: Protocol
    model: Mapping[str, Any]
    kimg_per_trial: float
    measure_kimg: float
    output: Path
    metric: str = "validation_log_likelihood"
    direction: Direction = "maximize"

    def __call__(self, trial: Mapping[str, Any]) -> "GANRun":
        """Creates the run of one trial."""
        torch.set_num_threads(int(trial["threads"]))
        # Subnormal weights would slow every product down and change no result worth having.
        torch.set_flush_denormal(True)
        splits, evaluator = _prepared(self.data, self.protocol)
        config = GANConfig.from_mapping({**self.model, **trial["params"]})
        return GANRun(self, trial, Trainer(config, splits, int(trial["seed"])), evaluator)


@lru_cache(maxsize=1)
def _prepared(data: DataSource, protocol: Protocol) -> tuple[DataSplits, Evaluator]:
    splits = data.load()
    if splits.digest != protocol.dataset_digest:
        raise ValueError(
            f"the data on this machine (digest {splits.digest[:12]}, {splits.source}) are not "
            f"those of the study (digest {protocol.dataset_digest[:12]}): give every machine "
            "the same files through CGAN_DATA_DIR"
        )
    return splits, Evaluator(splits, protocol)


@dataclass
class GANRun:
    """One trial in training: `search.trial_run.TrialRun`."""

    runs: GANRuns
    trial: Mapping[str, Any]
    trainer: Trainer
    evaluator: Evaluator
    best: BestState = field(default_factory=BestState)

    @property
    def _member(self) -> Member:
        return self.trainer.members[0]

    def advance(self, seconds: float) -> Progress:
        """Trains until a measurement is made or about `seconds` have passed."""
        until = time.monotonic() + seconds
        runs = self.runs
        point, steps = next_point(self._member, runs.measure_kimg, runs.kimg_per_trial)
        try:
            while steps > 0 and time.monotonic() < until and not self._member.infeasible:
                now = min(steps, CHUNK_STEPS)
                self.trainer.advance(now)
                steps -= now
            if not self._member.infeasible and steps == 0:
                return self._measure(point)
        except (MemoryError, RuntimeError) as error:
            if not _is_out_of_memory(error):
                raise
            self._member.fail(f"out of memory ({str(error).partition(chr(10))[0]})")
        return self._progress(self._member.kimg)

    def _measure(self, point: float) -> Progress:
        measurement = self.trainer.measure(0, point)
        if measurement.infeasible:
            return self._progress(point)
        config, generator = self._member.config, self._member.generator
        try:
            samples = self.evaluator.draw(generator, config.noise, config.noise_dim)
        except SampleError as error:
            self._member.fail(f"sample ({error})")
            return self._progress(point)
        scores = self.evaluator.validation(samples)
        metrics = {**metrics_of(scores), **measurement.metrics}
        sign = 1.0 if self.runs.direction == "maximize" else -1.0
        improved = self.best.offer(sign * metrics[self.runs.metric], point, generator)
        self._write_artifacts(scores, point, improved=improved)
        return self._progress(point, metrics)

    def _progress(self, kimg: float, metrics: dict[str, float] | None = None) -> Progress:
        return Progress(
            kimg=kimg,
            elapsed_seconds=self.trainer.elapsed_seconds,
            metrics=metrics,
            done=metrics is not None and kimg >= self.runs.kimg_per_trial,
            infeasible=self._member.infeasible,
        )

    def _write_artifacts(self, scores: Scores, point: float, *, improved: bool) -> None:
        number, replicate = self.trial["number"], self.trial["replicate"]
        member, shape = self._member, self.evaluator.splits.image_shape
        config = member.config
        examples = member.examples
        grid = class_grid(member.generator, config, examples.kind, examples.grid_vectors())
        picture = self.runs.output / "samples" / str(number) / f"{point:g}.png"
        save_grid(to_bytes(grid, shape), picture)
        if improved:
            path = self.runs.output / "points" / f"{number}-{replicate}.parquet"
            conditional = scores.conditional_points
            write_points(
                path,
                scores.points.numpy(),
                None if conditional is None else conditional.numpy(),
            )

    def save(self, folder: Path) -> None:
        """Writes the trainer's state and the best generator so far."""
        self.trainer.save(folder)
        self.best.save(folder)

    def load(self, folder: Path) -> None:
        """Takes up what `save` wrote."""
        self.trainer.load(folder)
        self.best = BestState.load(folder)

    def close(self) -> None:
        """Nothing is held beyond memory."""


def _is_out_of_memory(error: Exception) -> bool:
    # PyTorch has a class for it on a GPU only; on a CPU its allocator raises a RuntimeError.
    named = isinstance(error, MemoryError | torch.OutOfMemoryError)
    return named or "can't allocate memory" in str(error)


def metrics_of(scores: Scores) -> dict[str, float]:
    """Returns the validation scores by their recorded names, in nats where not a share."""
    named = {
        "validation_log_likelihood": scores.log_likelihood,
        "standard_error": scores.standard_error,
        "conditional_log_likelihood": scores.conditional_log_likelihood,
        "conditional_standard_error": scores.conditional_standard_error,
        "bandwidth": scores.bandwidth,
        "label_accuracy": scores.label_accuracy,
    }
    return {name: value for name, value in named.items() if value is not None}
