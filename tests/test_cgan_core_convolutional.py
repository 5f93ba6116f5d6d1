"""The convolutional families against the same nets of stock layers."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from tiny_data import tiny_splits
from torch import Tensor, nn

from cgan_core import Trainer
from cgan_core.config import ConfigError, GANConfig
from cgan_core.examples import Examples
from cgan_core.families import FAMILIES, config_of
from cgan_core.member import Member
from cgan_core.networks import ConditionKind, Tape
from cgan_core.networks.bounded import Bounded
from cgan_core.networks.pictures import PictureShape

ROWS, CLASSES, MOMENTUM = 10, 3, 0.2
SMALL: dict[str, Any] = {
    "learning_rate": 0.05,
    "optimizer": "sgd",
    "momentum": 0.0,
    "batch_size": ROWS,
    "noise_dim": 5,
    "g_maps": 4,
    "d_maps": 3,
    "init_std": 0.2,
}
KIND = ConditionKind(CLASSES, labels=True)


class LabelMaps(nn.Module):
    def __init__(self, width: int, maps: int, side: int) -> None:
        super().__init__()
        self.table = nn.Embedding(CLASSES, width)
        self.shift = nn.Parameter(torch.empty(width))
        self.dense = nn.Linear(width, maps * side**2)
        self.shape = (maps, side, side)

    def forward(self, y: Tensor) -> Tensor:
        maps: Tensor = self.dense(self.table(y) + self.shift).unflatten(1, self.shape)
        return maps


class StockDCGANGenerator(nn.Module):
    """For a side of 32."""

    def __init__(self, z: int, m: int, kernel: int, padding: int, added: int) -> None:
        super().__init__()
        up = (kernel, 2, padding, added)
        self.dense = nn.Linear(z, 4 * m * 16)
        self.label = LabelMaps(z, 2, 4)
        self.body = nn.Sequential(
            *(nn.BatchNorm2d(4 * m + 2), nn.ReLU()),
            *(nn.ConvTranspose2d(4 * m + 2, 2 * m, *up, bias=False), nn.BatchNorm2d(2 * m)),
            *(nn.ReLU(), nn.ConvTranspose2d(2 * m, m, *up, bias=False), nn.BatchNorm2d(m)),
            *(nn.ReLU(), nn.ConvTranspose2d(m, 1, *up), nn.Tanh()),
        )

    def forward(self, z: Tensor, y: Tensor) -> Tensor:
        maps: Tensor = self.dense(z).unflatten(1, (-1, 4, 4))
        images: Tensor = self.body(torch.cat([maps, self.label(y)], 1))
        return images


class StockDCGANDiscriminator(nn.Module):
    def __init__(self, z: int, m: int, kernel: int, padding: int) -> None:
        super().__init__()
        down = (kernel, 2, padding)
        self.label = LabelMaps(z, 1, 32)
        self.body = nn.Sequential(
            *(nn.Conv2d(2, m, *down), nn.LeakyReLU(0.2)),
            *(nn.Conv2d(m, 2 * m, *down, bias=False), nn.BatchNorm2d(2 * m), nn.LeakyReLU(0.2)),
            *(nn.Conv2d(2 * m, 4 * m, *down, bias=False), nn.BatchNorm2d(4 * m)),
            *(nn.LeakyReLU(0.2), nn.Flatten(), nn.Linear(4 * m * 16, 1)),
        )

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        logits: Tensor = self.body(torch.cat([x, self.label(y)], 1))
        return logits.squeeze(1)


class StockUpsampleGenerator(nn.Module):
    def __init__(self, z: int, m: int) -> None:
        super().__init__()
        self.dense = nn.Linear(z, m * 8 * 8)
        self.body = nn.Sequential(
            *(
                nn.Unflatten(1, (m, 8, 8)),
                nn.BatchNorm2d(m, momentum=MOMENTUM),
                nn.Upsample(scale_factor=2),
            ),
            *(
                nn.Conv2d(m, m, 3, 1, 1, bias=False),
                nn.BatchNorm2d(m, momentum=MOMENTUM),
                nn.LeakyReLU(0.2),
            ),
            *(nn.Upsample(scale_factor=2), nn.Conv2d(m, m // 2, 3, 1, 1, bias=False)),
            *(nn.BatchNorm2d(m // 2, momentum=MOMENTUM), nn.LeakyReLU(0.2)),
            *(nn.Conv2d(m // 2, 1, 3, 1, 1), nn.Tanh()),
        )

    def forward(self, z: Tensor, _: Tensor | None) -> Tensor:
        images: Tensor = self.body(self.dense(z))
        return images


class StockUpsampleDiscriminator(nn.Module):
    def __init__(self, m: int) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(1, m, 3, 2, 1), nn.LeakyReLU(0.2))
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Conv2d(given, 2 * given, 3, 2, 1), nn.LeakyReLU(0.2))
            for given in (m, 2 * m, 4 * m)
        )
        self.norms = nn.ModuleList(nn.BatchNorm2d(width) for width in (2 * m, 4 * m, 8 * m))
        self.last = nn.Linear(8 * m * 4, 1)
        self.masks: Sequence[Tensor] = ()

    def forward(self, x: Tensor, _: Tensor | None) -> Tensor:
        maps = self.first(x) * self.masks[0][:, :, None, None]
        for block, norm, mask in zip(self.blocks, self.norms, self.masks[1:], strict=True):
            maps = norm(block(maps) * mask[:, :, None, None])
        logits: Tensor = self.last(maps.flatten(1))
        return logits.squeeze(1)


def same_values(network: nn.Module, stock: nn.Module, order: Callable[[str], Any]) -> None:
    """Copies parameters in the order of their names; what has no place is an error."""
    ours = sorted(network.named_parameters(), key=lambda item: order(item[0]))
    theirs = list(stock.parameters())
    assert [value.shape for _, value in ours] == [value.shape for value in theirs]
    for (_, value), place in zip(ours, theirs, strict=True):
        place.data = value.detach().clone()


def condition_order(rest: Sequence[str]) -> tuple[int, ...]:
    """Shift, table, then the dense layer."""
    return (rest[0] == "dense", (rest[1] == "bias") == (rest[0] == "dense"))


def dcgan_order(name: str) -> tuple[int, ...]:
    """Dense, label, then norm before convolution (G) or after it (D), by position."""
    kind, *rest = name.split(".")
    bias = int(name.endswith("bias"))
    if kind in ("project", "condition"):
        return (0, bias) if kind == "project" else (1, *condition_order(rest))
    if kind == "logit":
        return (3, 0, bias)
    return (2, int(rest[0]), kind == "convolutions", bias)


def discriminator_order(name: str) -> tuple[int, ...]:
    kind, *rest = name.split(".")
    bias = int(name.endswith("bias"))
    if kind == "condition":
        return (0, *condition_order(rest))
    if kind == "logit":
        return (2, 0, bias)
    position = int(rest[0]) + (kind == "norms")  # the first convolution has no norm
    return (1, position, kind == "norms", bias)


def upsample_order(name: str) -> tuple[int, ...]:
    """Norm 0, convolution 0, norm 1, convolution 1, norm 2, image."""
    kind, *rest = name.split(".")
    bias = int(name.endswith("bias"))
    if kind in ("project", "image"):
        return (0 if kind == "project" else 2, bias)
    return (1, int(rest[0]), kind == "convolutions", bias)


def upsample_d_order(name: str) -> tuple[int, ...]:
    """All convolutions, all norms, the logit."""
    kind, *rest = name.split(".")
    place = ("convolutions", "norms", "logit").index(kind)
    return (place, int(rest[0]) if place < 2 else 0, int(name.endswith("bias")))


def config(family: str, **changes: Any) -> GANConfig:
    return config_of({"family": family, **SMALL, **changes})


def in_float64(member: Member) -> Member:
    member.move({name: value.double() for name, value in member.tensors().items()})
    return member


def maps_of(images: Tensor) -> Tensor:
    """28x28 pictures in [0, 1] as the tutorials have them."""
    return nn.functional.pad(images.double().view(-1, 1, 28, 28) * 2 - 1, [2] * 4, value=-1)


def cropped(maps: Tensor) -> Tensor:
    return nn.functional.pad(maps[:, :, 2:30, 2:30], [2] * 4, value=-1)


def step(network: nn.Module, loss: Tensor) -> None:
    optimizer = torch.optim.SGD(network.parameters(), lr=SMALL["learning_rate"])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def assert_close(
    network: nn.Module, stock: nn.Module, order: Callable[[str], Any], rtol: float = 1e-9
) -> None:
    ours = sorted(network.named_parameters(), key=lambda item: order(item[0]))
    for (name, value), truth in zip(ours, stock.parameters(), strict=True):
        torch.testing.assert_close(value, truth, rtol=rtol, atol=1e-13, msg=name)


def assert_same_statistics(network: nn.Module, stock: nn.Module) -> None:
    norms = [layer for layer in stock.modules() if isinstance(layer, nn.BatchNorm2d)]
    found = dict(network.named_buffers())
    assert len(found) == 2 * len(norms) > 0
    for position, norm in enumerate(norms):
        assert norm.running_mean is not None
        assert norm.running_var is not None
        own = (found[f"norms.{position}.{name}"] for name in ("running_mean", "running_var"))
        torch.testing.assert_close(next(own), norm.running_mean, rtol=1e-9, atol=1e-13)
        torch.testing.assert_close(next(own), norm.running_var, rtol=1e-9, atol=1e-13)


@pytest.mark.parametrize(("kernel", "padding", "added"), [(4, 1, 0), (5, 2, 1)])
def test_a_turn_of_dcgan_is_that_of_stock_layers(kernel: int, padding: int, added: int) -> None:
    """Real and fake judged apart by least squares; G's statistics from its own update alone."""
    examples = Examples(tiny_splits(side=28))
    own = config("dcgan", kernel=kernel, g_label_maps=2, fresh_noise=False)
    member = in_float64(Member(own, examples, seed=3))
    g = StockDCGANGenerator(5, 4, kernel, padding, added).double()
    d = StockDCGANDiscriminator(5, 3, kernel, padding).double()
    same_values(member.generator, g, dcgan_order)
    same_values(member.discriminator, d, discriminator_order)
    real, real_y = member.draws.real(0)
    noise, y = member.draws.noise_and_condition("fake 0", 0)
    member.advance(1)
    assert real_y is not None
    assert y is not None
    fake, square = cropped(g(noise.double(), y)), nn.MSELoss()
    on_real, on_fake = d(maps_of(real), real_y), d(fake.detach(), y)
    target = torch.ones_like(on_real)
    step(d, (square(on_real, target) + square(on_fake, 0 * target)) / 2)
    step(g, square(d(fake, y), target) / 2)
    assert_close(member.discriminator, d, discriminator_order)
    assert_close(member.generator, g, dcgan_order)
    assert_same_statistics(member.generator, g)
    with torch.no_grad():
        images = member.generator(noise.double(), y)
        truth = (g.eval()(noise.double(), y)[:, :, 2:30, 2:30] + 1) / 2
    torch.testing.assert_close(images, truth.flatten(1), rtol=1e-9, atol=1e-13)


