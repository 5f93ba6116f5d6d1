import copy
import itertools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import pytest
import torch
from tiny_data import KINDS, tiny_config
from torch import Tensor
from torch.func import functional_call, stack_module_state, vmap

from cgan_core.configs.mlp import MLPConfig
from cgan_core.game import (
    discriminator_gradients,
    generator_gradients,
    simultaneous_gradients,
)
from cgan_core.losses import DISCRIMINATOR_LOSSES, GENERATOR_LOSSES
from cgan_core.networks import Masks, Tape, products
from cgan_core.networks.mlp import MLPDiscriminator, MLPGenerator
from cgan_core.networks.tape import Gradients
from cgan_core.passes import TapedImages, TapedLogits

ROWS, PIXELS = 12, 16
JOINS: dict[str, dict[str, Any]] = {
    "concat": {},
    "product": {
        "g_join": "product",
        "d_join": "product",
        "g_noise_units": 7,
        "d_image_units": 6,
        "d_condition_units": 6,
    },
}
LOSSES = list(itertools.product(DISCRIMINATOR_LOSSES, GENERATOR_LOSSES))


class Table(NamedTuple):
    """Two networks and a mini-batch for each, drawn from one seed."""

    config: MLPConfig
    generator: MLPGenerator
    discriminator: MLPDiscriminator
    noise: Tensor
    real: Tensor
    conditions: Tensor | None  # of real, then of fake images
    g_masks: Masks
    d_masks: Masks

    @property
    def fake_condition(self) -> Tensor | None:
        return None if self.conditions is None else self.conditions[ROWS:]

    @property
    def fake_masks(self) -> Masks:
        return {place: mask[ROWS:] for place, mask in self.d_masks.items()}


def laid(kind: str = "labels", join: str = "concat", seed: int = 0, **changes: Any) -> Table:
    """Draws everything in float64, no parameter and no mask zero throughout."""
    rng = torch.Generator().manual_seed(seed)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=rng, dtype=torch.float64) * 2 - 1

    def masks(places: Mapping[str, tuple[int, float]], rows: int) -> Masks:
        return {place: uniform(rows, width).sign().add(1) for place, (width, _) in places.items()}

    config = tiny_config(**{"d_input_dropout": 0.2, **JOINS[join], **changes})
    condition = KINDS[kind]
    networks = (
        MLPGenerator(config, (PIXELS,), condition).double(),
        MLPDiscriminator(config, (PIXELS,), condition).double(),
    )
    with torch.no_grad():
        for parameter in itertools.chain(*(network.parameters() for network in networks)):
            parameter.copy_(uniform(*parameter.shape))
    conditions = {
        "labels": torch.arange(2 * ROWS) % 3,
        "vectors": uniform(2 * ROWS, 2),
        "none": None,
    }[kind]
    g_masks = masks(networks[0].dropout, ROWS)
    d_masks = masks(networks[1].dropout, 2 * ROWS)
    noise, real = uniform(ROWS, config.noise_dim), uniform(ROWS, PIXELS).abs()
    return Table(config, *networks, noise, real, conditions, g_masks, d_masks)


def cast(table: Table, dtype: torch.dtype) -> Table:
    def each(value: Any) -> Any:
        if isinstance(value, dict):
            return {place: mask.to(dtype) for place, mask in value.items()}
        if isinstance(value, Tensor) and not value.dtype.is_floating_point:
            return value
        return (
            copy.deepcopy(value).to(dtype)
            if isinstance(value, Tensor | torch.nn.Module)
            else value
        )

    return Table(*map(each, table))


def generated(table: Table, dtype: torch.dtype | None = None) -> TapedImages:
    tape = Tape(dtype)
    images = table.generator(table.noise, table.fake_condition, table.g_masks, tape)
    return TapedImages(images, tape.records)


def judged_both(table: Table, fake: Tensor, dtype: torch.dtype | None = None) -> TapedLogits:
    tape = Tape(dtype)
    images = torch.cat([table.real, fake.detach()])
    logits = table.discriminator(images, table.conditions, table.d_masks, tape)
    return TapedLogits(logits, tape.records, table.d_masks.get("input"))


