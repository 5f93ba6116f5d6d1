import itertools
import math
from typing import Any

import pytest
import torch
from tiny_data import KINDS
from torch import Tensor
from torch.func import functional_call, vmap
from torch.nn import functional

from cgan_core.config import ConfigError
from cgan_core.configs.maxout_conv import MaxoutConvConfig
from cgan_core.game import simultaneous_gradients
from cgan_core.losses import DISCRIMINATOR_LOSSES, GENERATOR_LOSSES
from cgan_core.member import count_parameters
from cgan_core.networks import ConditionKind, Masks, Tape
from cgan_core.networks.maxout_conv import (
    MaxoutConvDiscriminator,
    MaxoutConvGenerator,
    volumes,
)
from cgan_core.networks.taped_convolution import Convolution, Geometry, convolution, deconvolution
from cgan_core.passes import TapedImages, TapedLogits

ROWS = 5
SMALL: dict[str, Any] = {
    "noise_dim": 4,
    "g_hidden_units": 12,
    "g_maps": 3,
    "d_first_filters": 3,
    "d_second_filters": 2,
    "d_third_filters": 4,
    "d_hidden_units": 16,
    "d_hidden_pieces": 2,
    "d_joint_units": 12,
    "d_joint_pieces": 2,
}
GEOMETRIES = {
    "convolution": convolution((6, 5, 3), 4, 4, 2),
    "deconvolution": deconvolution((11, 11, 2), 3, 5, 3),  # just reached
    "cut off by one": deconvolution((10, 8, 1), 3, 5, 3),
    "cut off by two": deconvolution((9, 12, 3), 2, 5, 3),
}


def config(**changes: Any) -> MaxoutConvConfig:
    return MaxoutConvConfig.paper(**{**SMALL, **changes})


