"""The face study's networks (Gauthier 2015), in the sizes of its public setting."""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from cgan_core.config import ConfigError
from cgan_core.configs.maxout_conv import MaxoutConvConfig
from cgan_core.networks import player
from cgan_core.networks.layers import (
    ConditionKind,
    ConditionLayer,
    Conditions,
    Masks,
    as_vectors,
    drop,
    maxout,
)
from cgan_core.networks.tape import Tape, apply_layer
from cgan_core.networks.taped_convolution import (
    Convolution,
    Geometry,
    MapShape,
    convolution,
    deconvolution,
)

KERNELS, PADDINGS, POOLS = (8, 8, 5), (4, 3, 3), (4, 4, 2)  # of the three convolutions
POOL_STRIDE = 2
MIN_SIDE = 8  # of a picture: below it a pool has nothing to take


class MaxoutConvGenerator(player.Generator):
    """G(z | y): [z; y] -> ReLU -> sigmoid maps -> one transposed convolution -> sigmoid pixels.

    At the paper's sizes (100 + 30 -> 8000 -> 10 x 10 x 80 -> 32 x 32, kernels 5 x 5 of stride 3)
    it has 65,059,024 parameters on grey pictures, 64,000,000 of them the weights between the
    hidden layers. n x n maps reach 3 (n - 1) + 5 pixels, so 32 need n = ceil((32 - 5) / 3) + 1
    = 10 and 64 need 21, which reach 65: the first row and column are cut off.

    The study does not say what bounds its pixels nor how the output's biases are shared. Here a
    sigmoid bounds them, and each pixel and channel has a bias of its own, so that the first image
    can be the mean face.

    Args:
        config: sizes and dropout rate.
        image_shape: (h, w) or (h, w, c).
        condition: kind and width of y, or None.
    """

    taped = True

    def __init__(
        self,
        config: MaxoutConvConfig,
        image_shape: tuple[int, ...],
        condition: ConditionKind | None,
    ) -> None:
        super().__init__()
        self._config, self._kind = config, condition
        shape = map_shape(image_shape)
        geometry = deconvolution(shape, config.g_maps, config.g_kernel, config.g_stride)
        inputs = config.noise_dim + (condition.width if condition else 0)
        self.hidden = nn.Linear(inputs, config.g_hidden_units)
        self.maps = nn.Linear(config.g_hidden_units, math.prod(geometry.input))
        self.image = Convolution(geometry)
        self.dropout = player.present({"hidden": (config.g_hidden_units, config.g_dropout)})

    def initialize(self, random_of: player.RandomOf) -> None:
        """Draws weights from U(-a, a) and zeroes biases."""
        player.initialize_uniform(self, random_of, self._config.g_init_range)

    def start_at(self, pixel_means: Float[Tensor, " pixels"]) -> None:
        """Makes the mean image its first one, but for what the first weights add."""
        with torch.no_grad():
            self.image.bias.copy_(torch.logit(pixel_means, eps=1e-4))

    def forward(
        self,
        noise: Float[Tensor, "rows noise_dim"],
        condition: Conditions | None,
        masks: Masks | None = None,
        tape: Tape | None = None,
    ) -> Float[Tensor, "rows pixels"]:
        """Generates images in [0, 1], flat."""
        given = _with_condition(noise, condition, self._kind)
        hidden = functional.relu(apply_layer(self.hidden, given, "hidden", tape))
        maps = apply_layer(self.maps, drop(hidden, masks, "hidden"), "maps", tape)
        return torch.sigmoid(apply_layer(self.image, torch.sigmoid(maps), "image", tape))