def test_a_turn_of_upsample_conv_is_that_of_the_tutorials() -> None:
    """G first, half the sum of cross-entropies, momentum 0.2, maps dropped before batch norm."""
    examples = Examples(tiny_splits("none", side=28))
    member = in_float64(Member(config("upsample_conv"), examples, seed=3))
    g, d = StockUpsampleGenerator(5, 4).double(), StockUpsampleDiscriminator(3).double()
    same_values(member.generator, g, upsample_order)
    same_values(member.discriminator, d, upsample_d_order)
    real, _ = member.draws.real(0)
    noise, _ = member.draws.noise_and_condition("generator fake 0", 0)
    g_masks = member.draws.discriminator_masks(ROWS, "discriminator masks of generator", 0)
    d_masks = member.draws.discriminator_masks(2 * ROWS, "discriminator masks 0", 0)
    member.advance(1)
    places = [f"maps {block}" for block in range(4)]
    assert list(g_masks) == places
    fake, entropy = cropped(g(noise.double(), None)), nn.BCEWithLogitsLoss()
    d.masks = [g_masks[place].double() for place in places]
    target = torch.ones(ROWS, dtype=torch.float64)
    step(g, entropy(d(fake, None), target))
    d.masks = [d_masks[place][:ROWS].double() for place in places]
    of_real = entropy(d(maps_of(real), None), target)
    d.masks = [d_masks[place][ROWS:].double() for place in places]
    of_fake = entropy(d(fake.detach(), None), 0 * target)
    step(d, (of_real + of_fake) / 2)
    assert_close(member.generator, g, upsample_order)
    assert_close(member.discriminator, d, upsample_d_order)
    assert_same_statistics(member.generator, g)


