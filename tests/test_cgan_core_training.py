import copy
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from tiny_data import tiny_config, tiny_splits
from torch import Tensor

from cgan_core import training
from cgan_core.config import ConfigError, GANConfig
from cgan_core.data.conditions import SamplerKind
from cgan_core.draws import Dropout
from cgan_core.examples import Examples
from cgan_core.member import Member
from cgan_core.optimizers import PlayerOptimizer
from cgan_core.streams import draw_noise, keep_mask, stream
from cgan_core.training import CheckpointError, Measurement, Trainer, next_point

SPLITS = tiny_splits()
EXAMPLES = Examples(SPLITS)
KINDS = ["labels", "vectors", "none"]
PLAYS: list[dict[str, Any]] = [
    {"fresh_noise": True},
    {"fresh_noise": False},
    {"update": "simultaneous"},
]
DIVERGING = tiny_config(d_init_range=1e38)


def parameters(member: Member) -> list[Tensor]:
    return [*member.generator.parameters(), *member.discriminator.parameters()]


def equal(left: Member, right: Member) -> bool:
    pairs = zip(parameters(left), parameters(right), strict=True)
    return left.t == right.t and all(torch.equal(a, b) for a, b in pairs)


def wide(y: Tensor | None) -> Tensor | None:
    return y.double() if y is not None and y.is_floating_point() else y