class MaxoutConvDiscriminator(player.Discriminator):
    """D(x | y): three maxout convolutions and a maxout layer on the picture, y joined to its code.

    Each convolution has stride 1, each pool stride 2, and a pool whose last window hangs over the
    edge keeps it. So a side of s becomes s + 2p - k + 1 by a kernel of k with padding p, and
    then ceil((that - q) / 2) + 1 by a pool of q:

        32 -> 32 + 8 - 8 + 1 = 33 -> ceil((33 - 4) / 2) + 1 = 16
        16 -> 16 + 6 - 8 + 1 = 15 -> ceil((15 - 4) / 2) + 1 =  7
         7 ->  7 + 6 - 5 + 1 =  9 -> ceil(( 9 - 2) / 2) + 1 =  5

    and 5 x 5 x 192 = 4,800 values reach the maxout layer of 500 x 5 that makes the code h. What
    becomes of h is `d_join`: `joint`, a maxout layer on [h; y] (as in Mirza & Osindero 2014);
    `product`, one on h * (V y + b); or `additive`, the logit of [h; y] itself, as Gauthier's code
    has it. There y moves the logit by the same amount whatever the picture, so that D cannot tell
    whether the two fit.

    Args:
        config: sizes and dropout rates.
        image_shape: (h, w) or (h, w, c).
        condition: kind and width of y, or None.

    Raises:
        ConfigError: if the images are smaller than 8 x 8.
    """

    taped = True

    def __init__(
        self,
        config: MaxoutConvConfig,
        image_shape: tuple[int, ...],
        condition: ConditionKind | None,
    ) -> None:
        super().__init__()
        self._config, self._kind = config, condition
        shapes = _checked_volumes(config, map_shape(image_shape))
        self.image = Convolution(_filters(config, shapes, 0))
        self.second = Convolution(_filters(config, shapes, 1))
        self.third = Convolution(_filters(config, shapes, 2))
        units, width = config.d_hidden_units, condition.width if condition else 0
        self.hidden = nn.Linear(math.prod(shapes[3]), units * config.d_hidden_pieces)
        by_product = condition is not None and config.d_join == "product"
        self.condition = ConditionLayer(condition, units) if condition and by_product else None
        code = units if by_product else units + width
        self.joint: nn.Linear | None = None
        if config.d_join != "additive":
            self.joint = nn.Linear(code, config.d_joint_units * config.d_joint_pieces)
        self.logit = nn.Linear(config.d_joint_units if self.joint else code, 1)
        self.dropout = player.present(self._places(shapes))

    def _places(self, shapes: list[MapShape]) -> dict[str, tuple[int, float]]:
        config = self._config
        common, own = config.d_dropout, config.d_filter_dropout
        sizes = [math.prod(shape) for shape in shapes]
        of_filters = common if own is None else own
        places = {
            "input": (sizes[0], config.d_input_dropout),
            "image": (sizes[1], of_filters),
            "second": (sizes[2], of_filters),
            "third": (sizes[3], of_filters),
            "hidden": (config.d_hidden_units, common),
        }
        return places | ({"joint": (config.d_joint_units, common)} if self.joint else {})

    def initialize(self, random_of: player.RandomOf) -> None:
        """Draws weights from U(-a, a) and zeroes biases; V has an interval of its own."""
        config = self._config
        player.initialize_uniform(self, random_of, config.d_init_range)
        if self.condition is not None:
            draw = random_of("condition.weight")
            player.draw_uniform(self.condition.weight, draw, config.d_condition_init_range)

    def forward(
        self,
        images: Float[Tensor, "rows pixels"],
        condition: Conditions | None,
        masks: Masks | None = None,
        tape: Tape | None = None,
    ) -> Float[Tensor, " rows"]:
        """Returns the logit of "real" of each image."""
        config = self._config
        maps = drop(images, masks, "input")
        layers = {"image": self.image, "second": self.second, "third": self.third}
        for pool, (place, layer) in zip(POOLS, layers.items(), strict=True):
            pieces = apply_layer(layer, maps, place, tape)
            pooled = _pooled(pieces, layer.geometry.output, config.d_filter_pieces, pool)
            maps = drop(pooled, masks, place)
        code = maxout(apply_layer(self.hidden, maps, "hidden", tape), config.d_hidden_pieces)
        code = drop(code, masks, "hidden")
        if self.condition is not None and condition is not None:
            code = code * apply_layer(self.condition, condition, "condition", tape)
        else:
            code = _with_condition(code, condition, self._kind)
        if self.joint is not None:
            affine = apply_layer(self.joint, code, "joint", tape)
            code = drop(maxout(affine, config.d_joint_pieces), masks, "joint")
        return apply_layer(self.logit, code, "logit", tape).squeeze(1)


def map_shape(image_shape: tuple[int, ...]) -> MapShape:
    """Returns the height, width and channels of an image; a grey one has one channel."""
    height, width = image_shape[:2]
    return height, width, math.prod(image_shape[2:])


def volumes(config: MaxoutConvConfig, shape: MapShape) -> list[MapShape]:
    """Returns the shape of the image and of what each pool makes of it."""
    shapes = [shape]
    filters = (config.d_first_filters, config.d_second_filters, config.d_third_filters)
    for count, kernel, padding, pool in zip(filters, KERNELS, PADDINGS, POOLS, strict=True):
        height, width = (
            -(-(side + 2 * padding - kernel + 1 - pool) // POOL_STRIDE) + 1
            for side in shapes[-1][:2]
        )
        shapes.append((height, width, count))
    return shapes


def _checked_volumes(config: MaxoutConvConfig, shape: MapShape) -> list[MapShape]:
    if min(shape[:2]) < MIN_SIDE:
        raise ConfigError(
            f"family=maxout_conv takes images of at least {MIN_SIDE} x {MIN_SIDE} pixels, but got "
            f"{shape[0]} x {shape[1]}; choose another family for these",
            "family",
        )
    return volumes(config, shape)


def _filters(config: MaxoutConvConfig, shapes: list[MapShape], position: int) -> Geometry:
    channels = shapes[position + 1][2] * config.d_filter_pieces
    return convolution(shapes[position], channels, KERNELS[position], PADDINGS[position])


def _pooled(
    rows: Float[Tensor, "rows _"], shape: MapShape, pieces: int, pool: int
) -> Float[Tensor, "rows _"]:
    """Returns the largest of each map's pieces and of each window."""
    height, width, channels = shape
    largest = maxout(rows.reshape(-1, channels), pieces)
    maps = largest.view(-1, height, width, channels // pieces).movedim(-1, -3)
    pooled = functional.max_pool2d(maps, pool, POOL_STRIDE, ceil_mode=True)
    return pooled.movedim(-3, -1).flatten(1)


def _with_condition(
    values: Float[Tensor, "rows _"], condition: Conditions | None, kind: ConditionKind | None
) -> Float[Tensor, "rows _"]:
    """Returns [values; y]."""
    if kind is None or condition is None:
        return values
    return torch.cat([values, as_vectors(condition, kind).to(values.dtype)], 1)
