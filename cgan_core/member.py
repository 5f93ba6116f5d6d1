"""One member of a population: two networks that play against each other."""

import copy
import math
from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn

from cgan_core.config import ConfigError, GANConfig
from cgan_core.draws import Draws
from cgan_core.examples import Examples
from cgan_core.families import FAMILIES
from cgan_core.networks import Generator, Masks, Tape
from cgan_core.networks.tape import Gradients
from cgan_core.optimizers import PlayerOptimizer
from cgan_core.passes import (
    Generated,
    Judged,
    Statistics,
    TapedImages,
    TapedLogits,
    TracedImages,
    TracedLogits,
)
from cgan_core.running import keep, move_average, move_running
from cgan_core.streams import stream
from cgan_core.turn import take_turn

CHECK_EVERY = 50  # updates between looks at the losses: a look costs a synchronisation


class Member:
    """A generator and a discriminator with their optimisers.

    All randomness comes from streams of (seed, t), so that the course of a member depends on its
    configuration, seed and data alone.

    Args:
        config: hyperparameters.
        examples: training images and conditions, shared by all members.
        seed: of every stream of this member.

    Raises:
        ConfigError: if the configuration does not fit the data.
    """

    def __init__(self, config: GANConfig, examples: Examples, seed: int) -> None:
        if config.batch_size > len(examples):
            limit = f"`batch_size <= {len(examples)}` (the training images) must hold"
            raise ConfigError(f"{limit}, but got batch_size={config.batch_size}", "batch_size")
        self.config, self.examples, self.seed = config, examples, seed
        self.t = 0  # generator updates made
        self.infeasible: str | None = None
        family, shape = FAMILIES[config.family], examples.image_shape
        self.kind = examples.kind_for(config)
        self.generator = family.generator(config, shape, self.kind)
        self.discriminator = family.discriminator(config, shape, self.kind)
        self._initialize()
        self.average = copy.deepcopy(self.generator) if config.g_average_kimg else None
        self._g_optimizer = PlayerOptimizer(config, self.generator)
        self._d_optimizer = PlayerOptimizer(config, self.discriminator, config.d_rate_ratio)
        self.draws = Draws(
            config, examples, seed, self.generator.dropout, self.discriminator.dropout
        )
        self._products = torch.bfloat16 if config.precision == "bfloat16" else None
        self._loss_sums = torch.zeros(3, dtype=torch.float64)  # discriminator, generator, updates

    def _initialize(self) -> None:
        for player in ("generator", "discriminator"):
            getattr(self, player).initialize(
                lambda name, player=player: stream(self.seed, f"init {player}.{name}")
            )
        self.generator.start_at(self.examples.pixel_means)

    @property
    def scored_generator(self) -> Generator:
        """The generator that is used: its average, or as it is where it has none."""
        return self.average or self.generator

    @property
    def epoch(self) -> float:
        """Passes over the training images made by the discriminator."""
        return self.t * self.config.d_steps / self.batches_per_epoch

    @property
    def batches_per_epoch(self) -> int:
        """Whole mini-batches in one pass; the rest of a shuffled epoch is left out."""
        return len(self.examples) // self.config.batch_size

    @property
    def kimg(self) -> float:
        """Thousands of real images shown to the discriminator."""
        return self.t * self.config.d_steps * self.config.batch_size / 1000

    def advance(self, num_steps: int) -> None:
        """Makes generator updates (each after k of the discriminator) unless it has diverged."""
        for _ in range(num_steps):
            if self.infeasible:
                return
            take_turn(self.config, self, self.draws, self.t)
            self.t += 1
            if self.t % CHECK_EVERY == 0:
                self.check()

    def check(self) -> None:
        """Marks the member infeasible if a loss, a parameter or a statistic is not finite."""
        d_loss, g_loss, _ = self._loss_sums.tolist()
        for name, value in (("d_loss", d_loss), ("g_loss", g_loss)):
            if not math.isfinite(value):
                self.fail(f"{name} is not finite")
        for player in ("generator", "discriminator"):
            for name, value in getattr(self, player).state_dict().items():
                if not torch.isfinite(value.sum()):
                    self.fail(f"{player}.{name} is not finite")

    def fail(self, quantity: str) -> None:
        """Marks the member infeasible; the first reason stays."""
        self.infeasible = self.infeasible or f"{quantity} at {self.kimg:g} kimg"

    def mean_losses(self) -> dict[str, float]:
        """Returns the mean losses since the last call, in nats an image."""
        d_loss, g_loss, updates = self._loss_sums.tolist()
        self._loss_sums.zero_()
        return {"d_loss": d_loss / updates, "g_loss": g_loss / updates} if updates else {}

    def generate(self, noise: Tensor, condition: Tensor | None, masks: Masks) -> Generated:
        """Runs the generator."""
        tape, network = Tape(self._products), self.generator
        images = network(noise, condition, masks, tape)
        if network.taped:
            return TapedImages(images, tape.records)
        return TracedImages(images, dict(network.named_parameters()), tape.statistics)

    def judge(
        self, images: Float[Tensor, "rows pixels"], condition: Tensor | None, masks: Masks
    ) -> Judged:
        """Runs the discriminator."""
        tape, network = Tape(self._products), self.discriminator
        if network.taped:
            logits = network(images, condition, masks, tape)
            return TapedLogits(logits, tape.records, masks.get("input"))
        images = images.requires_grad_()
        logits = network(images, condition, masks, tape)
        parameters = dict(network.named_parameters())
        return TracedLogits(logits, parameters, images, tape.directions, network.r1_weight)

    def update_discriminator(self, gradients: Gradients, loss: Float[Tensor, ""]) -> None:
        """Makes one of the k discriminator updates."""
        self._d_optimizer.step(gradients, self.t, self.epoch)
        self._loss_sums[0] += loss / self.config.d_steps

    def update_generator(self, gradients: Gradients, loss: Float[Tensor, ""]) -> None:
        """Makes the generator's update."""
        self._g_optimizer.step(gradients, self.t, self.epoch)
        self._loss_sums[1] += loss
        self._loss_sums[2] += 1

    def keep_directions(self, directions: Mapping[str, Tensor]) -> None:
        """Keeps what the discriminator's bounded layers found for its next pass."""
        keep(dict(self.discriminator.named_buffers()), directions)

    def follow_generator(self, statistics: Statistics) -> None:
        """Moves the generator's running statistics towards a batch's, and its average to it."""
        momentum = self.generator.statistics_momentum
        move_running(dict(self.generator.named_buffers()), statistics, momentum)
        if self.average is not None:
            share = average_share(self.config)
            move_average(self.average.state_dict(), self.generator.state_dict(), share)

    def state_dict(self) -> dict[str, Tensor]:
        """Returns a copy, on the CPU, of all that the member's future depends on, by flat name."""
        copies = {name: value.to("cpu", copy=True) for name, value in self.tensors().items()}
        return copies | {"progress.t": torch.tensor(self.t)}

    def tensors(self) -> dict[str, Tensor]:
        """Returns what training changes, by flat name; the tensors themselves."""
        parts = {
            "generator": self.generator.state_dict(),
            "discriminator": self.discriminator.state_dict(),
            "g_optimizer": self._g_optimizer.state_dict(),
            "d_optimizer": self._d_optimizer.state_dict(),
            "progress": {"loss_sums": self._loss_sums},
            "average": self.average.state_dict() if self.average is not None else {},
        }
        return {
            f"{part}.{name}": value
            for part, state in parts.items()
            for name, value in state.items()
        }

    def move(self, places: Mapping[str, Tensor]) -> None:
        """Moves what training changes, with its values, to the memory of these tensors."""
        for name, value in self.tensors().items():
            places[name].copy_(value)
        networks = {"generator": self.generator, "discriminator": self.discriminator}
        if self.average is not None:
            networks["average"] = self.average
        for network, module in networks.items():
            for name, value in module.state_dict(keep_vars=True).items():
                value.data = places[f"{network}.{name}"]
        self._g_optimizer.move(_part(places, "g_optimizer"))
        self._d_optimizer.move(_part(places, "d_optimizer"))
        self._loss_sums = places["progress.loss_sums"]

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Takes over a state that `state_dict` gave, of the same configuration and seed."""
        self.generator.load_state_dict(_part(state, "generator"))
        self.discriminator.load_state_dict(_part(state, "discriminator"))
        if self.average is not None:
            self.average.load_state_dict(_part(state, "average"))
        self._g_optimizer.load_state_dict(_part(state, "g_optimizer"))
        self._d_optimizer.load_state_dict(_part(state, "d_optimizer"))
        self.t = int(state["progress.t"])
        self._loss_sums.copy_(state["progress.loss_sums"])
        self.infeasible = None
        self.check()


def average_share(config: GANConfig) -> float:
    """Returns how far an update moves the generator's average: half the way in its half-life."""
    kimg = config.d_steps * config.batch_size / 1000
    kept: float = 0.5 ** (kimg / config.g_average_kimg)
    return 1 - kept


def _part(state: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    prefix = f"{name}."
    return {k[len(prefix) :]: v for k, v in state.items() if k.startswith(prefix)}


def count_parameters(network: nn.Module) -> int:
    """Returns the number of trainable values."""
    return sum(parameter.numel() for parameter in network.parameters())