def one_pass(table: Table, dtype: torch.dtype | None = None) -> tuple[dict[str, Tensor], Tensor]:
    """Gradients of both by name, and both losses."""
    fake = generated(table, dtype)
    judged = judged_both(table, fake.images, dtype)
    (d_side, d_loss), (g_side, g_loss) = simultaneous_gradients(table.config, judged, fake)
    return named(g_side, d_side), torch.stack([d_loss, g_loss])


def named(g_side: Gradients, d_side: Gradients) -> dict[str, Tensor]:
    return of_both(
        {name: gradient.formed() for name, gradient in g_side},
        {name: gradient.formed() for name, gradient in d_side},
    )


def of_both(g_side: dict[str, Tensor], d_side: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"generator.{k}": v for k, v in g_side.items()} | {
        f"discriminator.{k}": v for k, v in d_side.items()
    }


def two_passes(table: Table) -> tuple[dict[str, Tensor], Tensor]:
    """The same by plain autograd on plain layers, a pass for each player and kind of image."""

    def by_name(loss: Tensor, network: torch.nn.Module) -> dict[str, Tensor]:
        parameters = dict(network.named_parameters())
        return dict(
            zip(parameters, torch.autograd.grad(loss, list(parameters.values())), strict=True)
        )

    def logits(images: Tensor, rows: slice) -> Tensor:
        y = None if table.conditions is None else table.conditions[rows]
        masks = {place: mask[rows] for place, mask in table.d_masks.items()}
        found: Tensor = table.discriminator(images, y, masks)
        return found

    fake = table.generator(table.noise, table.fake_condition, table.g_masks)
    real_logits = logits(table.real, slice(0, ROWS))
    fake_logits = logits(fake.detach(), slice(ROWS, None))
    d_loss = DISCRIMINATOR_LOSSES[table.config.d_loss](real_logits, fake_logits)
    g_loss = GENERATOR_LOSSES[table.config.generator_loss](logits(fake, slice(ROWS, None)))
    sides = by_name(g_loss, table.generator), by_name(d_loss, table.discriminator)
    return of_both(*sides), torch.stack([d_loss, g_loss]).detach()


Passes = Callable[[Table], tuple[dict[str, Tensor], Tensor]]


def alternating(table: Table) -> tuple[dict[str, Tensor], Tensor]:
    """Each player's gradients from a pass of its own, by our means."""
    fake = generated(table)
    d_side, d_loss = discriminator_gradients(table.config, judged_both(table, fake.images))
    tape = Tape()
    logits = table.discriminator(
        fake.images.detach(), table.fake_condition, table.fake_masks, tape
    )
    judged = TapedLogits(logits, tape.records, table.fake_masks.get("input"))
    g_side, g_loss = generator_gradients(table.config, judged, fake)
    return named(g_side, d_side), torch.stack([d_loss, g_loss])


def assert_equal(
    found: tuple[dict[str, Tensor], Tensor], truth: tuple[dict[str, Tensor], Tensor], rtol: float
) -> None:
    """Relative to the largest entry of each gradient."""
    torch.testing.assert_close(found[1], truth[1], rtol=rtol, atol=0, check_dtype=False)
    assert found[0].keys() == truth[0].keys()
    for name, expected in truth[0].items():
        error = (found[0][name].double() - expected.double()).abs().max()
        assert found[0][name].isfinite().all(), name
        assert error <= rtol * expected.abs().max(), (name, error)


@pytest.mark.parametrize("passes", [one_pass, alternating])
@pytest.mark.parametrize("kind", list(KINDS))
@pytest.mark.parametrize("join", list(JOINS))
@pytest.mark.parametrize(("d_loss", "generator_loss"), LOSSES)
def test_gradients_are_those_of_two_passes(
    passes: Passes, kind: str, join: str, d_loss: str, generator_loss: str
) -> None:
    table = laid(kind, join, d_loss=d_loss, generator_loss=generator_loss)
    truth = two_passes(table)
    assert all(gradient.any() for gradient in truth[0].values())
    assert_equal(passes(table), truth, rtol=1e-10)


