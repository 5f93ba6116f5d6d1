"""Training of a population: members advance between measurements, each by its own stream."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from cgan_core.config import GANConfig
from cgan_core.data import DataSplits
from cgan_core.examples import Examples
from cgan_core.families import config_of
from cgan_core.fused import FusedPopulation
from cgan_core.member import Member
from cgan_core.model import Model
from cgan_core.population import Population, signature
from cgan_core.replacing import replacing
from cgan_core.tensor_files import read_tensors, write_tensors

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


@dataclass(frozen=True)
class Checkpoint:
    """The state of a trainer at one moment: tensors, and the rest as it is in JSON."""

    state: dict[str, Tensor]
    progress: dict[str, object]

    def save(self, folder: Path) -> None:
        """Writes tensors as safetensors, the rest as JSON, each whole or not."""
        folder.mkdir(parents=True, exist_ok=True)
        with replacing(folder / STATE_FILE) as partial:
            write_tensors(self.state, partial)
        with replacing(folder / PROGRESS_FILE) as partial:
            partial.write_text(json.dumps(self.progress))


class Trainer:
    """Trains a population of conditional adversarial nets on the same data.

    Members never see each other: a member's course depends on its configuration, seed and data
    alone. A member that diverges stays behind and is reported; the others go on.

    Example:
        >>> from cgan_core import MLPConfig, Trainer, load_data
        >>> trainer = Trainer(MLPConfig.paper(), load_data("mnist"), seeds=1)
        >>> for measurement in trainer.run(total_kimg=100, measure_kimg=50):
        ...     print(measurement.kimg, measurement.metrics)

    Args:
        configs: hyperparameters, one a member (or one configuration for P = 1).
        data: splits, of which only training is seen; or a population that is joined, which may
            have other members too.
        seeds: one a member.

    Raises:
        ConfigError: if a configuration does not fit the data.
    """

    def __init__(
        self,
        configs: GANConfig | Sequence[GANConfig],
        data: DataSplits | Population | FusedPopulation,
        seeds: int | Sequence[int],
    ) -> None:
        configs = [configs] if isinstance(configs, GANConfig) else list(configs)
        seeds = [seeds] if isinstance(seeds, int) else list(seeds)
        if isinstance(data, DataSplits):
            data = Population(Examples(data), capacity=len(seeds))
        self.population, self.examples = data, data.examples
        pairs = zip(configs, seeds, strict=True)
        self.members = [self.population.join(config, seed) for config, seed in pairs]
        self.elapsed_seconds = 0.0
        self.streams = {self.population.streams}  # what the members were trained on so far

    def advance(self, num_steps: int) -> None:
        """Makes `num_steps` generator updates of every member that has not diverged."""
        self._advance(self.members, num_steps)

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
                self._advance([member], steps)
                measurement = self.measure(position, point)
                if measurement.infeasible:
                    reported.add(position)
                yield measurement

    def model(self, member: int = 0) -> Model:
        """Returns a member's generator as it is now, ready for `generate` and for saving."""
        subject = self.members[member]
        parameters = {
            k: v.detach().clone() for k, v in subject.scored_generator.state_dict().items()
        }
        examples = self.examples
        return Model.of(
            subject.config,
            examples.image_shape,
            subject.kind,
            parameters,
            standardization=examples.standardization_for(subject.config),
        )

    def _advance(self, members: Sequence[Member], num_steps: int) -> None:
        for stretch in self.population.advance(members, num_steps):
            self.elapsed_seconds += stretch.seconds
            if stretch.fault is not None:
                raise stretch.fault

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

    def snapshot(self) -> Checkpoint:
        """Returns a copy of all that the future depends on."""
        rest = {"seconds": self.elapsed_seconds, "streams": sorted(self.streams)}
        progress = self._identity() | rest
        return Checkpoint(self.state_dict(), progress)

    def save(self, folder: Path) -> None:
        """Writes a checkpoint."""
        self.snapshot().save(folder)

    def load(self, folder: Path) -> None:
        """Goes on from a checkpoint, bit for bit on the same hardware.

        Raises:
            CheckpointError: if it is missing, broken, or of other configurations, seeds or data.
        """
        progress, state = _read(folder)
        identity = {key: progress[key] for key in ("configs", "seeds")}
        if identity != self._identity():
            raise CheckpointError(f"{folder}: of other configurations or seeds than this trainer")
        self._take(folder, progress, state)
        self.elapsed_seconds = progress["seconds"]

    def inherit(self, folder: Path) -> None:
        """Goes on from a checkpoint of others with the own configurations and seeds.

        The others may differ in what `families.CHANGEABLE` names, and in their seeds: the
        exploit step of population based training (Jaderberg et al. 2017).

        Raises:
            CheckpointError: if it is missing, broken, or of members of another signature.
        """
        progress, state = _read(folder)
        others = [signature(config_of(config)) for config in progress["configs"]]
        if others != [signature(member.config) for member in self.members]:
            raise CheckpointError(f"{folder}: of members of another signature than this trainer's")
        self._take(folder, progress, state)

    def _take(self, folder: Path, progress: Mapping[str, Any], state: dict[str, Tensor]) -> None:
        try:
            self.load_state_dict(state)
        except (LookupError, RuntimeError) as error:
            raise CheckpointError(f"{folder}: does not fit the data ({error})") from error
        self.streams |= set(progress["streams"])

    def _identity(self) -> dict[str, object]:
        return {
            "configs": [member.config.to_mapping() for member in self.members],
            "seeds": [member.seed for member in self.members],
        }


def _read(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Reads what `Checkpoint.save` wrote."""
    try:
        progress = json.loads((folder / PROGRESS_FILE).read_text())
        progress["seconds"] = float(progress["seconds"])
        progress.setdefault("streams", ["host"])  # it was written before there were others
        progress["configs"] = [_completed(config) for config in progress["configs"]]
        return progress, read_tensors(folder / STATE_FILE)
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise CheckpointError(f"{folder}: not a whole checkpoint ({error})") from error


def _completed(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a configuration with the fields that it was written too early to have."""
    return config_of(config).to_mapping()


def next_point(member: Member, measure_kimg: float, total_kimg: float) -> tuple[float, int]:
    """Returns the next point of measurement in kimg and the updates that lead there.

    Points are the multiples of `measure_kimg` and the end of the budget; each is reached at the
    nearest whole update, and of points that share an update the last counts.
    """
    per_step = member.config.d_steps * member.config.batch_size / 1000

    def reached(count: int) -> tuple[float, int]:
        point = count * measure_kimg
        if point > total_kimg or math.isclose(point, total_kimg):
            point = total_kimg  # a multiple may miss it by rounding
        return point, round(point / per_step)

    count = int(member.kimg / measure_kimg)
    point, update = reached(count)
    while point < total_kimg and (update <= member.t or reached(count + 1)[1] == update):
        count += 1
        point, update = reached(count)
    return point, max(update - member.t, 0)
