"""Nets that enlarge by repeating pixels, as tutorials on deep convolutional GANs have them."""

import itertools

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from cgan_core.configs.upsample_conv import UpsampleConvConfig
from cgan_core.networks import player
from cgan_core.networks.batch_norm import RunningNorm, discriminator_norms
from cgan_core.networks.conditions import joined_map, projection
from cgan_core.networks.convolutions import SLOPE, bounded, drop_maps, initialize_normal, multiply
from cgan_core.networks.layers import ConditionKind, ConditionLayer, Conditions, Masks
from cgan_core.networks.pictures import PictureShape
from cgan_core.networks.tape import Tape

BLOCKS = 4  # of the discriminator, each of which halves the side, rounding up


class UpsampleConvGenerator(player.Generator):
    """G(z): z to maps of a quarter of the side, which are twice enlarged and convolved.

    Linear to m maps (m = `g_maps`, 128), batch norm; enlarged, 3x3 to m, batch norm, LeakyReLU of
    slope 0.2; enlarged, 3x3 to m / 2, batch norm, LeakyReLU; 3x3 to the picture, tanh. A
    convolution that batch norm follows has no bias, which it would take away again.

    With a condition (ours; the published form has none) an embedding of it, as wide as z, is
    joined to z.

    Args:
        config: sizes.
        image_shape: of an image.
        condition: kind and width of y, or None.

    Raises:
        ConfigError: if the images are of another size than fits.
    """

    def __init__(
        self,
        config: UpsampleConvConfig,
        image_shape: tuple[int, ...],
        condition: ConditionKind | None,
    ) -> None:
        super().__init__()
        self._config, self._shape = config, PictureShape(image_shape, config.family)
        self.statistics_momentum = config.batch_norm_momentum
        self.dropout = {}
        self._first = self._shape.side // 4
        maps = [config.g_maps, config.g_maps, config.g_maps // 2]
        self.embedding = ConditionLayer(condition, config.noise_dim) if condition else None
        width = config.noise_dim * (2 if condition else 1)
        self.project = nn.Linear(width, maps[0] * self._first**2)
        self.norms = nn.ModuleList(RunningNorm(width) for width in maps)
        self.convolutions = nn.ModuleList(
            nn.Conv2d(given, made, 3, padding=1, bias=False)
            for given, made in itertools.pairwise(maps)
        )
        self.image = nn.Conv2d(maps[-1], self._shape.channels, 3, padding=1)

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
        if self.embedding is not None and condition is not None:
            noise = torch.cat([noise, self.embedding(condition)], 1)
        maps = multiply(self.project, noise, tape).unflatten(1, (-1, self._first, self._first))
        maps = self.norms[0](maps, "norms.0", tape)
        for position, convolution in enumerate(self.convolutions, 1):
            enlarged = functional.interpolate(maps, scale_factor=2, mode="nearest")
            convolved = multiply(convolution, enlarged, tape)
            normalized = self.norms[position](convolved, f"norms.{position}", tape)
            maps = functional.leaky_relu(normalized, SLOPE)
        return self._shape.to_images(torch.tanh(multiply(self.image, maps, tape)))


class UpsampleConvDiscriminator(player.Discriminator):
    """D(x): four strided 3x3 convolutions to m, 2 m, 4 m, 8 m maps (m = `d_maps`, 16), a logit.

    Each is followed by LeakyReLU of slope 0.2 and the dropping of whole maps, and all but the
    first by batch norm then.

    With a condition (ours; the published form has none) an embedding of it, as wide as z, becomes
    one map that joins the picture. `d_norm` and `d_join` have other ways to normalise, and to heed
    y.

    Args:
        config: sizes and the rate at which maps are dropped.
        image_shape: of an image.
        condition: kind and width of y, or None.

    Raises:
        ConfigError: if the images are of another size than fits.
    """

    def __init__(
        self,
        config: UpsampleConvConfig,
        image_shape: tuple[int, ...],
        condition: ConditionKind | None,
    ) -> None:
        super().__init__()
        self._config, self._shape = config, PictureShape(image_shape, config.family)
        maps = [config.d_maps * 2**block for block in range(BLOCKS)]
        self.r1_weight = config.r1_weight
        side = self._shape.side
        self.condition = joined_map(config, condition, side)
        self.projection = projection(config, condition, maps[-1])
        given = self._shape.channels + (1 if self.condition else 0)
        self.convolutions = nn.ModuleList(
            bounded(nn.Conv2d(width, made, 3, 2, 1), f"convolutions.{block}", config.d_norm)
            for block, (width, made) in enumerate(itertools.pairwise([given, *maps]))
        )
        self.norms = nn.ModuleList(discriminator_norms(config, maps[1:]))
        last = -(-side // 2**BLOCKS)
        self.logit = bounded(nn.Linear(maps[-1] * last**2, 1), "logit", config.d_norm)
        self.dropout = player.present(
            {f"maps {i}": (width, config.d_dropout) for i, width in enumerate(maps)}
        )

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
            rectified = functional.leaky_relu(multiply(convolution, maps, tape), SLOPE)
            maps = drop_maps(rectified, masks, f"maps {position}")
            if position and self.norms:
                maps = self.norms[position - 1](maps)
        logit = multiply(self.logit, maps.flatten(1), tape).squeeze(1)
        if self.projection is not None and condition is not None:
            logit = logit + self.projection(maps, condition)
        return logit
