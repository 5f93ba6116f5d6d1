import functools
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from tiny_data import tiny_config, tiny_splits
from torch import Tensor

from cgan_core.config import GANConfig
from cgan_core.data.conditions import SamplerKind
from cgan_core.device_draws import DeviceDraws
from cgan_core.examples import Examples
from cgan_core.families import config_of
from cgan_core.fused import FusedPopulation
from cgan_core.graphs import TurnRunner
from cgan_core.host_draws import HostDraws
from cgan_core.lanes import Lanes
from cgan_core.member import Member
from cgan_core.population import Population

CAPACITY, JOINED_AT, STEPS = 4, 13, 20
CHECKED_AT = 50  # whether a member diverged
EXAMPLES = Examples(tiny_splits())
# Ranges wide enough that every weight moves within a few steps.
WIDE = {"d_init_range": 0.3, "g_init_range": 0.3}
CONFIGS: dict[str, GANConfig] = {
    "sgd": tiny_config(**WIDE),
    "adam": tiny_config(
        **WIDE, optimizer="adam", learning_rate=2e-3, update="simultaneous", d_dropout=0.3
    ),
    "k = 2": tiny_config(**WIDE, d_steps=2, fresh_noise=False, d_input_dropout=0.2),
}
OTHERS = [
    {"learning_rate": 0.03, "g_dropout": 0.1, "d_input_dropout": 0.3},
    {"d_rate_ratio": 0.5, "d_dropout": 0.0},
    {"g_init_range": 0.2, "learning_rate_decay": 1.01},
]
DIVERGING = {"learning_rate": 100.0, "d_init_range": 1e30, "g_init_range": 1e30}

Hosts = Callable[[], Population | FusedPopulation]
HOSTS: dict[str, Hosts] = {
    "member after member": lambda: Population(EXAMPLES, CAPACITY),
    "fused, host streams": lambda: FusedPopulation(EXAMPLES, CAPACITY, "cpu", "host"),
    "fused, device streams": lambda: FusedPopulation(EXAMPLES, CAPACITY, "cpu", "device"),
}
FUSED = {name: make for name, make in HOSTS.items() if name.startswith("fused")}


def changed(config: GANConfig, **changes: Any) -> GANConfig:
    return config_of(config.to_mapping() | changes)


@functools.cache
def alone(make: Hosts, config: GANConfig, lane: int, steps: int = STEPS) -> dict[str, Tensor]:
    """In the same lane: on a CPU, vector instructions leave the last few values of all to others,
    which round otherwise."""
    host = make()
    for seed in range(lane):
        host.join(config, seed=100 + seed)
    member = host.join(config, seed=7)
    host.advance([member], steps)
    return member.state_dict()


def first_of_four(make: Hosts, config: GANConfig) -> dict[str, Tensor]:
    host = make()
    member = host.join(config, seed=7)
    others = [host.join(changed(config, **changes), seed) for seed, changes in enumerate(OTHERS)]
    host.advance([member, *others], STEPS)
    return member.state_dict()


def last_of_four(make: Hosts, config: GANConfig) -> dict[str, Tensor]:
    host = make()
    others = [host.join(changed(config, **changes), seed) for seed, changes in enumerate(OTHERS)]
    member = host.join(config, seed=7)
    host.advance([member, *others], STEPS)
    return member.state_dict()


def joining_late(make: Hosts, config: GANConfig) -> dict[str, Tensor]:
    host = make()
    others = [host.join(changed(config, **changes), seed) for seed, changes in enumerate(OTHERS)]
    host.advance(others, JOINED_AT)
    member = host.join(config, seed=7)
    host.advance([others[0], member], 10)  # the others wait
    host.leave(others[1])
    host.advance([member, others[2]], STEPS - 10)
    return member.state_dict()


def beside_a_diverging_one(make: Hosts, config: GANConfig) -> dict[str, Tensor]:
    host = make()
    other = host.join(changed(config, **DIVERGING), seed=1)
    member = host.join(config, seed=7)
    host.advance([other, member], CHECKED_AT + 3)
    assert other.infeasible
    assert other.t == CHECKED_AT
    return member.state_dict()


def in_pieces(make: Hosts, config: GANConfig) -> dict[str, Tensor]:
    host = make()
    member = host.join(config, seed=7)
    for steps in (1, 6, STEPS - 7):
        host.advance([member], steps)
    return member.state_dict()


def after_a_restore(make: Hosts, config: GANConfig) -> dict[str, Tensor]:
    host = make()
    member = host.join(config, seed=7)
    host.advance([member], 11)
    saved = member.state_dict()
    host.leave(member)
    again = host.join(config, seed=7)
    other = host.join(changed(config, **OTHERS[0]), seed=2)
    host.advance([other], 5)
    again.load_state_dict(saved)
    host.advance([again, other], STEPS - 11)
    return again.state_dict()


