"""Training of a population: members advance between measurements, each by its own stream."""

import json
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import Tensor

from cgan_core.config import GANConfig
from cgan_core.data import DataSplits
from cgan_core.examples import Examples
from cgan_core.member import Member

STATE_FILE, PROGRESS_FILE = "state.safetensors", "state.json"


class CheckpointError(ValueError):
    """A checkpoint is missing, broken, or of another population."""


@dataclass(frozen=True)
class Measurement:
    """What one member had reached at one point of its course.

    Args:
        member: position in the population.
        kimg: thousands of real images shown to its discriminator, to the nearest update.
        elapsed_seconds: spent training the population, evaluation left out.
        metrics: values by name; losses in nats an image.
        infeasible: why and where the member diverged, or None.
    """

    member: int
    kimg: float
    elapsed_seconds: float
    metrics: dict[str, float]
    infeasible: str | None = None


class Trainer:
    """Trains a population of conditional adversarial nets on the same data.

    Members never see each other: a member's course depends on its configuration, seed and data
    alone. A member that diverges stays behind and is reported; the others go on.

    Example:
        >>> from cgan_core import GANConfig, Trainer, load_data
        >>> trainer = Trainer(GANConfig.paper(), load_data("mnist"), seeds=1)
        >>> for measurement in trainer.run(total_kimg=100, measure_kimg=50):
        ...     print(measurement.kimg, measurement.metrics)

    Args:
        configs: hyperparameters, one a member (or one configuration for P = 1).
        splits: data; only the training split is seen.
        seeds: one a member.

    Raises:
        ConfigError: if a configuration does not fit the data.
    """

    def __init__(
        self,
        configs: GANConfig | Sequence[GANConfig],
        splits: DataSplits,
        seeds: int | Sequence[int],
    ) -> None:
        configs = [configs] if isinstance(configs, GANConfig) else list(configs)
        seeds = [seeds] if isinstance(seeds, int) else list(seeds)
        self.examples = Examples(splits)
        pairs = zip(configs, seeds, strict=True)
        self.members = [Member(config, self.examples, seed) for config, seed in pairs]
        self.elapsed_seconds = 0.0

    def advance(self, num_steps: int) -> None:
        """Makes `num_steps` generator updates of every member that has not diverged."""
        for member in self.members:
            self._timed(member, num_steps)

    def measure(self, member: int, kimg: float) -> Measurement:
        """Returns a member's measurement at a point, with its mean losses since the last one."""
        subject = self.members[member]
        subject.check()
        metrics = {} if subject.infeasible else subject.mean_losses()
        return Measurement(member, kimg, self.elapsed_seconds, metrics, subject.infeasible)

    def run(self, total_kimg: float, measure_kimg: float) -> Iterator[Measurement]:
        """Trains up to `total_kimg`, yielding each member's measurement every `measure_kimg`.

        A resumed run yields what is left. A diverged member is reported once, at its end.
        """
        reported: set[int] = set()
        while len(reported) < len(self.members):
            for position, member in enumerate(self.members):
                if position in reported:
                    continue
                point, steps = next_point(member, measure_kimg, total_kimg)
                if steps == 0:
                    reported.add(position)
                    continue
                self._timed(member, steps)
                measurement = self.measure(position, point)
                if measurement.infeasible:
                    reported.add(position)
                yield measurement

    def _timed(self, member: Member, num_steps: int) -> None:
        started = time.perf_counter()
        member.advance(num_steps)
        self.elapsed_seconds += time.perf_counter() - started

    def state_dict(self) -> dict[str, Tensor]:
        """Returns the state of every member by flat name."""
        return {
            f"{position}.{name}": value
            for position, member in enumerate(self.members)
            for name, value in member.state_dict().items()
        }

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Takes over the state of a population of the same configurations and seeds."""
        for position, member in enumerate(self.members):
            prefix = f"{position}."
            own = {k[len(prefix) :]: v for k, v in state.items() if k.startswith(prefix)}
            member.load_state_dict(own)

    def save(self, folder: Path) -> None:
        """Writes a checkpoint: tensors as safetensors, the rest as JSON."""
        folder.mkdir(parents=True, exist_ok=True)
        save_file(self.state_dict(), folder / STATE_FILE)
        partial = folder / f"{PROGRESS_FILE}.partial"
        partial.write_text(json.dumps(self._identity() | {"seconds": self.elapsed_seconds}))
        os.replace(partial, folder / PROGRESS_FILE)  # its presence says that both are whole

    def load(self, folder: Path) -> None:
        """Goes on from a checkpoint, bit for bit on the same hardware.

        Raises:
            CheckpointError: if it is missing, broken, or of other configurations or seeds.
        """
        try:
            progress = json.loads((folder / PROGRESS_FILE).read_text())
            state = load_file(folder / STATE_FILE)
        except Exception as error:
            raise CheckpointError(f"{folder}: not a whole checkpoint ({error})") from error
        seconds = progress.pop("seconds")
        if progress != self._identity():
            raise CheckpointError(f"{folder}: of other configurations or seeds than this trainer")
        self.load_state_dict(state)
        self.elapsed_seconds = seconds

    def _identity(self) -> dict[str, object]:
        return {
            "configs": [member.config.to_mapping() for member in self.members],
            "seeds": [member.seed for member in self.members],
        }


def next_point(member: Member, measure_kimg: float, total_kimg: float) -> tuple[float, int]:
    """Returns the next point of measurement in kimg and the updates that lead there.

    Points are the multiples of `measure_kimg` and the end of the budget; each is reached at the
    nearest whole update.
    """
    per_step = member.config.d_steps * member.config.batch_size / 1000
    count = int(member.kimg / measure_kimg)
    while True:
        point = min(count * measure_kimg, total_kimg)
        steps = round(point / per_step) - member.t
        if steps > 0 or point >= total_kimg:
            return point, max(steps, 0)
        count += 1
