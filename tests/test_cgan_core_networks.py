from typing import Any

import pytest
import torch
from tiny_data import KINDS, tiny_config
from torch import Tensor, nn

from cgan_core.configs.mlp import MLPConfig
from cgan_core.member import count_parameters
from cgan_core.networks import ConditionKind
from cgan_core.networks.layers import ConditionLayer, drop, join, maxout
from cgan_core.networks.mlp import MLPDiscriminator, MLPGenerator

ROWS, PIXELS = 64, 16
JOINS: dict[str, dict[str, Any]] = {
    "concat": {},
    "product": {
        "g_join": "product",
        "d_join": "product",
        "g_noise_units": 9,
        "g_condition_units": 9,
        "d_image_units": 8,
        "d_condition_units": 8,
    },
}


def randomized(network: nn.Module, seed: int = 0) -> nn.Module:
    """Uniform parameters in (-1, 1), biases too, so that nothing is zero."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(torch.rand(parameter.shape, generator=generator) * 2 - 1)
    return network


def conditions_of(kind: ConditionKind | None) -> Tensor | None:
    generator = torch.Generator().manual_seed(1)
    if kind is None:
        return None
    if kind.labels:
        return torch.arange(ROWS) % kind.width
    return torch.randn(ROWS, kind.width, generator=generator)


@pytest.fixture(params=list(KINDS))
def kind(request: pytest.FixtureRequest) -> ConditionKind | None:
    return KINDS[request.param]


@pytest.fixture(params=list(JOINS))
def config(request: pytest.FixtureRequest) -> MLPConfig:
    return tiny_config(**JOINS[request.param])


def test_the_papers_networks_have_its_parameters() -> None:
    digits = ConditionKind(10, labels=True)
    assert count_parameters(MLPGenerator(MLPConfig.paper(), (28, 28), digits)) == 2_413_984
    assert count_parameters(MLPDiscriminator(MLPConfig.paper(), (28, 28), digits)) == 1_224_351


def test_shapes_and_ranges(config: MLPConfig, kind: ConditionKind | None) -> None:
    generator = randomized(MLPGenerator(config, (PIXELS,), kind))
    discriminator = randomized(MLPDiscriminator(config, (PIXELS,), kind))
    condition = conditions_of(kind)
    images = generator(torch.rand(ROWS, config.noise_dim), condition)
    assert images.shape == (ROWS, PIXELS)
    assert images.min() >= 0
    assert images.max() <= 1
    assert discriminator(images, condition).shape == (ROWS,)


def test_gradient_reaches_every_parameter(config: MLPConfig, kind: ConditionKind | None) -> None:
    generator = randomized(MLPGenerator(config, (PIXELS,), kind), seed=2)
    discriminator = randomized(MLPDiscriminator(config, (PIXELS,), kind), seed=3)
    condition = conditions_of(kind)
    noise = torch.rand(ROWS, config.noise_dim, generator=torch.Generator().manual_seed(4)) - 0.5
    logits = discriminator(generator(noise, condition), condition)
    parameters = {
        f"{network.__class__.__name__}.{name}": parameter
        for network in (generator, discriminator)
        for name, parameter in network.named_parameters()
    }
    gradients = torch.autograd.grad(logits.square().sum(), list(parameters.values()))
    for name, gradient in zip(parameters, gradients, strict=True):
        assert gradient.abs().sum() > 0, name


def test_the_condition_moves_both_networks(config: MLPConfig) -> None:
    kind = KINDS["labels"]
    generator = randomized(MLPGenerator(config, (PIXELS,), kind))
    discriminator = randomized(MLPDiscriminator(config, (PIXELS,), kind))
    noise = torch.rand(1, config.noise_dim).expand(3, -1)
    images = generator(noise, torch.arange(3))
    logits = discriminator(images[:1].expand(3, -1), torch.arange(3))
    assert len(images.unique(dim=0)) == len(logits.unique()) == 3


def test_label_lookup_is_the_product_with_one_hot() -> None:
    layer = ConditionLayer(ConditionKind(10, labels=True), 7)
    randomized(layer)
    labels = torch.tensor([3, 0, 9, 3])
    one_hot = nn.functional.one_hot(labels, 10).float()
    torch.testing.assert_close(layer(labels), one_hot @ layer.weight + layer.bias)
    torch.testing.assert_close(layer(labels), layer(one_hot))


def test_maxout_is_the_largest_piece_of_each_unit() -> None:
    units, pieces = 4, 3
    affine = torch.randn(5, units * pieces)
    naive = [
        [max(float(row[piece * units + unit]) for piece in range(pieces)) for unit in range(units)]
        for row in affine
    ]
    assert maxout(affine, pieces).tolist() == naive


def test_maxout_of_two_pieces_shares_the_gradient_of_ties() -> None:
    affine = torch.tensor([[1.0, 2.0, 3.0, 4.0, 2.0, 3.0]], requires_grad=True)  # 3 units
    largest = maxout(affine, 2)
    assert largest.tolist() == [[4.0, 2.0, 3.0]]
    largest.backward(torch.tensor([[1.0, 6.0, 5.0]]))
    assert affine.grad is not None
    assert affine.grad.tolist() == [[0.0, 3.0, 2.5, 1.0, 3.0, 2.5]]


def test_joint_layer_sees_concatenation_or_product() -> None:
    a, b = torch.rand(2, 3), torch.rand(2, 3)
    assert torch.equal(join([a, b], product=False), torch.stack([a, b], 1).reshape(2, 6))
    assert torch.equal(join([a, b], product=True), torch.einsum("ij,ij->ij", a, b))
    assert torch.equal(join([a], product=True), a)


def test_one_place_is_dropped_by_its_own_mask() -> None:
    hidden = torch.ones(2, 3)
    masks = {"noise": torch.full((2, 3), 2.0), "joint": torch.zeros(2, 8)}
    assert torch.equal(drop(hidden, masks, "noise"), hidden * 2)
    assert torch.equal(drop(hidden, masks, "image"), hidden)
    assert torch.equal(drop(hidden, None, "noise"), hidden)


def test_generator_equals_its_formula_under_masks() -> None:
    config, kind = tiny_config(), KINDS["labels"]
    network = MLPGenerator(config, (PIXELS,), kind)
    randomized(network)
    p = dict(network.named_parameters())
    z, y = torch.rand(ROWS, config.noise_dim), conditions_of(kind)
    widths = {place: width for place, (width, _) in network.dropout.items()}
    masks = {place: torch.rand(ROWS, width) for place, width in widths.items()}
    noise = (z @ p["noise.weight"].T + p["noise.bias"]).clamp(min=0) * masks["noise"]
    condition = (p["condition.weight"][y] + p["condition.bias"]).clamp(min=0)
    both = torch.cat([noise, condition * masks["condition"]], 1)
    joint = (both @ p["joint.weight"].T + p["joint.bias"]).clamp(min=0) * masks["joint"]
    image = 1 / (1 + torch.exp(-(joint @ p["image.weight"].T + p["image.bias"])))
    assert set(widths) == {"noise", "condition", "joint"}
    torch.testing.assert_close(network(z, y, masks), image)


def naive_maxout(x: Tensor, weight: Tensor, bias: Tensor, pieces: int) -> Tensor:
    by_piece = zip(weight.chunk(pieces), bias.chunk(pieces), strict=True)
    return torch.stack([x @ w.T + b for w, b in by_piece]).max(0).values


def test_discriminator_equals_its_formula_under_masks() -> None:
    config, kind = tiny_config(d_input_dropout=0.2), KINDS["labels"]
    network = MLPDiscriminator(config, (PIXELS,), kind)
    randomized(network)
    p = dict(network.named_parameters())
    x, y = torch.rand(ROWS, PIXELS), conditions_of(kind)
    assert y is not None
    places = network.dropout
    masks = {place: torch.rand(ROWS, width) for place, (width, _) in places.items()}
    image = naive_maxout(
        x * masks["input"], p["image.weight"], p["image.bias"], config.d_image_pieces
    )
    one_hot = nn.functional.one_hot(y, 3).float()
    condition = naive_maxout(
        one_hot, p["condition.weight"].T, p["condition.bias"], config.d_condition_pieces
    )
    both = torch.cat([image * masks["image"], condition * masks["condition"]], 1)
    joint = naive_maxout(both, p["joint.weight"], p["joint.bias"], config.d_joint_pieces)
    logit = (joint * masks["joint"]) @ p["logit.weight"].T + p["logit.bias"]
    assert set(places) == {"input", "image", "condition", "joint"}
    torch.testing.assert_close(network(x, y, masks), logit.squeeze(1))


def test_paper_drops_every_hidden_layer_and_no_input() -> None:
    config = MLPConfig.paper(d_dropout=0.4, g_dropout=0.3)
    assert MLPGenerator(config, (28, 28), None).dropout == {
        "noise": (200, 0.3),
        "condition": (1000, 0.3),
        "joint": (1200, 0.3),
    }
    assert MLPDiscriminator(config, (28, 28), None).dropout == {
        "image": (240, 0.4),
        "condition": (50, 0.4),
        "joint": (240, 0.4),
    }


def test_a_place_with_rate_zero_has_no_mask() -> None:
    config = MLPConfig.paper(
        d_dropout=0.0, d_joint_dropout=0.25, d_input_dropout=0.1, g_noise_dropout=0.0
    )
    discriminator = MLPDiscriminator(config, (28, 28), None)
    assert discriminator.dropout == {"input": (784, 0.1), "joint": (240, 0.25)}
    assert set(MLPGenerator(config, (28, 28), None).dropout) == {"condition", "joint"}