def test_a_quarter_of_the_maps_is_dropped_as_published() -> None:
    network = FAMILIES["upsample_conv"].discriminator(
        config_of({"family": "upsample_conv", "learning_rate": 2e-4}), (28, 28), None
    )
    widths = {"maps 0": 16, "maps 1": 32, "maps 2": 64, "maps 3": 128}
    assert network.dropout == {place: (width, 0.25) for place, width in widths.items()}


@pytest.mark.parametrize("family", ["dcgan", "upsample_conv"])
@pytest.mark.parametrize("shape", [(27, 27), (16, 32), (4, 4, 3)])
def test_pictures_that_do_not_fit_are_refused(family: str, shape: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError) as caught:
        FAMILIES[family].generator(config(family), shape, None)
    assert caught.value.key == "family"
    assert f"a side of 8, 16, 28, 32, 64, 128 pixels, but got {shape[0]}x{shape[1]}" in str(
        caught.value
    )


@pytest.mark.parametrize("image_shape", [(28, 28), (16, 16, 3)])
def test_pictures_survive_as_maps(image_shape: tuple[int, ...]) -> None:
    shape = PictureShape(image_shape, "dcgan")
    images = torch.rand(5, torch.Size(image_shape).numel(), dtype=torch.float64)
    maps = shape.to_maps(images)
    assert maps.shape == (5, shape.channels, shape.side, shape.side)
    torch.testing.assert_close(shape.to_images(maps), images)
    by_pixel = images.view(5, *image_shape)
    margin = (shape.side - image_shape[0]) // 2
    pixel = by_pixel[2, 3, 4] if len(image_shape) == 2 else by_pixel[2, 3, 4, 0]
    assert maps[2, 0, 3 + margin, 4 + margin] == 2 * pixel - 1
    if margin:
        assert (maps[:, :, 0] == -1).all()


