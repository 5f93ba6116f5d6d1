"""One member of a population: two networks that play against each other."""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from cgan_core.config import ConfigError, GANConfig
from cgan_core.draws import Draws
from cgan_core.examples import Examples
from cgan_core.game import (
    Generated,
    Gradients,
    Judged,
    discriminator_gradients,
    generator_gradients,
    simultaneous_gradients,
)
from cgan_core.networks import Discriminator, Generator, Tape
from cgan_core.optimizers import PlayerOptimizer
from cgan_core.pages import gather, zeros
from cgan_core.streams import stream

CHECK_EVERY = 50  # updates between looks at the losses: a look costs a synchronisation


class Member:
    """A generator and a discriminator with their optimisers.

    `alternating` is Algorithm 1 of Goodfellow et al. (2014): k discriminator updates, then one of
    the generator. `simultaneous` makes the last of the k and the generator's from one pass over
    the same fakes, both from the weights before it. All randomness comes from streams of
    (seed, t), so that the course of a member depends on its configuration, seed and data alone.

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
        self.generator = Generator(config, examples.pixels, examples.kind)
        self.discriminator = Discriminator(config, examples.pixels, examples.kind)
        for network in (self.generator, self.discriminator):
            gather(network)
        self._initialize()
        self._g_optimizer = PlayerOptimizer(config, self.generator)
        self._d_optimizer = PlayerOptimizer(config, self.discriminator, config.d_rate_ratio)
        self._draws = Draws(config, examples, seed)
        players = (self.generator, self.discriminator)
        sizes = [parameter.shape for network in players for parameter in network.parameters()]
        (self._workspace,) = zeros([torch.Size([max(size.numel() for size in sizes)])])
        self._products = torch.bfloat16 if config.precision == "bfloat16" else torch.float32
        self._loss_sums = torch.zeros(3, dtype=torch.float64)  # discriminator, generator, updates

    def _initialize(self) -> None:
        """Draws weights from U(-a, a), zeroes biases; G starts at the mean training image."""
        c = self.config
        with torch.no_grad():
            own = c.g_condition_init_range or c.g_init_range
            self._draw_weights("generator", self.generator, c.g_init_range, own)
            own = c.d_condition_init_range or c.d_init_range
            self._draw_weights("discriminator", self.discriminator, c.d_init_range, own)
            self.generator.image.bias.copy_(torch.logit(self.examples.pixel_means, eps=1e-4))

    def _draw_weights(
        self, player: str, network: nn.Module, limit: float, condition_limit: float
    ) -> None:
        for name, parameter in network.named_parameters():
            if name.endswith("bias"):
                parameter.zero_()
                continue
            a = condition_limit if name == "condition.weight" else limit
            rng = stream(self.seed, f"init {player}.{name}")
            parameter.copy_(torch.from_numpy(rng.uniform(-a, a, tuple(parameter.shape))))

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
            self._step()
            self.t += 1
            if self.t % CHECK_EVERY == 0:
                self.check()

    def check(self) -> None:
        """Marks the member infeasible if a loss or a parameter is not finite."""
        d_loss, g_loss, _ = self._loss_sums.tolist()
        for name, value in (("d_loss", d_loss), ("g_loss", g_loss)):
            if not math.isfinite(value):
                self.fail(f"{name} is not finite")
        for player in ("generator", "discriminator"):
            for name, parameter in getattr(self, player).named_parameters():
                if not torch.isfinite(parameter.detach().sum()):
                    self.fail(f"{player}.{name} is not finite")

    def fail(self, quantity: str) -> None:
        """Marks the member infeasible; the first reason stays."""
        self.infeasible = self.infeasible or f"{quantity} at {self.kimg:g} kimg"

    def mean_losses(self) -> dict[str, float]:
        """Returns the mean losses since the last call, in nats an image."""
        d_loss, g_loss, updates = self._loss_sums.tolist()
        self._loss_sums.zero_()
        return {"d_loss": d_loss / updates, "g_loss": g_loss / updates} if updates else {}

    def _step(self) -> None:
        c = self.config
        for update in range(c.d_steps):
            last = update == c.d_steps - 1
            with torch.set_grad_enabled(last and not c.fresh_noise):
                fake, condition = self._generate(f"fake {update}", update)
            judged = self._judge_both(fake.images.detach(), condition, update)
            if last and c.update == "simultaneous":
                d_side, g_side = simultaneous_gradients(c, judged, fake)
            else:
                d_side = discriminator_gradients(c, judged)
            self._update_discriminator(*d_side, first_of_t=update == 0)
        if c.update == "alternating":
            if c.fresh_noise:
                fake, condition = self._generate("generator fake 0", c.d_steps)
            judged = self._judge(
                fake.images.detach(), condition, "discriminator masks of generator"
            )
            g_side = generator_gradients(c, judged, fake)
        self._update_generator(*g_side)

    def _generate(self, name: str, update: int) -> tuple[Generated, Tensor | None]:
        noise, condition = self._draws.noise_and_condition(name, self.t)
        masks = self._draws.generator_masks(f"generator masks {update}", self.t)
        tape = Tape(self._products)
        images = self.generator(noise, condition, masks, tape)
        return Generated(images, tape.records, self._workspace), condition

    def _judge_both(
        self, fake: Float[Tensor, "rows pixels"], condition: Tensor | None, update: int
    ) -> Judged:
        real, real_condition = self._draws.real(self.t * self.config.d_steps + update)
        conditions = None
        if condition is not None and real_condition is not None:
            conditions = torch.cat([real_condition, condition])
        return self._judge(torch.cat([real, fake]), conditions, f"discriminator masks {update}")

    def _judge(
        self, images: Float[Tensor, "rows pixels"], condition: Tensor | None, name: str
    ) -> Judged:
        masks = self._draws.discriminator_masks(len(images), name, self.t)
        tape = Tape(self._products)
        logits = self.discriminator(images, condition, masks, tape)
        return Judged(logits, tape.records, masks.get("input"), self._workspace)

    def _update_discriminator(
        self, gradients: Gradients, loss: Float[Tensor, ""], *, first_of_t: bool
    ) -> None:
        self._d_optimizer.step(gradients, self.t, self.epoch, first_of_t=first_of_t)
        self._loss_sums[0] += loss / self.config.d_steps

    def _update_generator(self, gradients: Gradients, loss: Float[Tensor, ""]) -> None:
        self._g_optimizer.step(gradients, self.t, self.epoch)
        self._loss_sums[1] += loss
        self._loss_sums[2] += 1

    def state_dict(self) -> dict[str, Tensor]:
        """Returns all that the future of the member depends on, by flat name."""
        parts = {
            "generator": self.generator.state_dict(),
            "discriminator": self.discriminator.state_dict(),
            "g_optimizer": self._g_optimizer.state_dict(),
            "d_optimizer": self._d_optimizer.state_dict(),
            "progress": {"t": torch.tensor(self.t), "loss_sums": self._loss_sums},
        }
        return {
            f"{part}.{name}": value.detach().clone()
            for part, state in parts.items()
            for name, value in state.items()
        }

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Takes over a state that `state_dict` gave, of the same configuration and seed."""

        def part(name: str) -> dict[str, Tensor]:
            prefix = f"{name}."
            return {k[len(prefix) :]: v for k, v in state.items() if k.startswith(prefix)}

        self.generator.load_state_dict(part("generator"))
        self.discriminator.load_state_dict(part("discriminator"))
        self._g_optimizer.load_state_dict(part("g_optimizer"))
        self._d_optimizer.load_state_dict(part("d_optimizer"))
        self.t = int(state["progress.t"])
        self._loss_sums = state["progress.loss_sums"].clone()
        self.infeasible = None
        self.check()


def count_parameters(network: nn.Module) -> int:
    """Returns the number of trainable values."""
    return sum(parameter.numel() for parameter in network.parameters())
