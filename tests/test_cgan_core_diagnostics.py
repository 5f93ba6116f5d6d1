"""A look at the game: it must tell the truth and leave no trace."""

import math
from typing import Any

import pytest
import torch
from tiny_data import tiny_config, tiny_splits

from cgan_core.diagnostics import UNDECIDED, diagnose
from cgan_core.examples import Examples
from cgan_core.fused import FusedPopulation
from cgan_core.losses import DISCRIMINATOR_LOSSES
from cgan_core.member import Member

EXAMPLES = Examples(tiny_splits())


def member_of(**changes: Any) -> Member:
    return Member(tiny_config(**changes), EXAMPLES, seed=4)


def state(member: Member) -> dict[str, torch.Tensor]:
    return member.state_dict()


@pytest.mark.parametrize("changes", [{}, {"condition": "none"}, {"update": "simultaneous"}])
def test_a_look_leaves_no_trace(changes: dict[str, Any]) -> None:
    looked_at, alone = member_of(**changes), member_of(**changes)
    for _ in range(3):
        first, again = diagnose(looked_at), diagnose(looked_at)
        assert first == again
        looked_at.advance(2)
        alone.advance(2)
    left, right = state(looked_at), state(alone)
    assert all(torch.equal(left[name], right[name]) for name in left)


def test_a_discriminator_that_cannot_tell_is_confused() -> None:
    member = member_of(d_loss="sum")
    with torch.no_grad():
        member.discriminator.get_parameter("logit.weight").zero_()
        member.discriminator.get_parameter("logit.bias").zero_()
    found = diagnose(member)
    assert (found.d_real, found.d_fake) == (0.5, 0.5)
    assert (found.d_accuracy_real, found.d_accuracy_fake) == (0.0, 0.0)  # it says "neither"


@pytest.mark.parametrize("d_loss", list(DISCRIMINATOR_LOSSES))
def test_the_halves_are_judged_by_the_losses_own_threshold(d_loss: str) -> None:
    """A constant logit just above it takes all for real."""
    member = member_of(d_loss=d_loss)
    with torch.no_grad():
        member.discriminator.get_parameter("logit.weight").zero_()
        member.discriminator.get_parameter("logit.bias").fill_(UNDECIDED[d_loss] + 0.1)
    found = diagnose(member)
    assert (found.d_accuracy_real, found.d_accuracy_fake) == (1.0, 0.0)
    logit = UNDECIDED[d_loss] + 0.1
    expected = 1 / (1 + math.exp(-logit)) if d_loss in ("sum", "half_sum") else logit
    assert found.d_real == pytest.approx(expected, rel=1e-6)


def test_a_generator_that_ignores_its_condition_has_no_sensitivity() -> None:
    member = member_of(g_init_range=0.5)
    assert (diagnose(member).condition_sensitivity or 0) > 0.05
    with torch.no_grad():
        member.generator.get_parameter("condition.weight").zero_()
    assert diagnose(member).condition_sensitivity == 0


def test_without_conditions_there_is_none() -> None:
    found = diagnose(member_of(condition="none"))
    assert found.condition_sensitivity is None
    assert "condition_sensitivity" not in found.metrics


def test_vectors_are_exchanged_for_others() -> None:
    member = Member(tiny_config(g_init_range=0.5), Examples(tiny_splits("vectors")), seed=1)
    assert (diagnose(member).condition_sensitivity or 0) > 0


def test_norms_are_those_of_plain_autograd() -> None:
    """The discriminator's loss is quadratic in its last bias, so there the gradient is known."""
    member = member_of(d_loss="least_squares", generator_loss="least_squares")
    with torch.no_grad():
        for parameter in member.discriminator.parameters():
            parameter.zero_()
    # All logits are 0: dL/db = mean over real of (0 - 1) / ... = -1, and no other weight matters.
    assert diagnose(member).d_gradient_norm == pytest.approx(1.0)
    assert diagnose(member).g_gradient_norm == 0


def test_a_member_in_a_lane_is_seen_as_it_is_alone() -> None:
    population = FusedPopulation(EXAMPLES, 2, "cpu", "host")
    member = population.join(tiny_config(), seed=4)
    population.advance([member], 5)
    alone = member_of()
    alone.load_state_dict(member.state_dict())
    assert diagnose(member) == diagnose(alone)
