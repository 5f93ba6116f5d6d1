import math

import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from cgan_core.losses import (
    DISCRIMINATOR_LOSSES,
    GENERATOR_LOSSES,
    half_sum_of_cross_entropies,
    minimax,
    non_saturating,
    sum_of_cross_entropies,
    with_slopes,
)

GENERATOR = torch.Generator().manual_seed(0)
REAL = torch.randn(50, generator=GENERATOR, dtype=torch.float64) * 3
FAKE = torch.randn(50, generator=GENERATOR, dtype=torch.float64) * 3
EXTREME = torch.tensor([-200.0, 200.0, 0.0])


def log_sigmoid(logits: torch.Tensor) -> torch.Tensor:
    return torch.log(torch.sigmoid(logits))


def test_discriminator_losses_are_their_formulas() -> None:
    truth = -log_sigmoid(REAL).mean() - torch.log(1 - torch.sigmoid(FAKE)).mean()
    torch.testing.assert_close(sum_of_cross_entropies(REAL, FAKE), truth, rtol=1e-12, atol=0)
    torch.testing.assert_close(half_sum_of_cross_entropies(REAL, FAKE), truth / 2)


def test_half_sum_is_the_cross_entropy_of_the_mixed_batch() -> None:
    logits = torch.cat([REAL, FAKE])
    targets = torch.cat([torch.ones_like(REAL), torch.zeros_like(FAKE)])
    expected = binary_cross_entropy_with_logits(logits, targets)
    torch.testing.assert_close(half_sum_of_cross_entropies(REAL, FAKE), expected)


def test_generator_losses_are_their_formulas() -> None:
    ones = torch.ones_like(FAKE)
    torch.testing.assert_close(non_saturating(FAKE), -log_sigmoid(FAKE).mean())
    torch.testing.assert_close(non_saturating(FAKE), binary_cross_entropy_with_logits(FAKE, ones))
    torch.testing.assert_close(minimax(FAKE), torch.log(1 - torch.sigmoid(FAKE)).mean())


def test_minimax_and_the_discriminators_fake_term_cancel() -> None:
    fake_term = sum_of_cross_entropies(REAL, FAKE) - sum_of_cross_entropies(REAL, FAKE - 1e9)
    torch.testing.assert_close(fake_term + minimax(FAKE), torch.zeros((), dtype=torch.float64))


AT_EXTREMES = {  # means over -200, 200 and 0
    "non_saturating": (200 + math.log(2)) / 3,
    "minimax": -(200 + math.log(2)) / 3,
    "least_squares": (201**2 + 199**2 + 1) / 6,
    "hinge": 0.0,
    "sum": (400 + 2 * math.log(2)) / 3,
    "half_sum": (200 + math.log(2)) / 3,
}
D_AT_EXTREMES = AT_EXTREMES | {
    "least_squares": (201**2 + 199**2 + 1 + 2 * 200**2) / 6,
    "hinge": (201 + 0 + 1) / 3 * 2,
}


@pytest.mark.parametrize("name", list(GENERATOR_LOSSES))
def test_generator_losses_are_stable(name: str) -> None:
    logits = EXTREME.clone().requires_grad_()
    loss = GENERATOR_LOSSES[name](logits)
    (gradient,) = torch.autograd.grad(loss, logits)
    assert loss.item() == pytest.approx(AT_EXTREMES[name], rel=1e-6, abs=1e-6)
    assert gradient.isfinite().all()


@pytest.mark.parametrize("name", list(DISCRIMINATOR_LOSSES))
def test_discriminator_losses_are_stable(name: str) -> None:
    real, fake = EXTREME.clone().requires_grad_(), EXTREME.clone().requires_grad_()
    loss = DISCRIMINATOR_LOSSES[name](real, fake)
    gradients = torch.autograd.grad(loss, (real, fake))
    assert loss.item() == pytest.approx(D_AT_EXTREMES[name], rel=1e-6)
    assert all(gradient.isfinite().all() for gradient in gradients)


def test_slopes_are_those_of_the_sigmoid_and_far_from_it_none_is_lost() -> None:
    logits = torch.tensor([-70.0, -3.0, 0.0, 3.0, 70.0], dtype=torch.float64)
    _, (real, fake) = with_slopes(sum_of_cross_entropies, logits, logits)
    _, (chased,) = with_slopes(non_saturating, logits)
    d = 1 / (1 + torch.exp(-logits))
    off = 1 / (1 + torch.exp(logits))  # 1 - D, which is 4e-31 at a logit of 70
    for found, truth in ((real, -off), (fake, d), (chased, -off)):
        torch.testing.assert_close(found * 5, truth, rtol=1e-12, atol=0)


def test_each_member_of_a_stack_has_its_own_loss() -> None:
    real, fake = REAL.view(5, 10), FAKE.view(5, 10)
    for name, loss in DISCRIMINATOR_LOSSES.items():
        each = torch.stack([loss(*pair) for pair in zip(real, fake, strict=True)])
        torch.testing.assert_close(loss(real, fake), each, msg=name)


def test_the_two_generator_losses_pull_the_same_way() -> None:
    logits = FAKE.clone().requires_grad_()
    gradients = [
        torch.autograd.grad(loss(logits), logits)[0] for loss in (non_saturating, minimax)
    ]
    assert all((gradient < 0).all() for gradient in gradients)