Company = Callable[[Hosts, GANConfig], dict[str, Tensor]]
LANES: dict[Company, int] = {
    **{first_of_four: 0, last_of_four: 3, joining_late: 3},
    **{beside_a_diverging_one: 1, in_pieces: 0, after_a_restore: 0},
}
COMPANIES = list(LANES)
LENGTHS = {company: STEPS for company in LANES} | {beside_a_diverging_one: CHECKED_AT + 3}


@pytest.mark.parametrize("company", COMPANIES)
@pytest.mark.parametrize(
    ("host", "kind"),
    [
        ("member after member", "adam"),
        ("fused, host streams", "adam"),
        *(("fused, device streams", kind) for kind in CONFIGS),
    ],
)
def test_a_course_is_bit_equal_in_any_company(host: str, kind: str, company: Company) -> None:
    expected = alone(HOSTS[host], CONFIGS[kind], LANES[company], LENGTHS[company])
    found = company(HOSTS[host], CONFIGS[kind])
    assert int(expected["progress.t"]) == LENGTHS[company]
    assert expected.keys() == found.keys()
    for name, value in expected.items():
        assert value.isfinite().all()
        assert torch.equal(found[name], value), name


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("company", COMPANIES)
@pytest.mark.parametrize("kind", list(CONFIGS))
def test_on_a_gpu_too(kind: str, company: Company) -> None:
    def on_gpu() -> FusedPopulation:
        return FusedPopulation(EXAMPLES, CAPACITY, "cuda")

    expected = alone(on_gpu, CONFIGS[kind], 0, LENGTHS[company])
    found = company(on_gpu, CONFIGS[kind])
    assert all(torch.equal(found[name], value) for name, value in expected.items())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_graph_makes_the_turns_that_the_cpu_makes() -> None:
    states = []
    for device in ("cpu", "cuda"):
        population = FusedPopulation(EXAMPLES, CAPACITY, device)
        members = [population.join(CONFIGS["adam"], seed) for seed in range(2)]
        population.advance(members, 5)
        states.append(members[1].state_dict())
    assert population.execution == "graph, compiled"
    assert difference(*states) < 1e-3


def difference(found: dict[str, Tensor], expected: dict[str, Tensor]) -> float:
    """The largest, relative to the largest entry of each tensor."""
    return max(
        float((found[name] - value).abs().max() / value.abs().max().clamp(min=1e-30))
        for name, value in expected.items()
        if value.any()
    )


@pytest.mark.parametrize("conditions", ["labels", "vectors", "none"])
@pytest.mark.parametrize("kind", list(CONFIGS))
def test_with_host_streams_twenty_steps_are_those_of_a_member_alone(
    kind: str, conditions: str
) -> None:
    examples = Examples(tiny_splits(conditions))
    configs = [changed(CONFIGS[kind], **changes) for changes in ({}, *OTHERS)]
    host = FusedPopulation(examples, CAPACITY, "cpu", "host")
    members = [host.join(config, seed) for seed, config in enumerate(configs)]
    host.advance(members, 20)
    for seed, (config, member) in enumerate(zip(configs, members, strict=True)):
        expected = Member(config, examples, seed)
        before = expected.state_dict()
        expected.advance(20)
        found, truth = (
            {name: value for name, value in own.state_dict().items() if "weight" in name}
            for own in (member, expected)
        )
        assert difference(found, truth) < 1e-4
        assert not torch.equal(before["generator.joint.weight"], truth["generator.joint.weight"])


def in_float64(member: Member) -> Member:
    member.move({name: value.double() for name, value in member.tensors().items()})
    return member


@pytest.mark.parametrize("conditions", ["labels", "none"])  # vectors are drawn in float32
@pytest.mark.parametrize("update", ["alternating", "simultaneous"])
def test_gradients_of_one_float64_step_are_those_of_a_member_alone(
    update: str, conditions: str
) -> None:
    """After one step of SGD its velocities are the gradients times the rate."""
    examples = Examples(tiny_splits(conditions))
    config = tiny_config(update=update, fresh_noise=None, d_input_dropout=0.1)
    configs = [changed(config, **changes) for changes in ({}, *OTHERS)]
    members = [Member(own, examples, seed) for seed, own in enumerate(configs)]
    cpu = torch.device("cpu")
    lanes = Lanes(members[0], CAPACITY, cpu, HostDraws(cpu), torch.float64)
    for member in members:
        lanes.join(member)
    lanes.prepare(members)
    lanes.activate(members)
    lanes.turn()
    for seed, (own, member) in enumerate(zip(configs, members, strict=True)):
        expected = in_float64(Member(own, examples, seed))
        expected.advance(1)
        truth = expected.tensors()
        for name, value in member.tensors().items():  # a sum of rows may cancel to next to nothing
            torch.testing.assert_close(value, truth[name], rtol=1e-10, atol=1e-14, msg=name)