class Textbook:
    """Both kinds of update in float64: real and fake apart, plain autograd, plain velocities."""

    def __init__(self, start: Member) -> None:
        self.config, self.examples, self.seed = start.config, start.examples, start.seed
        self.generator = copy.deepcopy(start.generator).double()
        self.discriminator = copy.deepcopy(start.discriminator).double()
        self.velocity = {
            p: torch.zeros_like(p)
            for net in (self.generator, self.discriminator)
            for p in net.parameters()
        }
        self.t = 0
        self.d_losses: list[float] = []
        self.g_losses: list[float] = []

    def masks(self, places: Dropout, name: str, rows: int) -> dict[str, Any]:
        rng = stream(self.seed, name, self.t)
        return {place: keep_mask(rng, rows, *drops).double() for place, drops in places.items()}

    def fake(self, name: str, update: int) -> tuple[Tensor, Tensor | None]:
        rng = stream(self.seed, name, self.t)
        rows, config = self.config.batch_size, self.config
        z = draw_noise(rng, config.noise, rows, config.noise_dim).double()
        y = self.examples.draw_conditions(rng, rows, config.condition_sampler)
        places = self.generator.dropout
        masks = self.masks(places, f"generator masks {update}", rows)
        return self.generator(
            z, y if y is None or y.dtype == torch.int64 else y.double(), masks
        ), y

    def logits(self, images: Tensor, y: Tensor | None, masks: dict[str, Any]) -> Tensor:
        logits: Tensor = self.discriminator(images, wide(y), masks)
        return logits

    def batch(self, update: int) -> tuple[Tensor, Tensor | None]:
        size = self.config.batch_size
        each = len(self.examples) // size
        epoch, position = divmod(self.t * self.config.d_steps + update, each)
        order = stream(self.seed, "order", epoch).permutation(len(self.examples))
        images, y = self.examples.batch(
            torch.from_numpy(order[position * size : (position + 1) * size])
        )
        return images.double(), y

    def slopes(self, loss: Tensor, network: torch.nn.Module) -> list[Tensor]:
        return list(torch.autograd.grad(loss, list(network.parameters()), retain_graph=True))

    def descend(self, slopes: list[Tensor], network: torch.nn.Module, rate: float) -> None:
        for weight, gradient in zip(network.parameters(), slopes, strict=True):
            epoch = self.t * self.config.d_steps / (len(self.examples) // self.config.batch_size)
            momentum = 0.5 + 0.2 * min(epoch / 250, 1)
            self.velocity[weight].mul_(momentum).sub_(rate * gradient)
            with torch.no_grad():
                weight.add_(self.velocity[weight])

    def step(self) -> None:
        config, rows = self.config, self.config.batch_size
        rate = config.learning_rate / 1.00004**self.t
        places = self.discriminator.dropout
        total = 0.0
        for update in range(config.d_steps):
            fake, fake_y = self.fake(f"fake {update}", update)
            real, real_y = self.batch(update)
            both = self.masks(places, f"discriminator masks {update}", 2 * rows)
            real_logits = self.logits(real, real_y, {k: v[:rows] for k, v in both.items()})
            detached = fake.detach()
            fake_logits = self.logits(detached, fake_y, {k: v[rows:] for k, v in both.items()})
            loss = -torch.log(torch.sigmoid(real_logits)).mean()
            loss = loss - torch.log(1 - torch.sigmoid(fake_logits)).mean()
            loss = loss / 2 if config.d_loss == "half_sum" else loss
            slopes = self.slopes(loss, self.discriminator)
            if config.update == "simultaneous":  # while the discriminator is what it was
                masks = {k: v[rows:] for k, v in both.items()}
                g_slopes, g_loss = self.chase(fake, fake_y, masks)
            self.descend(slopes, self.discriminator, rate * config.d_rate_ratio)
            total += float(loss.detach()) / config.d_steps
        if config.fresh_noise:
            fake, fake_y = self.fake("generator fake 0", config.d_steps)
        if config.update == "alternating":
            masks = self.masks(places, "discriminator masks of generator", rows)
            g_slopes, g_loss = self.chase(fake, fake_y, masks)
        self.descend(g_slopes, self.generator, rate)
        self.d_losses.append(total)
        self.g_losses.append(g_loss)
        self.t += 1

    def chase(
        self, fake: Tensor, y: Tensor | None, masks: dict[str, Any]
    ) -> tuple[list[Tensor], float]:
        """The generator's gradients and loss."""
        judged = torch.sigmoid(self.logits(fake, y, masks))
        saturating = self.config.generator_loss == "minimax"
        loss = torch.log(1 - judged).mean() if saturating else -torch.log(judged).mean()
        return self.slopes(loss, self.generator), float(loss.detach())


@pytest.mark.parametrize("conditions", KINDS)
@pytest.mark.parametrize("d_steps", [1, 2])
@pytest.mark.parametrize("play", PLAYS)
@pytest.mark.parametrize("losses", [("non_saturating", "sum"), ("minimax", "half_sum")])
def test_member_plays_by_the_book(
    conditions: str, d_steps: int, play: dict[str, Any], losses: tuple[str, str]
) -> None:
    config = tiny_config(
        d_steps=d_steps,
        **play,
        generator_loss=losses[0],
        d_loss=losses[1],
        d_rate_ratio=0.7,
        d_input_dropout=0.2,
        d_init_range=0.3,
        g_init_range=0.3,
    )
    member = Member(config, Examples(tiny_splits(conditions)), seed=3)
    truth = Textbook(member)
    for _ in range(3):
        member.advance(1)
        truth.step()
        ours = member.mean_losses()
        assert ours["d_loss"] == pytest.approx(truth.d_losses[-1], rel=1e-4)
        assert ours["g_loss"] == pytest.approx(truth.g_losses[-1], rel=1e-4)
    expected = [*truth.generator.parameters(), *truth.discriminator.parameters()]
    for parameter, weight in zip(parameters(member), expected, strict=True):
        torch.testing.assert_close(parameter.double(), weight, rtol=1e-3, atol=1e-5)


def test_members_start_as_the_protocol_says() -> None:
    member = Member(tiny_config(), EXAMPLES, seed=0)
    for network, limit in ((member.generator, 0.05), (member.discriminator, 0.005)):
        for name, parameter in network.named_parameters():
            if name.endswith("weight"):
                assert 0.5 * limit < parameter.abs().max() <= limit, name
            elif name != "image.bias":
                assert not parameter.any(), name
    assert not member.discriminator.get_parameter("image.bias").any()
    drawn = torch.sigmoid(member.generator.get_parameter("image.bias"))
    mean = torch.from_numpy(SPLITS.train.images.reshape(60, -1).mean(0) / 255).float()
    torch.testing.assert_close(drawn, mean)


@pytest.mark.parametrize("play", PLAYS)
def test_each_update_touches_its_own_player_alone(
    monkeypatch: pytest.MonkeyPatch, play: dict[str, Any]
) -> None:
    member = Member(tiny_config(d_steps=2, **play), EXAMPLES, seed=0)
    original, touched = PlayerOptimizer.step, []

    def watched(self: PlayerOptimizer, *args: Any, **kwargs: Any) -> None:
        before = [p.detach().clone() for p in parameters(member)]
        original(self, *args, **kwargs)
        pairs = zip(before, parameters(member), strict=True)
        touched.append([not torch.equal(a, b) for a, b in pairs])

    monkeypatch.setattr(PlayerOptimizer, "step", watched)
    member.advance(2)
    count = len(list(member.generator.parameters()))
    for update, changed in enumerate(touched):
        of_generator = update % 3 == 2
        assert any(changed)
        assert not any(changed[count:] if of_generator else changed[:count])
    assert len(touched) == 6


@pytest.mark.parametrize(("batch_size", "d_steps"), [(10, 1), (10, 2), (7, 1), (60, 1)])
def test_every_epoch_shows_every_row_once(
    monkeypatch: pytest.MonkeyPatch, batch_size: int, d_steps: int
) -> None:
    member = Member(tiny_config(batch_size=batch_size, d_steps=d_steps), EXAMPLES, seed=0)
    seen: list[Tensor] = []
    original = Examples.batch

    def watched(self: Examples, indices: Tensor) -> tuple[Tensor, Tensor | None]:
        seen.append(indices)
        return original(self, indices)

    monkeypatch.setattr(Examples, "batch", watched)
    each = 60 // batch_size
    member.advance(2 * each // d_steps)
    epochs = torch.cat(seen).view(2, each * batch_size)
    for epoch in epochs:
        assert len(epoch.unique()) == each * batch_size
    assert not torch.equal(epochs[0], epochs[1])
    assert member.epoch == 2


def test_condition_sampler_follow_the_classes_or_are_uniform() -> None:
    rng = stream(0, "test")
    expected: dict[SamplerKind, list[float]]
    expected = {"empirical": [0.5, 0.25, 0.25], "uniform": [1 / 3, 1 / 3, 1 / 3]}
    for kind, shares in expected.items():
        drawn = EXAMPLES.draw_conditions(rng, 20_000, kind)
        assert drawn is not None
        found = np.bincount(drawn.numpy(), minlength=3) / 20_000
        np.testing.assert_allclose(found, shares, atol=0.02)


def test_no_training_vector_is_handed_to_the_generator() -> None:
    examples = Examples(tiny_splits("vectors"))
    drawn = examples.draw_conditions(stream(0, "test"), 500)
    assert drawn is not None
    assert examples.conditions is not None
    assert (torch.cdist(drawn, examples.conditions).min(1).values > 0).all()
    assert Examples(tiny_splits("none")).draw_conditions(stream(0, "test"), 5) is None


def test_batch_larger_than_the_data_is_refused() -> None:
    with pytest.raises(ConfigError) as caught:
        Member(tiny_config(batch_size=61), EXAMPLES, seed=0)
    message = "`batch_size <= 60` (the training images) must hold, but got batch_size=61"
    assert str(caught.value) == message


def of(trainer: Trainer, total: float = 0.2, measure: float = 0.05) -> list[Measurement]:
    return list(trainer.run(total, measure))


def results(measurements: list[Measurement]) -> list[tuple[int, float, dict[str, float]]]:
    return [(m.member, m.kimg, m.metrics) for m in measurements]


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("conditions", KINDS)
@pytest.mark.parametrize("steps", [10, 7, 0])
@pytest.mark.parametrize("play", [{}, {"update": "simultaneous", "precision": "bfloat16"}])
def test_resuming_is_going_straight(
    tmp_path: Path, optimizer: str, conditions: str, steps: int, play: dict[str, Any]
) -> None:
    """Saved after two measurements, in the middle of an interval, and before the first step."""
    splits = tiny_splits(conditions)
    config = tiny_config(optimizer=optimizer, **play)
    straight = Trainer(config, splits, seeds=5)
    first, second = Trainer(config, splits, seeds=5), Trainer(config, splits, seeds=5)
    whole = of(straight, total=0.15)
    early = of(first, total=steps // 5 * 0.05)
    first.advance(steps - first.members[0].t)
    first.save(tmp_path)
    second.load(tmp_path)
    assert second.elapsed_seconds == first.elapsed_seconds
    rest = of(second, total=0.15)
    assert results(early + rest) == results(whole)
    assert equal(straight.members[0], second.members[0])


def test_checkpoint_from_before_a_field_was_added_is_taken_up(tmp_path: Path) -> None:
    trainer = Trainer(tiny_config(), SPLITS, seeds=0)
    trainer.advance(2)
    trainer.save(tmp_path)
    progress = json.loads((tmp_path / "state.json").read_text())
    for name in ("update", "precision"):
        del progress["configs"][0][name]
    (tmp_path / "state.json").write_text(json.dumps(progress))
    other = Trainer(tiny_config(), SPLITS, seeds=0)
    other.load(tmp_path)
    assert equal(other.members[0], trainer.members[0])


def test_products_in_bfloat16_leave_the_weights_in_float32() -> None:
    """And move them as float32 products do, but for rounding."""
    whole, rounded = (
        Member(tiny_config(precision=precision, d_init_range=0.3, g_init_range=0.3), EXAMPLES, 0)
        for precision in ("float32", "bfloat16")
    )
    before = [parameter.detach().clone() for parameter in parameters(whole)]
    whole.advance(1)
    rounded.advance(1)
    assert all(value.dtype != torch.bfloat16 for value in rounded.state_dict().values())
    for start, a, b in zip(before, parameters(whole), parameters(rounded), strict=True):
        moved = (a - start).norm()
        assert moved > 0
        assert (a - b).norm() <= 0.1 * moved


def test_checkpoint_holds_tensors_and_json_alone(tmp_path: Path) -> None:
    trainer = Trainer(tiny_config(optimizer="adam"), SPLITS, seeds=0)
    trainer.advance(2)
    trainer.save(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["state.json", "state.safetensors"]
    progress = json.loads((tmp_path / "state.json").read_text())
    assert set(progress) == {"configs", "seeds", "seconds", "streams"}
    assert progress["streams"] == ["host"]
    with safe_open(tmp_path / "state.safetensors", "pt") as file:
        assert set(file.keys()) == set(trainer.state_dict())


Damage = Callable[[Path], object]
DAMAGES: dict[str, Damage] = {
    "tensors cut short": lambda f: (f / "state.safetensors").write_bytes(
        (f / "state.safetensors").read_bytes()[:-7]
    ),
    "tensors empty": lambda f: (f / "state.safetensors").write_bytes(b""),
    "tensors missing": lambda f: (f / "state.safetensors").unlink(),
    "progress missing": lambda f: (f / "state.json").unlink(),
    "progress cut short": lambda f: (f / "state.json").write_text(
        (f / "state.json").read_text()[:-3]
    ),
    "progress of another kind": lambda f: (f / "state.json").write_text("[]"),
    "progress without seconds": lambda f: (f / "state.json").write_text("{}"),
}


@pytest.mark.parametrize("damage", list(DAMAGES))
def test_broken_checkpoint_is_refused(tmp_path: Path, damage: str) -> None:
    trainer = Trainer(tiny_config(), SPLITS, seeds=0)
    trainer.save(tmp_path)
    DAMAGES[damage](tmp_path)
    with pytest.raises(CheckpointError, match=f"^{tmp_path}: not a whole checkpoint"):
        trainer.load(tmp_path)


@pytest.mark.parametrize(
    "other",
    [
        Trainer(tiny_config(momentum=0.6), SPLITS, seeds=0),
        Trainer(tiny_config(), SPLITS, seeds=1),
        Trainer([tiny_config()] * 2, SPLITS, seeds=[0, 0]),
    ],
)
def test_checkpoint_of_another_population_is_refused(tmp_path: Path, other: Trainer) -> None:
    Trainer(tiny_config(), SPLITS, seeds=0).save(tmp_path)
    with pytest.raises(CheckpointError, match="of other configurations or seeds"):
        other.load(tmp_path)


def test_a_net_goes_on_with_another_rate_and_seed(tmp_path: Path) -> None:
    """From the same state, by its own streams: as one with its values that was put there."""
    donor = Trainer(tiny_config(), SPLITS, seeds=0)
    donor.advance(6)
    donor.save(tmp_path)
    config = tiny_config(learning_rate=0.01, momentum=0.7, d_dropout=0.3)
    heir, twin = (Trainer(config, SPLITS, seeds=1) for _ in range(2))
    heir.inherit(tmp_path)
    assert equal(heir.members[0], donor.members[0])
    assert heir.elapsed_seconds == 0.0
    twin.load_state_dict(donor.state_dict())
    heir.advance(5)
    twin.advance(5)
    donor.advance(5)
    assert equal(heir.members[0], twin.members[0])
    assert not equal(heir.members[0], donor.members[0])


def test_with_the_same_values_it_goes_on_as_if_it_were_loaded(tmp_path: Path) -> None:
    donor = Trainer(tiny_config(), SPLITS, seeds=0)
    donor.advance(6)
    donor.save(tmp_path)
    heir = Trainer(tiny_config(), SPLITS, seeds=0)
    heir.inherit(tmp_path)
    heir.advance(5)
    donor.advance(5)
    assert equal(heir.members[0], donor.members[0])


@pytest.mark.parametrize("changes", [{"optimizer": "adam"}, {"batch_size": 5}, {"noise_dim": 6}])
def test_another_signature_inherits_nothing(tmp_path: Path, changes: dict[str, Any]) -> None:
    Trainer(tiny_config(), SPLITS, seeds=0).save(tmp_path)
    with pytest.raises(CheckpointError, match="another signature"):
        Trainer(tiny_config(**changes), SPLITS, seeds=0).inherit(tmp_path)


def test_checkpoint_of_other_data_is_refused(tmp_path: Path) -> None:
    Trainer(tiny_config(), SPLITS, seeds=0).save(tmp_path)
    unlabelled = Trainer(tiny_config(), tiny_splits("none"), seeds=0)
    with pytest.raises(CheckpointError, match=f"^{tmp_path}: does not fit the data"):
        unlabelled.load(tmp_path)


def test_checkpoint_survives_a_save_that_is_cut_short(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = Trainer(tiny_config(), SPLITS, seeds=0)
    trainer.advance(2)
    trainer.save(tmp_path)
    at_two = copy.deepcopy(trainer.members[0])

    def cut(_: dict[str, Tensor], path: Path) -> None:
        path.write_bytes(b"half of it")
        raise KeyboardInterrupt

    monkeypatch.setattr(training, "write_tensors", cut)
    trainer.advance(1)
    with pytest.raises(KeyboardInterrupt):
        trainer.save(tmp_path)
    trainer.load(tmp_path)
    assert equal(trainer.members[0], at_two)


@pytest.mark.parametrize("position", [0, 2])
def test_a_member_does_not_see_its_neighbours(position: int) -> None:
    own, own_seed = tiny_config(), 11
    configs = [tiny_config(optimizer="adam", batch_size=15), tiny_config(d_steps=2)]
    seeds = [11, 12]
    alone = Trainer(own, SPLITS, seeds=own_seed)
    configs.insert(position, own)
    seeds.insert(position, own_seed)
    together = Trainer(configs, SPLITS, seeds)
    expected = [(m.kimg, m.metrics) for m in of(alone)]
    assert [(m.kimg, m.metrics) for m in of(together) if m.member == position] == expected
    assert equal(alone.members[0], together.members[position])


@pytest.mark.parametrize("position", [0, 1])
def test_a_diverged_member_is_reported_once_and_stops_alone(position: int) -> None:
    configs = [tiny_config(), tiny_config()]
    configs[position] = DIVERGING
    alone = Trainer(tiny_config(), SPLITS, seeds=1)
    together = Trainer(configs, SPLITS, seeds=[1, 1])
    expected = [(m.kimg, m.metrics) for m in of(alone)]
    found = of(together)
    (diverged,) = [m for m in found if m.member == position]
    assert diverged.infeasible == "d_loss is not finite at 0.05 kimg"
    assert (diverged.kimg, diverged.metrics) == (0.05, {})
    others = [m for m in found if m.member != position]
    assert [(m.kimg, m.metrics) for m in others] == expected
    assert all(m.infeasible is None for m in others)
    assert equal(alone.members[0], together.members[1 - position])


def test_divergence_is_noticed_while_it_trains() -> None:
    member = Member(DIVERGING, EXAMPLES, seed=0)
    member.advance(1000)
    assert member.t == 50
    assert member.infeasible == "d_loss is not finite at 0.5 kimg"


def test_a_parameter_that_is_not_finite_is_named() -> None:
    member = Member(tiny_config(), EXAMPLES, seed=0)
    with torch.no_grad():
        member.generator.get_parameter("joint.weight")[0, 0] = torch.nan
    member.check()
    assert member.infeasible == "generator.joint.weight is not finite at 0 kimg"


def test_a_member_that_takes_over_a_sound_state_is_sound(tmp_path: Path) -> None:
    sound = Trainer(tiny_config(), SPLITS, seeds=0)
    sound.save(tmp_path)
    sound.members[0].fail("g_loss is not finite")
    sound.load(tmp_path)
    assert sound.members[0].infeasible is None


def points_of(member: Member, measure: float, total: float) -> list[tuple[float, int]]:
    """Every point with the update that reaches it."""
    found: list[tuple[float, int]] = []
    while True:
        point, steps = next_point(member, measure, total)
        if steps == 0:
            return found
        member.t += steps
        found.append((point, member.t))


def test_points_are_whole_multiples_despite_rounding() -> None:
    member = Member(tiny_config(), EXAMPLES, seed=0)
    points = [point for point, _ in points_of(member, 0.3, 0.9)]
    assert points == [0.3, 0.6, 0.9]


@settings(deadline=None)
@given(
    batch_size=st.integers(1, 60),
    d_steps=st.integers(1, 3),
    measure=st.integers(1, 500),
    total=st.integers(1, 3000),
    resumed=st.integers(0, 400),
)
@example(batch_size=1, d_steps=2, measure=41, total=2421, resumed=0)  # 1209.5 and 1210.5 updates
def test_points_are_multiples_and_end_at_the_total(
    batch_size: int, d_steps: int, measure: int, total: int, resumed: int
) -> None:
    config = tiny_config(batch_size=batch_size, d_steps=d_steps)
    member = bare(config)
    per_step = d_steps * batch_size / 1000
    found = points_of(member, measure / 1000, total / 1000)
    for point, t in found:
        multiple = round(point / (measure / 1000)) * measure / 1000
        close = math.isclose(point, multiple, rel_tol=1e-12, abs_tol=1e-12)
        assert close or point == total / 1000
        assert abs(t * per_step - point) <= per_step / 2 * (1 + 1e-9)
    assert sorted({point for point, _ in found}) == [point for point, _ in found]
    if found:
        assert found[-1][0] == total / 1000
    shared = 0 < total % measure <= 1000 * per_step  # by the last multiple and the end
    if per_step <= measure / 2000 and not shared:
        assert len(found) == -(-total // measure)
    member.t = resumed
    rest = points_of(member, measure / 1000, total / 1000)
    assert rest == [(point, t) for point, t in found if t > resumed]


def bare(config: GANConfig) -> Member:
    """A member with a place in its course and nothing else, which is quick to make."""
    member = Member.__new__(Member)
    member.config, member.t = config, 0
    return member