@pytest.mark.parametrize("family", ["dcgan", "upsample_conv"])
def test_labels_of_fakes_are_uniform_unless_wished_otherwise(family: str) -> None:
    examples = Examples(tiny_splits(side=16))
    by_default = examples.sampler_for(config(family))
    wished = examples.sampler_for(config(family, condition_sampler="empirical"))
    assert (by_default, wished) == ("uniform", "empirical")
    vectors = Examples(tiny_splits("vectors", side=16))
    assert vectors.sampler_for(config(family)) is None
    paper = config_of({"learning_rate": 0.1, "d_dropout": 0.5})
    assert examples.sampler_for(paper) == "empirical"


@pytest.mark.parametrize("family", ["dcgan", "upsample_conv"])
def test_first_weights_are_normal(family: str) -> None:
    """N(0, 0.02) and gains from N(1, 0.02), as Radford et al. (2015) have them."""
    own = config_of({"family": family, "learning_rate": 2e-4})
    member = Member(own, Examples(tiny_splits(train=130, side=28)), seed=1)
    for network in (member.generator, member.discriminator):
        for name, value in network.state_dict().items():
            mean = 1.0 if name.startswith("norms") and name.endswith("weight") else 0.0
            std = 1.0 if name.endswith("embedding.weight") else 0.02
            if name.endswith("bias"):
                assert not value.any()
            elif value.numel() > 100 and "running" not in name:
                assert float(value.mean()) == pytest.approx(
                    mean, abs=4 * std / value.numel() ** 0.5
                )
                assert float(value.std()) == pytest.approx(std, rel=0.3)


