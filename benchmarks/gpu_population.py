"""Training of a whole population on one device, over as many calls as it takes, and its scores."""

import dataclasses
import json
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from cgan_core import parzen
from cgan_core.config import GANConfig
from cgan_core.configs.mlp import MLPConfig
from cgan_core.data import DataSplits
from cgan_core.evaluation import Evaluator
from cgan_core.fused import FusedPopulation
from cgan_core.member import Member
from cgan_core.references import real_images
from cgan_core.samples import Samples
from cgan_core.scores import Scores
from cgan_core.training import PROGRESS_FILE, Trainer

SAVE_SECONDS = 120.0  # between checkpoints
REPEATS = 5


@dataclasses.dataclass(frozen=True)
class Job:
    """What is trained, and where its checkpoint lies.

    Args:
        configs: one a member.
        splits: data.
        device: such as `cuda`.
        num_steps: generator updates of each member.
        stretch: updates between looks at the clock.
        folder: of the checkpoint.
    """

    configs: Sequence[GANConfig]
    splits: DataSplits
    device: str
    num_steps: int
    stretch: int
    folder: Path

    def trainer(self, examples: Any) -> Trainer:
        """Returns the population where its checkpoint left it."""
        population = FusedPopulation(examples, len(self.configs), self.device)
        trainer = Trainer(self.configs, population, list(range(len(self.configs))))
        if (self.folder / PROGRESS_FILE).exists():
            trainer.load(self.folder)
        return trainer

    def run(self, evaluator: Evaluator, deadline: float) -> dict[str, Any]:
        """Trains until a time of `time.monotonic`, saves, and scores all once they are done."""
        trainer = self.trainer(evaluator.examples)
        saved = time.monotonic()
        while left := self.steps_left(trainer):
            trainer.advance(min(self.stretch, left))
            if time.monotonic() >= deadline:
                break
            if time.monotonic() - saved >= SAVE_SECONDS:
                trainer.save(self.folder)
                saved = time.monotonic()
        trainer.save(self.folder)
        found = {
            "steps": max(member.t for member in trainer.members),
            "training_seconds": trainer.elapsed_seconds,
            "streams": sorted(trainer.streams),
            "execution": getattr(trainer.population, "execution", "eager"),
        }
        if self.steps_left(trainer):
            return found
        return found | self.scored(evaluator, trainer)

    def steps_left(self, trainer: Trainer) -> int:
        """Returns the updates that are still to make; 0 where every member has diverged."""
        return max(
            (self.num_steps - member.t for member in trainer.members if not member.infeasible),
            default=0,
        )

    def scored(self, evaluator: Evaluator, trainer: Trainer) -> dict[str, Any]:
        """Returns each member's configuration with its likelihoods in nats, and the time taken."""
        started = time.perf_counter()
        rows: list[dict[str, Any]] = [
            {"config": member.config.to_mapping(), "infeasible": member.infeasible}
            for member in trainer.members
        ]
        sound = [place for place, row in enumerate(rows) if not row["infeasible"]]
        drawn = [self.draw(evaluator, trainer.members[place]) for place in sound]
        found = evaluator.validations(drawn)
        for place, samples, validation in zip(sound, drawn, found, strict=True):
            test = evaluator.test(samples, validation.bandwidth)
            rows[place] |= likelihoods(validation, test) | evaluator.guard(samples).metrics
        return {"members": rows, "scoring_seconds": time.perf_counter() - started}

    def draw(self, evaluator: Evaluator, member: Member) -> Samples:
        """Draws a member's samples on its device."""
        config = member.config
        return evaluator.draw(member.generator, config)


def likelihoods(validation: Scores, test: Scores) -> dict[str, float]:
    """Returns what is told of a member, without what it has not."""
    found = {
        "bandwidth": validation.bandwidth,
        "validation_log_likelihood": validation.log_likelihood,
        "test_log_likelihood": test.log_likelihood,
        "standard_error": test.standard_error,
        "test_conditional_log_likelihood": test.conditional_log_likelihood,
    }
    return {name: value for name, value in found.items() if value is not None}


def measure_parzen(
    evaluator: Evaluator, num: int, synchronize: Callable[[], None]
) -> dict[str, float]:
    """Returns milliseconds of the score of `num` points under `num` centres, and of its parts.

    `member` is a whole measurement of one member's samples under the protocol: bandwidth, both
    likelihoods; `member_of_16` the same where 16 are scored in one call.
    """
    pixels = evaluator.splits.train.pixels.to(evaluator.device)
    count = min(num, len(pixels) // 2)
    points, centers = pixels[:count], pixels[count : 2 * count]
    samples = real_images(evaluator).to(evaluator.device)
    calls: dict[str, Callable[[], object]] = {
        "bare_product": lambda: points @ centers.T,
        "one_bandwidth": lambda: parzen.log_likelihood(points, centers, 0.2),
        "exact_bandwidth": lambda: parzen.select_bandwidth(
            points[: count // 10], centers, "exact"
        ),
        "member": lambda: evaluator.validation(samples),
        "member_of_16": lambda: evaluator.validations([samples] * 16),
    }
    times: dict[str, list[float]] = {name: [] for name in calls}
    for repeat in range(REPEATS + 1):
        for name, call in calls.items():
            synchronize()
            started = time.perf_counter()
            call()
            synchronize()
            if repeat:  # the first is to warm up
                times[name].append(1e3 * (time.perf_counter() - started))
    found = {f"{name}_ms": statistics.median(own) for name, own in times.items()}
    found["member_of_16_ms"] /= 16
    return found | {"points": count, "centers": count}


def read_configurations(path: Path) -> list[MLPConfig]:
    """Reads configurations: what all have in common, and what each has of its own."""
    document = json.loads(path.read_text())
    return [MLPConfig.paper(**document["common"], **own) for own in document["members"]]