@pytest.mark.parametrize("bias", [-70.0, 70.0])
@pytest.mark.parametrize(("d_loss", "generator_loss"), LOSSES)
def test_a_confident_discriminator_leaves_them_exact(
    bias: float, d_loss: str, generator_loss: str
) -> None:
    table = laid(d_loss=d_loss, generator_loss=generator_loss)
    with torch.no_grad():
        table.discriminator.logit.bias.fill_(bias)
    truth = two_passes(table)
    assert_equal(one_pass(table), truth, rtol=1e-10)
    assert_equal(one_pass(cast(table, torch.float32)), truth, rtol=1e-4)


@pytest.mark.parametrize("library", ["as it suits", "oneDNN"])
def test_in_float32_they_differ_by_rounding(monkeypatch: pytest.MonkeyPatch, library: str) -> None:
    if library == "oneDNN":  # which is for large layers alone
        monkeypatch.setattr(products, "_ONEDNN_VALUES", 1)
    table = laid()
    assert_equal(one_pass(cast(table, torch.float32)), two_passes(table), rtol=2e-5)


def test_without_dropout_they_are_those_of_two_passes() -> None:
    table = laid(d_dropout=0.0, d_input_dropout=0.0, g_dropout=0.0)
    assert table.d_masks == table.g_masks == {}
    assert_equal(one_pass(table), two_passes(table), rtol=1e-10)


def test_in_bfloat16_they_are_float32_and_close() -> None:
    table = cast(laid(seed=1), torch.float32)
    found, losses = one_pass(table, torch.bfloat16)
    truth, _ = two_passes(table)
    assert losses.dtype == torch.float32
    for name, expected in truth.items():
        assert found[name].dtype == torch.float32
        error = (found[name] - expected).norm() / expected.norm()
        assert 0 < error < 0.1, name  # a product rounds by 2^-9; cancellation adds to it


@pytest.mark.parametrize(("dtype", "rtol"), [(torch.float64, 1e-10), (torch.float32, 1e-4)])
def test_a_stacked_population_has_its_members_gradients(
    monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, rtol: float
) -> None:
    """What fused training relies on: the networks under vmap, one backward pass for all."""
    monkeypatch.setattr(products, "_ONEDNN_VALUES", 1)  # it knows no vmap and must stay out
    truths = [laid(seed=seed) for seed in range(3)]
    tables = [cast(truth, dtype) for truth in truths]
    config, first = tables[0].config, tables[0]
    g_parameters, _ = stack_module_state([table.generator for table in tables])
    d_parameters, _ = stack_module_state([table.discriminator for table in tables])

    def forward(network: torch.nn.Module) -> Callable[..., Any]:
        def call(parameters: Any, *inputs: Any) -> Any:
            tape = Tape()
            return functional_call(network, parameters, (*inputs, tape)), tape.records

        return vmap(call)

    def stacked(values: list[Any]) -> Any:
        if isinstance(values[0], dict):
            return {place: torch.stack([each[place] for each in values]) for place in values[0]}
        return torch.stack(values)

    noise, real, conditions, g_masks, d_masks = (
        stacked([getattr(table, name) for table in tables])
        for name in ("noise", "real", "conditions", "g_masks", "d_masks")
    )
    fake = TapedImages(
        *forward(first.generator)(g_parameters, noise, conditions[:, ROWS:], g_masks)
    )
    images = torch.cat([real, fake.images.detach()], 1)
    logits, records = forward(first.discriminator)(d_parameters, images, conditions, d_masks)
    judged = TapedLogits(logits, records, d_masks["input"])
    (d_side, d_loss), (g_side, g_loss) = simultaneous_gradients(config, judged, fake)
    gradients = named(g_side, d_side)
    for position, truth in enumerate(truths):
        own = {name: value[position] for name, value in gradients.items()}
        losses = torch.stack([d_loss[position], g_loss[position]])
        assert_equal((own, losses), two_passes(truth), rtol)
