"""A trial of this project: a conditional adversarial net, scored while it trains."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from cgan_core.diagnostics import diagnose
from cgan_core.evaluation import Evaluator, Protocol
from cgan_core.evaluation_noise import SampleSet
from cgan_core.examples import Examples
from cgan_core.families import config_of
from cgan_core.fused import FusedPopulation
from cgan_core.member import Member
from cgan_core.networks import Generator
from cgan_core.pictures import class_grid, save_grid, to_bytes
from cgan_core.population import Population, Stretch, signature
from cgan_core.samples import SampleError, Samples
from cgan_core.scores import Scores
from cgan_core.stopping import BestState
from cgan_core.training import Checkpoint, Trainer, next_point
from search.data_source import DataSource
from search.evaluators import evaluator_of
from search.events import RunKey
from search.machine import processor
from search.points import picture_folder, write_points
from search.score_names import metrics_of, redraws_of
from search.trial import Direction
from search.trial_run import Progress


@dataclass(frozen=True)
class GANRuns:
    """Makes the lanes of one study; travels once to each process that trains.

    Args:
        data: where the data come from.
        protocol: how scores are made, and of how many folds; its digest was taken from the same
            data.
        model: fixed hyperparameters, by GANConfig field.
        kimg_per_trial: full budget of a trial.
        measure_kimg: distance between measurements.
        output: the study's folder, for samples and per-point likelihoods.
        metric: the objective; the generator at its best value is kept.
        direction: whether more of it is better.
        streams: how chance is drawn, `host` or `device`; None for what suits the device.
    """

    data: DataSource
    protocol: Protocol
    model: Mapping[str, Any]
    kimg_per_trial: float
    measure_kimg: float
    output: Path
    metric: str = "validation_log_likelihood"
    direction: Direction = "maximize"
    streams: str | None = None

    def __call__(self, device: str, capacity: int) -> "GANLanes":
        """Creates lanes; the data are read with the first trial."""
        return GANLanes(self, device, capacity)


class GANLanes:
    """Populations of one device, one a signature and fold: `search.trial_run.Lanes`."""

    def __init__(self, runs: GANRuns, device: str, capacity: int) -> None:
        self._runs, self._capacity = runs, capacity
        # Ray may set a GPU aside where PyTorch is built without.
        self.device = device if torch.cuda.is_available() else "cpu"
        self.streams = runs.streams or ("host" if self.device == "cpu" else "device")
        self.fused = self.device != "cpu" or self.streams == "device"
        self.processor = processor()  # scores are always its
        if self.device != "cpu":
            self.processor = f"{torch.cuda.get_device_name(self.device)}, {self.processor}"
        self._populations: dict[Hashable, Population | FusedPopulation] = {}

    def open(self, trial: Mapping[str, Any]) -> "GANRun":
        """Creates the run of one trial."""
        torch.set_num_threads(int(trial["threads"]))
        # Subnormal weights would slow every product down and change no result worth having.
        torch.set_flush_denormal(True)
        fold: int | None = trial["fold"]
        evaluator = evaluator_of(self._runs.data, self._runs.protocol, self.device, fold)
        config = config_of({**self._runs.model, **trial["params"]})
        key = (signature(config), fold)  # members of one population learn from the same images
        if key not in self._populations:
            # An empty one holds its memory still, in case its signature comes again.
            used = {k: p for k, p in self._populations.items() if not p.empty}
            self._populations = used | {key: self._population(evaluator.examples)}
        trainer = Trainer(config, self._populations[key], int(trial["seed"]))
        return GANRun(self._runs, trial, trainer, evaluator)

    def _population(self, examples: Examples) -> Population | FusedPopulation:
        if self.fused:
            return FusedPopulation(examples, self._capacity, self.device, self.streams)
        return Population(examples, self._capacity)

    def advance(self, runs: Sequence["GANRun"], num_steps: int) -> None:
        """Trains runs of one signature by `num_steps`."""
        population = runs[0].trainer.population
        stretches = population.advance([run.member for run in runs], num_steps)
        for run, stretch in zip(runs, stretches, strict=True):
            run.take(stretch)


@dataclass(frozen=True)
class GANSnapshot:
    """The state of a trainer, and the best generator before it."""

    trainer: Checkpoint
    best: BestState

    def save(self, folder: Path) -> None:
        """Writes both."""
        self.trainer.save(folder)
        self.best.save(folder)


@dataclass(eq=False)
class GANRun:
    """One trial in training: `search.trial_run.TrialRun`."""

    runs: GANRuns
    trial: Mapping[str, Any]
    trainer: Trainer
    evaluator: Evaluator
    best: BestState = field(default_factory=BestState)
    fault: Exception | None = None

    def __post_init__(self) -> None:
        self.signature: Hashable = (signature(self.member.config), self.trial["fold"])
        self._aim()

    @property
    def member(self) -> Member:
        """Its only member."""
        return self.trainer.members[0]

    @property
    def steps_left(self) -> int:
        """Updates to the next measurement; 0 where it is due, or the run cannot go on."""
        if self.member.infeasible or self.fault:
            return 0
        return max(self._due - self.member.t, 0)

    def _aim(self) -> None:
        """Sets the point of the next measurement, and the update where it is due."""
        runs, member = self.runs, self.member
        self._point, steps = next_point(member, runs.measure_kimg, runs.kimg_per_trial)
        self._due = member.t + steps

    def take(self, stretch: Stretch) -> None:
        """Takes in what some updates were to the member."""
        self.trainer.elapsed_seconds += stretch.seconds
        if stretch.fault is not None and not self._out_of_memory(stretch.fault):
            self.fault = stretch.fault

    def measure(self) -> Progress:
        """Scores the member, or says why it cannot go on."""
        if self.fault is not None:
            raise self.fault
        if self.member.infeasible:
            return self.progress()
        try:
            progress = self._measure(self._point)
        except (MemoryError, RuntimeError) as error:
            if not self._out_of_memory(error):
                raise
            return self.progress()
        self._aim()
        return progress

    def progress(self) -> Progress:
        """Tells where the member stands."""
        return self._progress(self.member.kimg)

    def _measure(self, point: float) -> Progress:
        measurement = self.trainer.measure(0, point)
        if measurement.infeasible:
            return self._progress(point)
        try:
            samples, others = self._draw("first"), self._draw("second")
        except SampleError as error:
            self.member.fail(f"sample ({error})")
            return self._progress(point)
        scores = self.evaluator.validation(samples)
        likelihoods = metrics_of(scores) | redraws_of(self.evaluator.validation(others))
        guarded = self.evaluator.guard(samples).metrics
        game = diagnose(self.member).metrics
        metrics = {**likelihoods, **guarded, **game, **measurement.metrics}
        generator = self.trainer.model().generator  # a copy, in the CPU's memory
        sign = 1.0 if self.runs.direction == "maximize" else -1.0
        improved = self.best.offer(sign * metrics[self.runs.metric], point, generator)
        self._write_artifacts(generator, scores, point, improved=improved)
        return self._progress(point, metrics)

    def _draw(self, which: SampleSet) -> Samples:
        member, noise_draw = self.member, self.trial["noise_draw"]
        config, trained = member.config, member.scored_generator  # where it is trained
        return self.evaluator.draw(trained, config, noise_draw, which)

    def _progress(self, kimg: float, metrics: dict[str, float] | None = None) -> Progress:
        return Progress(
            kimg=kimg,
            elapsed_seconds=self.trainer.elapsed_seconds,
            metrics=metrics,
            done=metrics is not None and kimg >= self.runs.kimg_per_trial,
            infeasible=self.member.infeasible,
        )

    def _write_artifacts(
        self, generator: Generator, scores: Scores, point: float, *, improved: bool
    ) -> None:
        number, replicate = self.trial["number"], self.trial["replicate"]
        member, shape = self.member, self.evaluator.splits.image_shape
        config = member.config
        examples = member.examples
        grid = class_grid(generator, config, member.kind, examples.grid_vectors())
        folder = picture_folder(RunKey(number, replicate))
        picture = self.runs.output / "samples" / folder / f"{point:g}.png"
        save_grid(to_bytes(grid, shape), picture)
        if improved:
            path = self.runs.output / "points" / f"{number}-{replicate}.parquet"
            conditional = scores.conditional_points
            write_points(
                path,
                scores.points.numpy(),
                None if conditional is None else conditional.numpy(),
            )

    def snapshot(self) -> GANSnapshot:
        """Copies the trainer's state; the best generator is never changed, only replaced."""
        return GANSnapshot(self.trainer.snapshot(), replace(self.best))

    def load(self, folder: Path) -> None:
        """Takes up what a snapshot wrote."""
        self.trainer.load(folder)
        self.best = BestState.load(folder)
        self._aim()

    def inherit(self, folder: Path) -> None:
        """Takes up the nets of another trial; what was its best stays with that."""
        self.trainer.inherit(folder)
        self._aim()

    def close(self) -> None:
        """Frees its lane."""
        self.trainer.population.leave(self.member)

    def _out_of_memory(self, error: Exception) -> bool:
        """Marks the member infeasible if memory ran out; returns whether it did."""
        # PyTorch has a class for it on a GPU only; on a CPU its allocator raises a RuntimeError.
        named = isinstance(error, MemoryError | torch.OutOfMemoryError)
        if not named and "can't allocate memory" not in str(error):
            return False
        self.member.fail(f"out of memory ({str(error).partition(chr(10))[0]})")
        return True
