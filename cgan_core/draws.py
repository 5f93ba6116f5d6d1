"""What chance gives a member at each update: mini-batches, noise, conditions, dropout masks."""

from collections.abc import Mapping

import torch
from jaxtyping import Float, Int
from torch import Tensor

from cgan_core.config import GANConfig
from cgan_core.examples import Examples
from cgan_core.networks import Masks
from cgan_core.streams import draw_noise, keep_mask, stream

Dropout = Mapping[str, tuple[int, float]]


class Draws:
    """The draws of one member, each from a stream of (seed, name, t) and nothing else.

    Args:
        config: hyperparameters.
        examples: training images and conditions.
        seed: of every stream.
        g_dropout: width and rate of each place where the generator drops units.
        d_dropout: those of the discriminator.
    """

    def __init__(
        self,
        config: GANConfig,
        examples: Examples,
        seed: int,
        g_dropout: Dropout,
        d_dropout: Dropout,
    ) -> None:
        self._config, self._examples, self._seed = config, examples, seed
        self._g_dropout, self._d_dropout = g_dropout, d_dropout
        self._conditional = examples.kind_for(config) is not None
        self._order, self._order_epoch = torch.empty(0, dtype=torch.int64), -1

    def real(self, batch: int) -> tuple[Float[Tensor, "rows pixels"], Tensor | None]:
        """Returns the images and conditions of a mini-batch, counted from the beginning."""
        images, conditions = self._examples.batch(self._batch_indices(batch))
        return images, conditions if self._conditional else None

    def _batch_indices(self, batch: int) -> Int[Tensor, " rows"]:
        """Returns the rows of a mini-batch: every epoch is a fresh permutation."""
        rows = self._config.batch_size
        epoch, position = divmod(batch, len(self._examples) // rows)
        if epoch != self._order_epoch:
            order = stream(self._seed, "order", epoch).permutation(len(self._examples))
            self._order, self._order_epoch = torch.from_numpy(order), epoch
        return self._order[position * rows : (position + 1) * rows]

    def noise_and_condition(
        self, name: str, t: int
    ) -> tuple[Float[Tensor, "rows noise_dim"], Tensor | None]:
        """Draws what a mini-batch of fakes is made from."""
        config, rng = self._config, stream(self._seed, name, t)
        noise = draw_noise(rng, config.noise, config.batch_size, config.noise_dim)
        if not self._conditional:
            return noise, None
        sampler = self._examples.sampler_for(config)
        return noise, self._examples.draw_conditions(rng, config.batch_size, sampler)

    def generator_masks(self, name: str, t: int) -> Masks:
        """Draws the generator's dropout masks."""
        return self._masks(self._g_dropout, self._config.batch_size, name, t)

    def discriminator_masks(self, rows: int, name: str, t: int) -> Masks:
        """Draws the discriminator's dropout masks."""
        return self._masks(self._d_dropout, rows, name, t)

    def _masks(self, places: Dropout, rows: int, name: str, t: int) -> Masks:
        rng = stream(self._seed, name, t)
        return {
            place: keep_mask(rng, rows, width, rate) for place, (width, rate) in places.items()
        }