def test_training_statistics_are_noted_and_using_a_generator_notes_none() -> None:
    member = Member(config("dcgan"), Examples(tiny_splits(side=16)), seed=1)
    before = member.generator.state_dict()["norms.0.running_mean"].clone()
    tape, noise, y = Tape(), torch.randn(6, 5), torch.arange(6) % 3
    member.generator(noise, y, None, tape)
    assert set(tape.statistics) == {"norms.0", "norms.1"}
    member.generator(noise, y)
    assert torch.equal(member.generator.state_dict()["norms.0.running_mean"], before)


def test_bounded_layers_reach_a_spectral_norm_of_one() -> None:
    """The power method goes a round with each update of the discriminator, and no further."""
    still = {"learning_rate": 1e-12, "d_norm": "spectral", "update": "alternating"}
    examples = Examples(tiny_splits(side=16))
    member = in_float64(Member(config("dcgan", **still, d_steps=2), examples, seed=2))
    layers = [layer for layer in member.discriminator.modules() if isinstance(layer, Bounded)]
    assert len(layers) == 3
    weight = layers[1].layer.weight.detach().flatten(1)
    expected = layers[1].direction.clone()
    for _ in range(2):  # a round an update
        expected = weight @ (weight.T @ expected)
    member.advance(1)
    torch.testing.assert_close(layers[1].direction, expected / expected.norm(), atol=1e-6, rtol=0)
    member.advance(30)
    for layer in layers:
        bounded = layer.values(None)["weight"].detach().flatten(1)
        assert float(torch.linalg.matrix_norm(bounded, 2)) == pytest.approx(1, abs=0.01)
        assert float(layer.direction.norm()) == pytest.approx(1)


def test_a_projection_adds_the_inner_product_with_the_features() -> None:
    kinds = {"projection": KIND, "none": None}
    networks = {
        name: FAMILIES["dcgan"].discriminator(config("dcgan", d_join="projection"), (16, 16), kind)
        for name, kind in kinds.items()
    }
    with torch.no_grad():
        for value in networks["projection"].parameters():
            value.uniform_(-1, 1)
    state = networks["projection"].state_dict()
    own = {name: value for name, value in state.items() if name.startswith("projection")}
    networks["none"].load_state_dict({k: v for k, v in state.items() if k not in own})
    images, y = torch.rand(ROWS, 256), torch.arange(ROWS) % CLASSES
    features: list[Tensor] = []
    logit = networks["none"].logit
    assert isinstance(logit, nn.Linear)
    keep = torch.nn.modules.module.register_module_forward_pre_hook
    handle = keep(lambda module, given: features.append(given[0]) if module is logit else None)
    plain = networks["none"](images, None)
    handle.remove()
    pooled = features[0].unflatten(1, (-1, 16)).sum(2)
    table = own["projection.classes.weight"] + own["projection.classes.bias"]
    expected = plain + (pooled * table[y]).sum(1)
    torch.testing.assert_close(networks["projection"](images, y), expected)


@pytest.mark.parametrize("family", ["mlp", "dcgan"])
def test_the_average_of_a_generator_is_what_is_used(family: str) -> None:
    """Half of what was there is left after the half-life; without one there is no average."""
    own = {"mlp": {"d_dropout": 0.5, "learning_rate": 0.1, "batch_size": ROWS}}.get(family)
    given = {"family": family, **(own or SMALL)}
    splits = tiny_splits(side=16)
    trainer = Trainer(config_of({**given, "g_average_kimg": 4 * ROWS / 1000}), splits, seeds=1)
    plain = Trainer(config_of(given), splits, seeds=1)
    member, alone = trainer.members[0], plain.members[0]
    assert alone.scored_generator is alone.generator
    expected = {k: v.clone() for k, v in member.generator.state_dict().items()}
    for _ in range(3):
        trainer.advance(1)
        plain.advance(1)
        for name, value in member.generator.state_dict().items():
            assert torch.equal(value, alone.generator.state_dict()[name])
            expected[name] = value + (expected[name] - value) * 0.5**0.25
    used = trainer.model().generator.state_dict()
    assert used.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(used[name], value)
        assert torch.equal(member.scored_generator.state_dict()[name], used[name])
