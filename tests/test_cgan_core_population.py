"""Members in lanes: which may be fused, how they come and go, and what one costs the others."""

import dataclasses
from typing import Any

import pytest
import torch
from tiny_data import tiny_config, tiny_splits

from cgan_core import GANConfig, Trainer
from cgan_core.configs.mlp import MLPConfig
from cgan_core.examples import Examples
from cgan_core.families import PER_MEMBER
from cgan_core.member import Member
from cgan_core.population import Population, signature

SPLITS = tiny_splits()


def assert_same(a: Member, b: Member) -> None:
    left, right = a.state_dict(), b.state_dict()
    assert left.keys() == right.keys()
    assert all(torch.equal(left[name], right[name]) for name in left)


def changed(config: GANConfig, name: str) -> GANConfig:
    """Another value that is allowed."""
    value = getattr(config, name)
    choices: list[Any] = [0.25, 0.75, 1.25, 3, 2, False, "adam", "gaussian", "minimax", "half_sum"]
    choices += ["uniform", "product", "sgd", "non_saturating", "sum", "empirical", "concat", True]
    choices += ["simultaneous", "bfloat16", "none"]
    for choice in choices:
        if choice == value:
            continue
        try:
            return dataclasses.replace(config, **{name: choice})
        except ValueError:
            continue
    raise AssertionError(f"`{name}` has no second value")


# There is one family so far.
NAMES = [field.name for field in dataclasses.fields(MLPConfig) if field.name != "family"]


@pytest.mark.parametrize("name", NAMES)
def test_only_scalars_of_a_step_leave_the_signature_as_it_is(name: str) -> None:
    # So that either join and either update is allowed.
    config = MLPConfig.paper(
        g_noise_units=100, g_condition_units=100, d_image_units=50, fresh_noise=False
    )
    assert (signature(changed(config, name)) == signature(config)) == (name in PER_MEMBER)
    hash(signature(config))


def test_members_are_those_that_train_alone_whoever_comes_and_goes() -> None:
    population = Population(Examples(SPLITS), capacity=3)
    configs = [tiny_config(momentum=momentum) for momentum in (0.3, 0.5, 0.7)]
    first, second = (population.join(config, seed=7) for config in configs[:2])
    population.advance([first, second], 4)
    late = population.join(configs[2], seed=7)
    population.advance([late, first], 5)
    population.leave(first)
    population.advance([second, late], 3)
    for member, config, steps in zip((first, second, late), configs, (9, 7, 8), strict=True):
        alone = Member(config, Examples(SPLITS), seed=7)
        alone.advance(steps)
        assert_same(member, alone)


def test_lanes_are_as_many_as_was_said() -> None:
    population = Population(Examples(SPLITS), capacity=1)
    member = population.join(tiny_config(), seed=0)
    with pytest.raises(ValueError, match="a population of 1 must have a free lane"):
        population.join(tiny_config(), seed=1)
    population.leave(member)
    population.join(tiny_config(), seed=1)


def test_what_raises_costs_only_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    population = Population(Examples(SPLITS), capacity=3)
    first, broken, last = (population.join(tiny_config(), seed=7) for _ in range(3))
    fault = RuntimeError("shapes do not match")

    def fail(num_steps: int) -> None:
        raise fault

    monkeypatch.setattr(broken, "advance", fail)
    stretches = population.advance([first, broken, last], 4)
    assert [stretch.fault for stretch in stretches] == [None, fault, None]
    assert all(stretch.seconds > 0 for stretch in stretches)
    assert_same(first, last)
    assert first.t == 4


def test_a_trainer_may_join_others() -> None:
    population = Population(Examples(SPLITS), capacity=2)
    trainers = [Trainer(tiny_config(), population, seeds=seed) for seed in (1, 2)]
    trainers[0].advance(5)
    assert [trainer.members[0].t for trainer in trainers] == [5, 0]
    assert trainers[1].elapsed_seconds == 0
    alone = Trainer(tiny_config(), SPLITS, seeds=1)
    alone.advance(5)
    assert_same(trainers[0].members[0], alone.members[0])