@pytest.mark.parametrize("host", list(FUSED))
def test_a_diverged_member_is_found_where_one_alone_would_be(host: str) -> None:
    config = changed(CONFIGS["sgd"], **DIVERGING)
    expected = Member(config, EXAMPLES, 1)
    expected.advance(CHECKED_AT + 3)
    assert expected.infeasible
    population = FUSED[host]()
    first = population.join(CONFIGS["sgd"], 0)
    population.advance([first], 10)
    member = population.join(config, 1)
    population.advance([first, member], CHECKED_AT + 3)
    assert (first.t, first.infeasible) == (CHECKED_AT + 13, None)
    assert (member.t, member.kimg) == (expected.t, expected.kimg)
    assert member.infeasible
    assert member.infeasible.endswith("at 0.5 kimg")


def test_members_that_are_not_advanced_do_not_move() -> None:
    population = FusedPopulation(EXAMPLES, CAPACITY, "cpu")
    waiting, playing = (population.join(CONFIGS["adam"], seed) for seed in range(2))
    population.advance([waiting, playing], 5)
    before = waiting.state_dict()
    population.advance([playing], 60)
    assert all(torch.equal(value, before[name]) for name, value in waiting.state_dict().items())
    assert (waiting.t, playing.t) == (5, 65)


def test_a_member_that_left_keeps_its_state_and_its_lane_is_free() -> None:
    population = FusedPopulation(EXAMPLES, 2, "cpu")
    leaving, staying = (population.join(CONFIGS["adam"], seed) for seed in range(2))
    with pytest.raises(ValueError, match="free lane"):
        population.join(CONFIGS["adam"], 3)
    population.advance([leaving, staying], 5)
    before = leaving.state_dict()
    population.leave(leaving)
    joined = population.join(CONFIGS["adam"], 3)
    population.advance([joined, staying], 5)
    assert all(torch.equal(value, before[name]) for name, value in leaving.state_dict().items())
    fresh = Member(CONFIGS["adam"], EXAMPLES, 3).state_dict()
    population.leave(joined)
    again = population.join(CONFIGS["adam"], 3).state_dict()
    assert all(torch.equal(value, fresh[name]) for name, value in again.items())


def test_members_of_another_shape_are_refused() -> None:
    population = FusedPopulation(EXAMPLES, 2, "cpu")
    population.join(tiny_config(), 0)
    with pytest.raises(ValueError, match="one signature"):
        population.join(tiny_config(g_joint_units=9), 0)


def test_losses_are_means_over_own_updates() -> None:
    population = FusedPopulation(EXAMPLES, CAPACITY, "cpu", "host")
    members = [population.join(CONFIGS["k = 2"], seed) for seed in range(2)]
    population.advance(members, 4)
    population.advance(members[:1], 3)
    for seed, (member, steps) in enumerate(zip(members, (7, 4), strict=True)):
        expected = Member(CONFIGS["k = 2"], EXAMPLES, seed)
        expected.advance(steps)
        assert member.mean_losses() == pytest.approx(expected.mean_losses(), rel=1e-4)
        assert member.mean_losses() == {}


def test_bfloat16_products_leave_the_state_in_float32() -> None:
    config = changed(CONFIGS["adam"], precision="bfloat16")
    population = FusedPopulation(EXAMPLES, CAPACITY, "cpu", "host")
    member = population.join(config, 7)
    population.advance([member], 3)
    expected, exact = Member(config, EXAMPLES, 7), Member(CONFIGS["adam"], EXAMPLES, 7)
    expected.advance(3)
    exact.advance(3)
    state = member.state_dict()
    assert state["generator.joint.weight"].dtype == torch.float32
    own, float32 = (
        float(
            (state["generator.joint.weight"] - other.state_dict()["generator.joint.weight"]).norm()
        )
        for other in (expected, exact)
    )
    assert own < float32


def device_draws(
    config: GANConfig, conditions: str = "labels", seed: int = 5
) -> tuple[DeviceDraws, Member]:
    examples = Examples(tiny_splits(conditions))
    member = Member(config, examples, seed)
    draws = DeviceDraws(config, examples, 2, torch.device("cpu"))
    draws.join(1, member)
    return draws, member


