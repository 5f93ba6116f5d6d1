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
from cgan_core.data import DataSplits
from cgan_core.evaluation import Evaluator, Samples
from cgan_core.fused import FusedPopulation
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
        rows = [self.row(evaluator, trainer, position) for position in range(len(self.configs))]
        return found | {"members": rows}

    def steps_left(self, trainer: Trainer) -> int:
        """Returns the updates that are still to make; 0 where every member has diverged."""
        return max(
            (self.num_steps - member.t for member in trainer.members if not member.infeasible),
            default=0,
        )

    def row(self, evaluator: Evaluator, trainer: Trainer, position: int) -> dict[str, Any]:
        """Returns a member's configuration with its likelihoods in nats."""
        member = trainer.members[position]
        row = {"config": member.config.to_mapping(), "infeasible": member.infeasible}
        if member.infeasible:
            return row
        images = trainer.model(position).images
        samples = evaluator.draw(images, member.config.noise, member.config.noise_dim)
        return row | likelihoods(evaluator, samples, self.device)


def likelihoods(evaluator: Evaluator, samples: Samples, device: str) -> dict[str, float]:
    """Returns the bandwidth of the validation points, and the likelihoods of the test points."""
    centers = samples.images.to(device)
    protocol, splits = evaluator.protocol, evaluator.splits
    first = splits.validation.pixels[: protocol.num_bandwidth_points].to(device)
    sigma = parzen.select_bandwidth(first, centers, protocol.bandwidth)
    labels, given = splits.test.condition_tensor, samples.conditions
    has_classes = protocol.num_classes is not None and labels is not None and given is not None
    both = parzen.log_likelihoods(
        splits.test.pixels.to(device),
        centers,
        sigma,
        labels=labels.to(device) if has_classes and labels is not None else None,
        center_labels=given.to(device) if has_classes and given is not None else None,
    )
    rest = splits.validation.pixels[protocol.num_bandwidth_points :].to(device)
    found = {
        "bandwidth": sigma,
        "validation_log_likelihood": float(parzen.log_likelihood(rest, centers, sigma).mean()),
        "test_log_likelihood": float(both.pooled.mean()),
        "standard_error": float(both.pooled.std() / len(both.pooled) ** 0.5),
    }
    if both.conditional is not None:
        found["test_conditional_log_likelihood"] = float(both.conditional.mean())
    return found


def measure_parzen(
    splits: DataSplits, device: str, num: int, synchronize: Callable[[], None]
) -> dict[str, float]:
    """Returns milliseconds of the score of `num` points under `num` centres, and of its parts."""
    pixels = splits.train.pixels.to(device)
    count = min(num, len(pixels) // 2)
    points, centers = pixels[:count], pixels[count : 2 * count]
    calls: dict[str, Callable[[], object]] = {
        "bare_product": lambda: points @ centers.T,
        "one_bandwidth": lambda: parzen.log_likelihood(points, centers, 0.2),
        "exact_bandwidth": lambda: parzen.select_bandwidth(
            points[: count // 10], centers, "exact"
        ),
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
    return found | {"points": count, "centers": count}


def read_configurations(path: Path) -> list[GANConfig]:
    """Reads configurations: what all have in common, and what each has of its own."""
    document = json.loads(path.read_text())
    return [GANConfig.paper(**document["common"], **own) for own in document["members"]]
