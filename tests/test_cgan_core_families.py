"""The laws that every family of networks obeys. A new one adds a line to TINY and to CHANGES."""

import dataclasses
import functools
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_data import KINDS, SMALL, tiny_splits
from torch import Tensor

from cgan_core import Trainer
from cgan_core.config import GANConfig
from cgan_core.examples import Examples
from cgan_core.families import CHANGEABLE, FAMILIES, config_of
from cgan_core.fused import FusedPopulation
from cgan_core.host_draws import HostDraws
from cgan_core.lanes import Lanes
from cgan_core.losses import DISCRIMINATOR_LOSSES, GENERATOR_LOSSES
from cgan_core.member import Member
from cgan_core.model import Model
from cgan_core.networks import Discriminator, Generator, Tape
from cgan_core.sweeps import Scalars

SIDE = 16
ADAM = {"learning_rate": 2e-3, "batch_size": 10, "noise_dim": 5}
MAPS = {"g_maps": 2, "d_maps": 2, "init_std": 0.3}

# Each family in sizes that train in milliseconds on pictures of SIDE x SIDE.
TINY: dict[str, dict[str, Any]] = {
    "mlp": {"learning_rate": 0.1, "d_dropout": 0.5, **SMALL},
    "dcgan": {**ADAM, **MAPS},
    "upsample_conv": {**ADAM, **MAPS},
    "maxout_conv": {
        **ADAM,
        "optimizer": "adam",
        "g_hidden_units": 12,
        "g_maps": 3,
        "d_first_filters": 3,
        "d_second_filters": 3,
        "d_third_filters": 4,
        "d_hidden_units": 12,
        "d_hidden_pieces": 2,
        "d_joint_units": 8,
        "d_joint_pieces": 2,
        "d_dropout": 0.2,
        "g_init_range": 0.3,
        "d_init_range": 0.3,
    },
}

# What to change in each field of all families, and what must be set beside it to matter.
COMMON: dict[str, tuple[Any, dict[str, Any]]] = {
    "learning_rate": (0.2, {}),
    "momentum": (0.6, {"optimizer": "sgd"}),
    "optimizer": ("sgd", {}),
    "batch_size": (12, {}),
    "d_rate_ratio": (0.5, {}),
    "learning_rate_decay": (1.1, {}),
    "min_learning_rate": (0.2, {}),
    "final_momentum": (0.9, {"optimizer": "sgd"}),
    "momentum_epochs": (1.0, {"optimizer": "sgd"}),
    "adam_beta1": (0.9, {}),
    "adam_beta2": (0.9, {}),
    "adam_epsilon": (1e-3, {}),
    "generator_loss": ("minimax", {}),
    "d_loss": ("sum", {}),
    "update": ("simultaneous", {"fresh_noise": False}),
    "condition": ("none", {}),
    "precision": ("bfloat16", {}),
    "g_average_kimg": (0.1, {}),
    "d_steps": (2, {}),
    "fresh_noise": (False, {"update": "alternating"}),
    "condition_sampler": ("empirical", {}),
    "noise": ("uniform", {}),
    "noise_dim": (4, {}),
}
CONVOLUTIONAL: dict[str, tuple[Any, dict[str, Any]]] = {
    "init_std": (0.1, {}),
    "embedding_std": (0.1, {}),
    "batch_norm_momentum": (0.5, {}),
    "d_norm": ("spectral", {}),
    "d_join": ("projection", {}),
    "r1_weight": (10.0, {}),
    "d_dropout": (0.5, {}),
    "g_maps": (3, {}),
    "d_maps": (3, {}),
}
MAXOUT_CONV: dict[str, tuple[Any, dict[str, Any]]] = {
    "d_loss": ("half_sum", {}),
    "condition_sampler": ("uniform", {}),
    "noise": ("gaussian", {}),
    "g_hidden_units": (11, {}),
    "g_maps": (2, {}),
    "g_kernel": (6, {}),
    "g_stride": (2, {}),
    "g_init_range": (0.2, {}),
    "g_dropout": (0.5, {}),
    "d_first_filters": (2, {}),
    "d_second_filters": (2, {}),
    "d_third_filters": (3, {}),
    "d_filter_pieces": (3, {}),
    "d_hidden_units": (11, {}),
    "d_hidden_pieces": (3, {}),
    "d_join": ("additive", {}),
    "d_joint_units": (7, {}),
    "d_joint_pieces": (3, {}),
    "d_init_range": (0.2, {}),
    "d_condition_init_range": (0.5, {"d_join": "product"}),
    "d_dropout": (0.5, {}),
    "d_input_dropout": (0.5, {}),
    "d_filter_dropout": (0.0, {}),
}
# Settings with operations of their own, which obey the laws of a turn too.
SETTINGS: dict[str, tuple[str, dict[str, Any]]] = {
    **{family: (family, {}) for family in TINY},
    **{
        f"{family}, bounded": (
            family,
            {"d_norm": "spectral", "d_join": "projection", "g_average_kimg": 0.02},
        )
        for family in ("dcgan", "upsample_conv")
    },
    "maxout_conv, product": ("maxout_conv", {"d_join": "product"}),
    "maxout_conv, additive": ("maxout_conv", {"d_join": "additive"}),
    "dcgan, r1": ("dcgan", {"r1_weight": 10.0}),
    "dcgan, no norm, r1": ("dcgan", {"d_norm": "none", "r1_weight": 10.0}),
}

