"""One member of a population: two networks that play Algorithm 1 against each other."""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from cgan_core.config import ConfigError, GANConfig
from cgan_core.examples import Examples
from cgan_core.losses import DISCRIMINATOR_LOSSES, GENERATOR_LOSSES
from cgan_core.networks import Discriminator, Generator, Masks
from cgan_core.networks.mlp import discriminator_dropout, generator_dropout
from cgan_core.optimizers import PlayerOptimizer
from cgan_core.streams import draw_noise, keep_mask, stream

CHECK_EVERY = 50  # updates between looks at the losses: a look costs a synchronisation


class Member:
    """A generator and a discriminator with their optimisers, advanced by Algorithm 1.

    Goodfellow et al. (2014), Algorithm 1: k discriminator updates, then one of the generator.
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
        self.generator = Generator(config, examples.pixels, examples.kind)
        self.discriminator = Discriminator(config, examples.pixels, examples.kind)
        self._initialize()
        self._g_optimizer = PlayerOptimizer(config, self.generator.parameters())
        self._d_optimizer = PlayerOptimizer(
            config, self.discriminator.parameters(), config.d_rate_ratio
        )
        self._g_dropout = generator_dropout(config)
        self._d_dropout = discriminator_dropout(config, examples.pixels)
        self._order, self._order_epoch = torch.empty(0, dtype=torch.int64), -1
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
        noise_and_condition = self._draw_fake("fake", 0)
        for update in range(self.config.d_steps):
            if update:
                noise_and_condition = self._draw_fake("fake", update)
            with torch.set_grad_enabled(not self.config.fresh_noise):
                fake = self._generate(*noise_and_condition, update)
            self._update_discriminator(fake.detach(), noise_and_condition[1], update)
        if self.config.fresh_noise:
            noise_and_condition = self._draw_fake("generator fake", 0)
            fake = self._generate(*noise_and_condition, self.config.d_steps)
        self._update_generator(fake, noise_and_condition[1])

    def _draw_fake(
        self, name: str, update: int
    ) -> tuple[Float[Tensor, "rows noise_dim"], Tensor | None]:
        rng = stream(self.seed, f"{name} {update}", self.t)
        rows = self.config.batch_size
        noise = draw_noise(rng, self.config.noise, rows, self.config.noise_dim)
        return noise, self.examples.draw_conditions(rng, rows, self.config.fake_labels)

    def _generate(
        self, noise: Tensor, condition: Tensor | None, update: int
    ) -> Float[Tensor, "rows pixels"]:
        masks = self._masks(self._g_dropout, len(noise), f"generator masks {update}")
        images: Tensor = self.generator(noise, condition, masks)
        return images

    def _masks(self, places: dict[str, tuple[int, float]], rows: int, name: str) -> Masks:
        rng = stream(self.seed, name, self.t)
        return {
            place: keep_mask(rng, rows, width, rate) for place, (width, rate) in places.items()
        }

    def _update_discriminator(
        self, fake: Float[Tensor, "rows pixels"], condition: Tensor | None, update: int
    ) -> None:
        real, real_condition = self.examples.batch(self._batch_indices(update))
        images = torch.cat([real, fake])
        conditions = None
        if condition is not None and real_condition is not None:
            conditions = torch.cat([real_condition, condition])
        masks = self._masks(self._d_dropout, len(images), f"discriminator masks {update}")
        logits = self.discriminator(images, conditions, masks)
        real_logits, fake_logits = logits.chunk(2)
        loss = DISCRIMINATOR_LOSSES[self.config.d_loss](real_logits, fake_logits)
        gradients = torch.autograd.grad(loss, self._d_optimizer.parameters)
        self._d_optimizer.step(gradients, self.t, self.epoch, first_of_t=update == 0)
        self._loss_sums[0] += loss.detach() / self.config.d_steps

    def _update_generator(
        self, fake: Float[Tensor, "rows pixels"], condition: Tensor | None
    ) -> None:
        masks = self._masks(self._d_dropout, len(fake), "discriminator masks of generator")
        logits = self.discriminator(fake, condition, masks)
        loss = GENERATOR_LOSSES[self.config.generator_loss](logits)
        gradients = torch.autograd.grad(loss, self._g_optimizer.parameters)
        self._g_optimizer.step(gradients, self.t, self.epoch)
        self._loss_sums[1] += loss.detach()
        self._loss_sums[2] += 1

    def _batch_indices(self, update: int) -> Int[Tensor, " rows"]:
        """Returns the rows of the next mini-batch: every epoch is a fresh permutation."""
        batch = self.t * self.config.d_steps + update
        epoch, position = divmod(batch, self.batches_per_epoch)
        start = position * self.config.batch_size
        if epoch != self._order_epoch:
            order = stream(self.seed, "order", epoch).permutation(len(self.examples))
            self._order, self._order_epoch = torch.from_numpy(order), epoch
        return self._order[start : start + self.config.batch_size]

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