def uniform(seed: int, *shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    rng = torch.Generator().manual_seed(seed)
    return torch.rand(*shape, generator=rng, dtype=torch.float64).mul(2).sub(1).to(dtype)


def drawn(network: torch.nn.Module) -> None:
    with torch.no_grad():
        for position, parameter in enumerate(network.parameters()):
            parameter.copy_(uniform(position, *parameter.shape).mul(0.7))


def plain(geometry: Geometry, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """The same in PyTorch's own layout, cut by hand."""
    height, width, channels = geometry.input
    maps = x.reshape(-1, height, width, channels).permute(0, 3, 1, 2)
    if not geometry.transposed:
        found = functional.conv2d(maps, weight, bias, padding=geometry.padding)
        return found.permute(0, 2, 3, 1).flatten(1)
    found = functional.conv_transpose2d(maps, weight, stride=geometry.stride)
    bottom, right, _ = geometry.output
    top, left = (found.shape[2] - bottom + 1) // 2, (found.shape[3] - right + 1) // 2
    found = found[:, :, top : top + bottom, left : left + right]
    return found.permute(0, 2, 3, 1).flatten(1) + bias


@pytest.mark.parametrize("name", GEOMETRIES)
def test_a_recorded_convolution_has_autograds_gradients(name: str) -> None:
    geometry = GEOMETRIES[name]
    layer = Convolution(geometry).double()
    drawn(layer)
    x = uniform(7, ROWS, math.prod(geometry.input)).requires_grad_()
    record = layer.recorded(x, None)
    expected = plain(geometry, x, layer.weight, layer.bias)
    torch.testing.assert_close(record.output, expected)
    torch.testing.assert_close(layer(x), expected)

    u = uniform(8, *expected.shape)
    of_input, of_weight, of_bias = torch.autograd.grad(expected, [x, layer.weight, layer.bias], u)
    torch.testing.assert_close(torch.autograd.grad(record.output, x, u)[0], of_input)
    torch.testing.assert_close(record.input_gradient(u), of_input)
    torch.testing.assert_close(record.input_gradient(u[2:]), of_input[2:])
    torch.testing.assert_close(record.weight_gradient(u).formed(), of_weight)
    torch.testing.assert_close(record.bias_gradient(u).formed(), of_bias)
    buffer = torch.ones_like(of_weight)
    record.weight_gradient(u).add_to(buffer, factor=-0.3, decay=0.5)
    torch.testing.assert_close(buffer, 0.5 - 0.3 * of_weight)


@pytest.mark.parametrize("name", GEOMETRIES)
def test_stacked_convolutions_have_the_gradients_of_each(name: str) -> None:
    geometry, members = GEOMETRIES[name], 3
    layer = Convolution(geometry).double()
    weights = uniform(1, members, *geometry.weight_shape)
    biases = uniform(2, members, geometry.biases).requires_grad_()
    x = uniform(3, members, ROWS, math.prod(geometry.input))
    u = uniform(4, members, ROWS, math.prod(geometry.output))

    def record(weight: Tensor, bias: Tensor, x: Tensor) -> Any:
        parameters = {"layer.weight": weight, "layer.bias": bias}
        return functional_call(Recorded(layer), parameters, (x,))

    stacked = vmap(record)(weights, biases, x)
    for member in range(members):
        alone = record(weights[member], biases[member], x[member])
        torch.testing.assert_close(stacked.output[member], alone.output)
        for kind in ("weight_gradient", "bias_gradient"):
            found = getattr(stacked, kind)(u).formed()[member]
            torch.testing.assert_close(found, getattr(alone, kind)(u[member]).formed())
        found = stacked.input_gradient(u[:, 1:])[member]
        torch.testing.assert_close(found, alone.input_gradient(u[member, 1:]))


class Recorded(torch.nn.Module):
    """A convolution that gives its record."""

    def __init__(self, layer: Convolution) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Any:
        return self.layer.recorded(x, None)


def test_products_of_bfloat16_leave_weights_and_gradients_float32() -> None:
    geometry = GEOMETRIES["cut off by two"]
    layer = Convolution(geometry)
    drawn(layer)
    x = uniform(7, 32, math.prod(geometry.input), dtype=torch.float32)
    exact, rough = layer.recorded(x, None), layer.recorded(x, torch.bfloat16)
    u = uniform(8, *exact.output.shape, dtype=torch.float32)
    for found, expected in (
        (rough.output, exact.output),
        (rough.weight_gradient(u).formed(), exact.weight_gradient(u).formed()),
        (rough.input_gradient(u), exact.input_gradient(u)),
    ):
        assert found.dtype == torch.float32
        assert 0 < (found - expected).norm() < 0.02 * expected.norm()


def test_volumes_are_those_of_the_face_study() -> None:
    sides = [shape[0] for shape in volumes(config(), (32, 32, 3))]
    assert sides == [32, 16, 7, 5]
    assert volumes(MaxoutConvConfig.paper(), (32, 32, 1))[-1] == (5, 5, 192)


@pytest.mark.parametrize("shape", [(8, 8), (32, 32), (19, 33, 3), (64, 64)])
def test_pools_give_the_derived_volumes(shape: tuple[int, ...]) -> None:
    network = MaxoutConvDiscriminator(config(), shape, None)
    tape = Tape()
    network(torch.rand(2, math.prod(shape)), None, None, tape)
    derived = volumes(config(), (shape[0], shape[1], math.prod(shape[2:])))
    seen = [tape.records[place].input.shape[1] for place in ("image", "second", "third", "hidden")]
    assert seen == [math.prod(volume) for volume in derived]


def test_pictures_too_small_for_the_pools_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"family=maxout_conv takes images of at least 8 x 8"):
        MaxoutConvDiscriminator(config(), (7, 9), None)


def test_a_stride_that_leaves_pixels_out_is_refused() -> None:
    with pytest.raises(ConfigError, match="g_stride <= g_kernel"):
        config(g_kernel=2, g_stride=3)


@pytest.mark.parametrize(
    ("shape", "maps"), [((32, 32), 10), ((64, 64), 21), ((32, 32, 3), 10), ((28, 28), 9)]
)
def test_maps_are_the_least_that_reach_the_picture(shape: tuple[int, ...], maps: int) -> None:
    generator = MaxoutConvGenerator(config(), shape, None)
    assert generator.image.geometry.input[:2] == (maps, maps)
    assert generator(torch.zeros(2, 4), None).shape == (2, math.prod(shape))


def test_the_face_studys_generator_has_its_64_million_weights() -> None:
    with torch.device("meta"):
        generator = MaxoutConvGenerator(
            MaxoutConvConfig.paper(), (32, 32), ConditionKind(30, labels=False)
        )
    weights = {
        "hidden": 130 * 8000,
        "maps": 8000 * 10 * 10 * 80,
        "image": 80 * 5 * 5,
        "biases": 8000 + 8000 + 32 * 32,
    }
    assert weights["maps"] == 64_000_000
    assert count_parameters(generator) == sum(weights.values()) == 65_059_024


def test_a_generator_starts_near_the_mean_image() -> None:
    generator = MaxoutConvGenerator(config(), (9, 9), None)
    for parameter in generator.parameters():
        torch.nn.init.zeros_(parameter)
    means = torch.linspace(0.1, 0.9, 81)
    generator.start_at(means)
    torch.testing.assert_close(generator(torch.zeros(1, 4), None)[0], means)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("d_join", ["joint", "product", "additive"])
def test_one_pass_gives_the_gradients_of_two_by_autograd(kind: str, d_join: str) -> None:
    table = Table(config(d_join=d_join, g_dropout=0.5), KINDS[kind], (9, 8, 2))
    found = table.one_pass()
    for name, expected in table.two_passes().items():
        torch.testing.assert_close(found[name], expected, msg=name)
        assert expected.abs().max() > 0, name


class Table:
    """Both networks in float64, a mini-batch and masks."""

    def __init__(
        self, config: MaxoutConvConfig, kind: ConditionKind | None, shape: tuple[int, ...]
    ) -> None:
        self.config = config
        self.generator = MaxoutConvGenerator(config, shape, kind).double()
        self.discriminator = MaxoutConvDiscriminator(config, shape, kind).double()
        drawn(self.generator)
        drawn(self.discriminator)
        self.noise = uniform(20, ROWS, config.noise_dim)
        self.real = uniform(21, ROWS, math.prod(shape)).abs()
        self.y = None if kind is None else uniform(22, 2 * ROWS, kind.width)
        if kind and kind.labels:
            self.y = torch.arange(2 * ROWS) % kind.width
        self.fake_y = None if self.y is None else self.y[ROWS:]
        self.g_masks = self._masks(self.generator, ROWS)
        self.d_masks = self._masks(self.discriminator, 2 * ROWS)

    def _masks(self, network: Any, rows: int) -> Masks:
        return {
            place: uniform(width, rows, width).sub(0.2).sign().add(1)
            for place, (width, _) in network.dropout.items()
        }

    def one_pass(self) -> dict[str, Tensor]:
        tapes = Tape(), Tape()
        images = self.generator(self.noise, self.fake_y, self.g_masks, tapes[0])
        both = torch.cat([self.real, images.detach()])
        logits = self.discriminator(both, self.y, self.d_masks, tapes[1])
        fake = TapedImages(images, tapes[0].records)
        judged = TapedLogits(logits, tapes[1].records, self.d_masks["input"])
        (d_side, _), (g_side, _) = simultaneous_gradients(self.config, judged, fake)
        sides = {"generator": g_side, "discriminator": d_side}
        return {f"{k}.{name}": grad.formed() for k, side in sides.items() for name, grad in side}

    def two_passes(self) -> dict[str, Tensor]:
        fakes = self.generator(self.noise, self.fake_y, self.g_masks)
        real_y = None if self.y is None else self.y[:ROWS]
        halves = [
            {place: mask[rows] for place, mask in self.d_masks.items()}
            for rows in (slice(ROWS), slice(ROWS, None))
        ]
        real = self.discriminator(self.real, real_y, halves[0])
        of_detached = self.discriminator(fakes.detach(), self.fake_y, halves[1])
        d_loss = DISCRIMINATOR_LOSSES[self.config.d_loss](real, of_detached)
        of_fake = self.discriminator(fakes, self.fake_y, halves[1])
        g_loss = GENERATOR_LOSSES[self.config.generator_loss](of_fake)
        pairs = itertools.chain(
            self._gradients("generator", self.generator, g_loss),
            self._gradients("discriminator", self.discriminator, d_loss),
        )
        return dict(pairs)

    def _gradients(self, player: str, network: Any, loss: Tensor) -> list[tuple[str, Tensor]]:
        names, parameters = zip(*network.named_parameters(), strict=True)
        found = torch.autograd.grad(loss.mean(), parameters, retain_graph=True)
        return [(f"{player}.{name}", value) for name, value in zip(names, found, strict=True)]
