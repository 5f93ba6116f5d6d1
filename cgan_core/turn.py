"""One turn of the game: what is drawn, judged and updated, and in which order.

A single member and a stacked population (`cgan_core.lanes`) take their turns by the same code;
leading axes, where there are any, are the members.
"""

from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import Tensor

from cgan_core.config import GANConfig
from cgan_core.game import (
    Loss,
    discriminator_gradients,
    generator_gradients,
    simultaneous_gradients,
)
from cgan_core.networks import Masks
from cgan_core.networks.tape import Gradients
from cgan_core.passes import Generated, Images, Judged, Statistics


class Draws(Protocol):
    """What chance gives; t is a number, or one a member."""

    def real(self, batch: Any) -> tuple[Images, Tensor | None]:
        """Returns the images and conditions of a mini-batch, counted from the beginning."""
        ...

    def noise_and_condition(self, name: str, t: Any) -> tuple[Tensor, Tensor | None]:
        """Draws what a mini-batch of fakes is made from."""
        ...

    def generator_masks(self, name: str, t: Any) -> Masks:
        """Draws the generator's dropout masks."""
        ...

    def discriminator_masks(self, rows: int, name: str, t: Any) -> Masks:
        """Draws the discriminator's dropout masks."""
        ...


class Players(Protocol):
    """A generator and a discriminator with their optimisers, or a stack of each."""

    def generate(self, noise: Tensor, condition: Tensor | None, masks: Masks) -> Generated:
        """Runs the generator."""
        ...

    def judge(self, images: Images, condition: Tensor | None, masks: Masks) -> Judged:
        """Runs the discriminator."""
        ...

    def update_discriminator(self, gradients: Gradients, loss: Loss) -> None:
        """Makes one of the k discriminator updates."""
        ...

    def keep_directions(self, directions: Mapping[str, Tensor]) -> None:
        """Keeps what the discriminator's bounded layers found for its next pass."""
        ...

    def update_generator(self, gradients: Gradients, loss: Loss) -> None:
        """Makes the generator's update."""
        ...

    def follow_generator(self, statistics: Statistics) -> None:
        """Moves the generator's running statistics towards a batch's, and its average to it."""
        ...


Fakes = tuple[Generated, Tensor | None]
"""Images and their conditions."""


def take_turn(config: GANConfig, players: Players, draws: Draws, t: Any) -> None:
    """Updates the discriminator k times and the generator once.

    `alternating` is Algorithm 1 of Goodfellow et al. (2014). `simultaneous` makes the last of the
    k and the generator's update from one pass over the same fakes, both from the weights before.
    `generator_first` updates the generator, then the discriminator k times. Unless `fresh_noise`,
    the discriminator's update next to the generator's is from the fakes that the latter had.
    """
    made: Fakes | None = None
    if config.update == "generator_first":
        made = _teach_generator(config, players, draws, None, t)
    for update in range(config.d_steps):
        last = update == config.d_steps - 1
        if made is None or config.fresh_noise or update:
            with torch.set_grad_enabled(last and _shared_later(config)):
                made = _fakes(players, draws, f"fake {update}", update, t)
        fake, condition = made
        real, real_condition = draws.real(t * config.d_steps + update)
        images = torch.cat([real, fake.images.detach()], -2)
        masks = draws.discriminator_masks(images.shape[-2], f"discriminator masks {update}", t)
        judged = players.judge(images, _both(real_condition, condition), masks)
        if last and config.update == "simultaneous":
            d_side, g_side = simultaneous_gradients(config, judged, fake)
        else:
            d_side = discriminator_gradients(config, judged)
        players.update_discriminator(*d_side)
        players.keep_directions(judged.directions)
    if config.update == "alternating":
        _teach_generator(config, players, draws, None if config.fresh_noise else made, t)
    elif config.update == "simultaneous":
        players.update_generator(*g_side)
        players.follow_generator(fake.statistics)


def _shared_later(config: GANConfig) -> bool:
    """Returns whether the generator learns from the fakes of the last discriminator update."""
    return not config.fresh_noise and config.update != "generator_first"


def _teach_generator(
    config: GANConfig, players: Players, draws: Draws, made: Fakes | None, t: Any
) -> Fakes:
    """Updates the generator from these fakes or from new ones, and returns them."""
    made = made or _fakes(players, draws, "generator fake 0", config.d_steps, t)
    fake, condition = made
    images = fake.images.detach()
    masks = draws.discriminator_masks(images.shape[-2], "discriminator masks of generator", t)
    g_side = generator_gradients(config, players.judge(images, condition, masks), fake)
    players.update_generator(*g_side)
    players.follow_generator(fake.statistics)
    return made


def _fakes(players: Players, draws: Draws, name: str, update: int, t: Any) -> Fakes:
    noise, condition = draws.noise_and_condition(name, t)
    masks = draws.generator_masks(f"generator masks {update}", t)
    return players.generate(noise, condition, masks), condition


def _both(real: Tensor | None, fake: Tensor | None) -> Tensor | None:
    if real is None or fake is None:
        return None
    return torch.cat([real, fake], -2 if real.dtype.is_floating_point else -1)