# The fields of each family; those of mlp are in test_cgan_core_config.py.
CHANGES: dict[str, dict[str, tuple[Any, dict[str, Any]]]] = {
    "dcgan": COMMON | CONVOLUTIONAL | {"g_label_maps": (2, {}), "kernel": (5, {})},
    "upsample_conv": COMMON | CONVOLUTIONAL | {"g_maps": (4, {})},
    "maxout_conv": COMMON | MAXOUT_CONV,
}

EXAMPLES = {kind: Examples(tiny_splits(kind, side=SIDE)) for kind in ("labels", "vectors", "none")}
UPDATES = ["alternating", "simultaneous", "generator_first"]


def tiny(family: str, **changes: Any) -> GANConfig:
    return config_of({"family": family, **TINY[family], **changes})


def member_of(family: str, kind: str = "labels", seed: int = 7, **changes: Any) -> Member:
    return Member(tiny(family, **changes), EXAMPLES[kind], seed)


def players(
    family: str, shape: tuple[int, ...], kind: str, **changes: Any
) -> tuple[Generator, Discriminator]:
    config, condition = tiny(family, **changes), KINDS[kind]
    generator = FAMILIES[family].generator(config, shape, condition)
    discriminator = FAMILIES[family].discriminator(config, shape, condition)
    rng = torch.Generator().manual_seed(0)
    for network in (generator, discriminator):
        with torch.no_grad():
            for name, parameter in network.named_parameters():
                parameter.uniform_(-1, 1, generator=rng)
                if name.startswith("norms"):
                    parameter.abs_()  # or a few units, all below zero, would draw nothing
    return generator, discriminator


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert value.isfinite().all(), name
        assert torch.equal(found[name], value), name


families = pytest.mark.parametrize("family", list(TINY))
settings = pytest.mark.parametrize("setting", list(SETTINGS))


def test_every_family_is_tried() -> None:
    assert set(TINY) == set(FAMILIES)
    assert set(CHANGES) | {"mlp"} == set(FAMILIES)


@families
@pytest.mark.parametrize("kind", list(KINDS))
@pytest.mark.parametrize("shape", [(SIDE, SIDE), (28, 28), (SIDE, SIDE, 3)])
def test_images_lie_in_0_to_1_and_each_has_a_logit(
    family: str, kind: str, shape: tuple[int, ...]
) -> None:
    generator, discriminator = players(family, shape, kind)
    rng = torch.Generator().manual_seed(1)
    vectors = torch.randn(4, 2, generator=rng)
    condition = {"labels": torch.arange(4) % 3, "vectors": vectors, "none": None}[kind]
    for tape in (None, Tape()):
        images = generator(torch.randn(4, 5, generator=rng), condition, None, tape)
        assert images.shape == (4, torch.Size(shape).numel())
        assert 0 <= images.min() < images.max() <= 1
        logits = discriminator(images, condition, None, tape)
        assert logits.shape == (4,)
        assert logits.isfinite().all()


def gradients(member: Member) -> dict[str, Tensor]:
    """After one step of SGD its velocities are the gradients times the rate."""
    return {k: v for k, v in member.tensors().items() if k.endswith("velocity")}


@settings
@pytest.mark.parametrize("kind", list(KINDS))
def test_a_gradient_reaches_every_parameter(setting: str, kind: str) -> None:
    family, changes = SETTINGS[setting]
    member = member_of(family, kind, optimizer="sgd", **changes)
    member.advance(1)
    for name, gradient in gradients(member).items():
        assert gradient.any(), name


def in_float64(member: Member) -> Member:
    member.move({name: value.double() for name, value in member.tensors().items()})
    return member


