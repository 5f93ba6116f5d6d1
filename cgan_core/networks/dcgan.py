"""Deep convolutional nets (Radford et al. 2015) with a condition."""

import itertools
from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from cgan_core.configs.dcgan import DCGANConfig
from cgan_core.networks import player
from cgan_core.networks.batch_norm import RunningNorm, discriminator_norms
from cgan_core.networks.conditions import ConditionMaps, joined_map, projection
from cgan_core.networks.convolutions import SLOPE, bounded, drop_maps, initialize_normal, multiply
from cgan_core.networks.layers import ConditionKind, Conditions, Masks
from cgan_core.networks.pictures import PictureShape
from cgan_core.networks.tape import Tape

FIRST = 4  # side of the smallest maps
# Kernel to padding, and to what a transposed convolution adds at one side, so that sides halve
# and double.
PADDINGS = {4: (1, 0), 5: (2, 1)}


class DCGANGenerator(player.Generator):
    """G(z | y): z and an embedding of y to 4x4 maps, joined, and transposed convolutions up.

    For a side of 32 there are 4 m maps of 4x4, 2 m of 8x8, m of 16x16 (m = `g_maps`) and the
    picture; batch normalisation, which would take a bias away, and ReLU before each convolution,
    tanh after the last. The embedding is as wide as z; a condition vector has an affine layer in
    its place.

    Args:
        config: sizes.
        image_shape: of an image.
        condition: kind and width of y, or None.

    Raises:
        ConfigError: if the images are of another size than fits.
    """

    def __init__(
        self, config: DCGANConfig, image_shape: tuple[int, ...], condition: ConditionKind | None
    ) -> None:
        super().__init__()
        self._config, self._shape = config, PictureShape(image_shape, config.family)
        self.statistics_momentum = config.batch_norm_momentum
        self.dropout = {}
        maps = _widths(config.g_maps, self._shape.side)[::-1]
        self.project = nn.Linear(config.noise_dim, maps[0] * FIRST**2)
        self.condition = (
            ConditionMaps(condition, config.noise_dim, config.g_label_maps, FIRST)
            if condition
            else None
        )
        joined = maps[0] + (config.g_label_maps if condition else 0)
        inputs, outputs = [joined, *maps[1:]], [*maps[1:], self._shape.channels]
        self.norms = nn.ModuleList(RunningNorm(width) for width in inputs)
        padding, added = PADDINGS[config.kernel]
        self.convolutions = nn.ModuleList(
            nn.ConvTranspose2d(
                given, made, config.kernel, 2, padding, added, bias=position == len(maps)
            )
            for position, (given, made) in enumerate(zip(inputs, outputs, strict=True), 1)
        )

    def initialize(self, random_of: player.RandomOf) -> None:
        """Draws weights from normal distributions and zeroes biases."""
        initialize_normal(self, random_of, self._config.init_std, self._config.embedding_std)

    def forward(
        self,
        noise: Float[Tensor, "rows noise_dim"],
        condition: Conditions | None,
        masks: Masks | None = None,
        tape: Tape | None = None,
    ) -> Float[Tensor, "rows pixels"]:
        """Generates images in [0, 1]."""
        maps = multiply(self.project, noise, tape).unflatten(1, (-1, FIRST, FIRST))
        if self.condition is not None and condition is not None:
            maps = torch.cat([maps, self.condition(condition, tape)], 1)
        layers = zip(self.norms, self.convolutions, strict=True)
        for position, (norm, convolution) in enumerate(layers):
            hidden = functional.relu(norm(maps, f"norms.{position}", tape))
            maps = multiply(convolution, hidden, tape)
        return self._shape.to_images(torch.tanh(maps))


class DCGANDiscriminator(player.Discriminator):
    """D(x | y): the mirror of G; an embedding of y becomes one map that joins the picture.

    For a side of 32: strided convolutions to m maps of 16x16 (m = `d_maps`), 2 m of 8x8, 4 m of
    4x4, each with LeakyReLU of slope 0.2 and all but the first batch-normalised, then one logit.
    `d_norm` and `d_join` have other ways to normalise, and to heed y.

    Args:
        config: sizes and the rate at which maps are dropped.
        image_shape: of an image.
        condition: kind and width of y, or None.

    Raises:
        ConfigError: if the images are of another size than fits.
    """

    def __init__(
        self, config: DCGANConfig, image_shape: tuple[int, ...], condition: ConditionKind | None
    ) -> None:
        super().__init__()
        self._config, self._shape = config, PictureShape(image_shape, config.family)
        self.r1_weight = config.r1_weight
        side = self._shape.side
        maps = _widths(config.d_maps, side)
        self.condition = joined_map(config, condition, side)
        self.projection = projection(config, condition, maps[-1])
        given = self._shape.channels + (1 if self.condition else 0)
        self.convolutions = nn.ModuleList(self._layers([given, *maps]))
        self.norms = nn.ModuleList(discriminator_norms(config, maps[1:]))
        self.logit = bounded(nn.Linear(maps[-1] * FIRST**2, 1), "logit", config.d_norm)
        self.dropout = player.present(
            {f"maps {i}": (width, config.d_dropout) for i, width in enumerate(maps)}
        )

    def _layers(self, widths: list[int]) -> Iterator[nn.Module]:
        """Yields the convolutions; batch norm would take a bias away again."""
        config = self._config
        padding, _ = PADDINGS[config.kernel]
        for position, (given, made) in enumerate(itertools.pairwise(widths)):
            bias = position == 0 or config.d_norm != "batch"
            layer = nn.Conv2d(given, made, config.kernel, 2, padding, bias=bias)
            yield bounded(layer, f"convolutions.{position}", config.d_norm)

    def initialize(self, random_of: player.RandomOf) -> None:
        """Draws weights from normal distributions and zeroes biases."""
        initialize_normal(self, random_of, self._config.init_std, self._config.embedding_std)

    def forward(
        self,
        images: Float[Tensor, "rows pixels"],
        condition: Conditions | None,
        masks: Masks | None = None,
        tape: Tape | None = None,
    ) -> Float[Tensor, " rows"]:
        """Returns the logit of "real" of each image."""
        maps = self._shape.to_maps(images)
        if self.condition is not None and condition is not None:
            maps = torch.cat([maps, self.condition(condition, tape)], 1)
        for position, convolution in enumerate(self.convolutions):
            maps = multiply(convolution, maps, tape)
            if position and self.norms:
                maps = self.norms[position - 1](maps)
            maps = drop_maps(functional.leaky_relu(maps, SLOPE), masks, f"maps {position}")
        logit = multiply(self.logit, maps.flatten(1), tape).squeeze(1)
        if self.projection is not None and condition is not None:
            logit = logit + self.projection(maps, condition)
        return logit


def _widths(maps: int, side: int) -> list[int]:
    """Returns the number of maps at side / 2, side / 4, ..., 4."""
    return [maps * 2**halving for halving in range((side // FIRST).bit_length() - 1)]
