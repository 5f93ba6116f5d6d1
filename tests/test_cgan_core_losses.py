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


@pytest.mark.parametrize("name", list(GENERATOR_LOSSES))
def test_generator_losses_are_stable(name: str) -> None:
    logits = EXTREME.clone().requires_grad_()
    loss = GENERATOR_LOSSES[name](logits)
    (gradient,) = torch.autograd.grad(loss, logits)
    truth = torch.tensor([200.0, 0.0, 0.6931472]) if name == "non_saturating" else None
    truth = -torch.tensor([0.0, 200.0, 0.6931472]) if truth is None else truth
    torch.testing.assert_close(loss.detach(), truth.mean())
    assert gradient.isfinite().all()


@pytest.mark.parametrize("name", list(DISCRIMINATOR_LOSSES))
def test_discriminator_losses_are_stable(name: str) -> None:
    real, fake = EXTREME.clone().requires_grad_(), EXTREME.clone().requires_grad_()
    loss = DISCRIMINATOR_LOSSES[name](real, fake)
    gradients = torch.autograd.grad(loss, (real, fake))
    torch.testing.assert_close(
        loss.detach() / (0.5 if name == "half_sum" else 1.0),
        torch.tensor((400 + 2 * 0.6931472) / 3),
    )
    assert all(gradient.isfinite().all() for gradient in gradients)


def test_the_two_generator_losses_pull_the_same_way() -> None:
    logits = FAKE.clone().requires_grad_()
    gradients = [
        torch.autograd.grad(loss(logits), logits)[0] for loss in (non_saturating, minimax)
    ]
    assert all((gradient < 0).all() for gradient in gradients)