def textbook_turn(member: Member) -> dict[str, Tensor]:
    """One turn by plain autograd: real and fake images judged apart, SGD by hand."""
    config, draws = member.config, member.draws
    g, d = member.generator, member.discriminator

    def tape(network: Generator | Discriminator) -> Tape | None:
        return None if network.taped else Tape()  # a tape has the weights from autograd

    def fakes(name: str, index: int) -> tuple[Tensor, Tensor | None]:
        noise, y = draws.noise_and_condition(name, 0)
        masks = draws.generator_masks(f"generator masks {index}", 0)
        return g(noise.double(), y, masks, tape(g)), y

    def descend(network: torch.nn.Module, loss: Tensor, rate: float) -> None:
        parameters = list(network.parameters())
        for parameter, slope in zip(
            parameters, torch.autograd.grad(loss, parameters), strict=True
        ):
            parameter.data -= rate * slope

    def penalty(real: Tensor, logits: Tensor) -> Tensor:
        (slopes,) = torch.autograd.grad(logits.sum(), real, create_graph=True)
        return d.r1_weight / 2 * slopes.square().sum(1).mean()

    def teach_d(fake: Tensor, y: Tensor | None) -> None:
        real, real_y = draws.real(0)
        rows = len(real)
        masks = draws.discriminator_masks(2 * rows, "discriminator masks 0", 0)
        halves = [
            {k: v[part] for k, v in masks.items()} for part in (slice(rows), slice(rows, None))
        ]
        real, noted = real.double().requires_grad_(), tape(d)
        logits = (
            d(real, real_y, halves[0], noted),
            d(fake.detach(), y, halves[1], tape(d)),
        )
        loss = DISCRIMINATOR_LOSSES[config.d_loss](*logits) + penalty(real, logits[0])
        descend(d, loss, config.learning_rate * config.d_rate_ratio)
        if noted is not None:
            d.load_state_dict(noted.directions, strict=False)

    def teach_g(fake: Tensor, y: Tensor | None) -> None:
        masks = draws.discriminator_masks(len(fake), "discriminator masks of generator", 0)
        loss = GENERATOR_LOSSES[config.generator_loss](d(fake, y, masks, tape(d)))
        descend(g, loss, config.learning_rate)

    if config.update == "generator_first":
        made = fakes("generator fake 0", 1)
        teach_g(*made)
        teach_d(*(fakes("fake 0", 0) if config.fresh_noise else made))
    else:
        made = fakes("fake 0", 0)
        teach_d(*made)
        teach_g(*(fakes("generator fake 0", 1) if config.fresh_noise else made))
    return {
        f"{player}.{name}": value.detach()
        for player, network in (("generator", g), ("discriminator", d))
        for name, value in network.named_parameters()
    }


@settings
@pytest.mark.parametrize(
    ("update", "fresh_noise"),
    [("alternating", True), ("alternating", False), ("generator_first", False)],
)
def test_a_turn_is_that_of_plain_autograd(setting: str, update: str, fresh_noise: bool) -> None:
    family, own = SETTINGS[setting]
    changes = {"d_rate_ratio": 0.5, "d_dropout": 0.3, "update": update, **own}
    member, other = (
        in_float64(member_of(family, optimizer="sgd", fresh_noise=fresh_noise, **changes))
        for _ in range(2)
    )
    truth = textbook_turn(other)
    before = {name: value.clone() for name, value in member.tensors().items()}
    member.advance(1)
    found = member.tensors()
    for name, value in truth.items():
        assert not torch.equal(before[name], value), name
        torch.testing.assert_close(found[name], value, rtol=1e-9, atol=1e-13, msg=name)


@settings
@pytest.mark.parametrize("update", UPDATES)
def test_in_float64_a_population_makes_the_turn_of_each_member_alone(
    setting: str, update: str
) -> None:
    family, common = SETTINGS[setting]
    common = {"update": update, "optimizer": "sgd", **common}
    changes = [{"d_dropout": 0.3}, {"learning_rate": 0.03}]
    cpu = torch.device("cpu")
    members = [
        member_of(family, "labels", seed, **common, **own) for seed, own in enumerate(changes)
    ]
    lanes = Lanes(members[0], 2, cpu, HostDraws(cpu), torch.float64)
    for member in members:
        lanes.join(member)
    lanes.prepare(members)
    lanes.activate(members)
    lanes.turn()
    for seed, (own, member) in enumerate(zip(changes, members, strict=True)):
        expected = member_of(family, "labels", seed, **common, **own)
        in_float64(expected).advance(1)
        truth = expected.tensors()
        for name, value in member.tensors().items():
            torch.testing.assert_close(value, truth[name], rtol=1e-9, atol=1e-13, msg=name)


@pytest.mark.parametrize(
    ("setting", "precision"), [*((name, "float32") for name in SETTINGS), ("dcgan", "bfloat16")]
)
def test_a_course_is_bit_equal_in_any_company(setting: str, precision: str) -> None:
    family, common = SETTINGS[setting]
    common = {"precision": precision, **common}

    def second_lane(*advanced: int, other: dict[str, Any]) -> dict[str, Tensor]:
        host = FusedPopulation(EXAMPLES["labels"], 2, "cpu")
        first = host.join(tiny(family, **common, **other), seed=1)
        member = host.join(tiny(family, **common), seed=7)
        for steps in advanced:
            host.advance([member, first] if other else [member], steps)
        assert first.t == (sum(advanced) if other else 0)
        return member.state_dict()

    other = {"learning_rate": 1e-3, "d_dropout": 0.2}
    alone = second_lane(3, other={})
    assert_same(second_lane(1, 2, other=other), alone)