def test_every_epoch_of_device_streams_is_a_fresh_permutation() -> None:
    draws, member = device_draws(tiny_config(d_steps=4))  # 6 mini-batches an epoch
    epochs: list[list[int]] = [[], [], []]
    images = member.examples.images.float().div(255)
    assert len(images.unique(dim=0)) == len(images)
    for batch in range(18):
        if batch % 4 == 0:
            member.t = batch // 4
            draws.prepare([None, member])
        drawn, labels = draws.real(torch.tensor([0, batch]))
        rows = [int((images == image).all(1).nonzero()) for image in drawn[1]]
        assert labels is not None
        assert member.examples.conditions is not None
        assert torch.equal(labels[1], member.examples.conditions[rows])
        epochs[batch // 6] += rows
    assert all(sorted(epoch) == list(range(60)) for epoch in epochs)
    assert not any(one == other for one, other in itertools.combinations(epochs, 2))


@pytest.mark.parametrize(("kind", "shares"), [("empirical", [2, 1, 1]), ("uniform", [1, 1, 1])])
def test_labels_of_device_streams_follow_their_distribution(
    kind: str, shares: Sequence[float]
) -> None:
    draws, _ = device_draws(tiny_config(condition_sampler=kind, batch_size=60))
    drawn = [draws.noise_and_condition("fake 0", torch.tensor([0, t]))[1] for t in range(100)]
    labels = torch.cat([each[1] for each in drawn if each is not None])
    expected = torch.tensor(shares) / sum(shares)
    found = torch.bincount(labels, minlength=3) / len(labels)
    assert (found - expected).abs().max() < 4 * math.sqrt(0.25 / len(labels))


@pytest.mark.parametrize("kind", ["kde", "empirical", "uniform"])
def test_vectors_of_device_streams_follow_their_sampler(kind: SamplerKind) -> None:
    """As many as the host draws have its moments; only `empirical` ones are training rows."""
    draws, member = device_draws(tiny_config(batch_size=60, condition_sampler=kind), "vectors")
    drawn = [draws.noise_and_condition("fake 0", torch.tensor([0, t]))[1] for t in range(200)]
    vectors = torch.cat([each[1] for each in drawn if each is not None]).double()
    given = member.examples.conditions
    assert given is not None
    rng = np.random.default_rng(0)
    wanted = torch.from_numpy(member.examples.vector_sampler(kind).sample(50_000, rng)).double()
    torch.testing.assert_close(vectors.mean(0), wanted.mean(0), rtol=0, atol=0.05)
    torch.testing.assert_close(vectors.var(0), wanted.var(0), rtol=0.06, atol=0)
    copied = (vectors[:300, None] == given.double()).all(2).any(1)
    assert bool(copied.all()) is (kind == "empirical")
    assert copied.any() == copied.all()
    if kind == "uniform":
        assert (vectors.amin(0) >= given.amin(0)).all()
        assert (vectors.amax(0) <= given.amax(0)).all()


@pytest.mark.parametrize("noise", ["uniform", "gaussian"])
def test_noise_of_device_streams_has_its_moments(noise: str) -> None:
    draws, _ = device_draws(tiny_config(noise=noise, noise_dim=7, batch_size=9))
    drawn = [draws.noise_and_condition("fake 0", torch.tensor([0, t]))[0] for t in range(500)]
    values = torch.stack(drawn)[:, 1].double()
    assert values.shape == (500, 9, 7)
    mean, variance = (0.5, 1 / 12) if noise == "uniform" else (0.0, 1.0)
    error = math.sqrt(variance / values.numel())
    assert abs(float(values.mean()) - mean) < 4 * error
    assert float(values.var()) == pytest.approx(variance, rel=0.05)


def test_what_a_gpu_cannot_do_is_done_plainly_and_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_compiler(*_: object, **__: object) -> None:
        raise OSError("no compiler here\nand much more")

    def no_graph(runner: TurnRunner) -> None:
        raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setattr(torch, "compile", lambda *_, **__: no_compiler)
    monkeypatch.setattr(TurnRunner, "_captured", no_graph)
    examples = Examples(tiny_splits())
    member, cpu = Member(CONFIGS["adam"], examples, 7), torch.device("cpu")
    lanes = Lanes(member, CAPACITY, cpu, DeviceDraws(member.config, examples, CAPACITY, cpu))
    lanes.join(member)
    before = member.state_dict()
    runner = TurnRunner(lanes, eager=False)
    runner.ready()
    assert all(torch.equal(value, before[name]) for name, value in member.state_dict().items())
    assert runner.execution == (
        "eager, not compiled (OSError: no compiler here) "
        "(no graph: RuntimeError: operation not permitted when stream is capturing)"
    )
    lanes.activate([member])
    lanes.prepare([member])
    runner.run()
    member.t = 1
    population = FusedPopulation(examples, CAPACITY, "cpu")
    expected = population.join(member.config, 7)
    population.advance([expected], 1)
    truth = expected.state_dict()
    assert all(torch.equal(value, truth[name]) for name, value in member.state_dict().items())