@settings
def test_a_course_goes_on_bit_for_bit_from_its_state(setting: str) -> None:
    family, changes = SETTINGS[setting]
    straight, begun, resumed = (member_of(family, **changes) for _ in range(3))
    straight.advance(3)
    begun.advance(1)
    resumed.load_state_dict(begun.state_dict())
    resumed.advance(2)
    assert_same(resumed.state_dict(), straight.state_dict())


@settings
def test_a_member_that_waits_does_not_move(setting: str) -> None:
    family, changes = SETTINGS[setting]
    host = FusedPopulation(EXAMPLES["labels"], 2, "cpu")
    waiting, playing = (host.join(tiny(family, **changes), seed) for seed in range(2))
    host.advance([waiting, playing], 2)
    before = waiting.state_dict()
    host.advance([playing], 2)
    assert_same(waiting.state_dict(), before)


@families
def test_a_saved_model_generates_the_same(family: str, tmp_path: Path) -> None:
    trainer = Trainer(tiny(family), tiny_splits(side=SIDE), seeds=1)
    trainer.advance(3)
    model = trainer.model()
    model.save(tmp_path)
    again = Model.load(tmp_path)
    noise, labels = torch.randn(6, 5), torch.arange(6) % 3
    images = model.images(noise, labels)
    assert torch.equal(again.images(noise, labels), images)
    assert again.config == trainer.members[0].config
    one_by_one = torch.cat([model.images(noise[[i]], labels[[i]]) for i in range(6)])
    torch.testing.assert_close(one_by_one, images)  # no image depends on those beside it


@families
def test_a_network_value_that_is_not_finite_is_found(family: str) -> None:
    host = FusedPopulation(EXAMPLES["labels"], 2, "cpu")
    member = host.join(tiny(family), seed=0)
    for name, value in member.generator.state_dict().items():
        keep = value.clone()
        value.fill_(torch.nan)
        member.infeasible = None
        member.check()
        assert member.infeasible is not None
        assert f"generator.{name} is not finite" in member.infeasible
        value.copy_(keep)


@families
def test_coarse_products_leave_the_state_in_float32_and_images_near(family: str) -> None:
    member = member_of(family, precision="bfloat16")
    member.advance(1)
    assert {value.dtype for value in member.generator.state_dict().values()} == {torch.float32}
    noise, labels = torch.randn(10, 5), torch.arange(10) % 3
    tapes = Tape(torch.bfloat16), Tape()
    for network, x in ((member.generator, noise), (member.discriminator, torch.rand(10, SIDE**2))):
        coarse, exact = (network(x, labels, None, tape) for tape in tapes)
        assert coarse.dtype == torch.float32
        assert 0 < (coarse - exact).norm() < 0.1 * exact.norm()


@functools.cache
def trained(family: str, **changes: Any) -> dict[str, Tensor]:
    """State after two steps, of which the second sees momentum, schedules and moments."""
    member = Member(tiny(family, **changes), _few(), seed=0)
    member.advance(2)
    parts = ("generator", "discriminator", "average")
    return {k: v for k, v in member.state_dict().items() if k.startswith(parts)}


@functools.cache
def _few() -> Examples:
    return Examples(tiny_splits(train=20, side=SIDE))


@pytest.mark.parametrize("family", list(CHANGES))
def test_every_field_is_known_to_the_test_of_effects(family: str) -> None:
    assert set(CHANGES[family]) == set(FAMILIES[family].fields) - {"family"}


@pytest.mark.parametrize(
    ("family", "name"), [(family, name) for family in CHANGES for name in CHANGES[family]]
)
def test_no_hyperparameter_is_dead(family: str, name: str) -> None:
    value, beside = CHANGES[family][name]
    assert value != getattr(tiny(family, **beside), name)
    before, after = trained(family, **beside), trained(family, **beside, **{name: value})
    assert before.keys() != after.keys() or any(
        before[key].shape != after[key].shape or not torch.equal(before[key], after[key])
        for key in before
    )


def test_what_may_differ_in_a_population_is_read_from_lanes() -> None:
    rates = {
        spec.name
        for family in FAMILIES.values()
        for spec in dataclasses.fields(family.config)
        if "dropout" in spec.name
    }
    assert set(CHANGEABLE) == set(Scalars.NAMES) | rates
