"""Losses of the two players, as pure functions of logits, and their slopes there.

D(x) is the sigmoid of its logit l(x) in the cross-entropies; least squares and hinge judge by the
logit itself. Leading axes, where there are any, are members: each has its own loss.
"""

from collections.abc import Callable, Mapping

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import softplus

Logits = Float[Tensor, "*members rows"]
Loss = Float[Tensor, "*members"]


def sum_of_cross_entropies(real: Logits, fake: Logits) -> Loss:
    """Returns -E[log D(x)] - E[log(1 - D(G(z)))] (Goodfellow et al. 2014, equation 1)."""
    return softplus(-real).mean(-1) + softplus(fake).mean(-1)


def half_sum_of_cross_entropies(real: Logits, fake: Logits) -> Loss:
    """Returns half of the sum: the cross-entropy of the mixed batch, as the 2014 code has it."""
    return 0.5 * sum_of_cross_entropies(real, fake)


def d_least_squares(real: Logits, fake: Logits) -> Loss:
    """Returns E[(l(x) - 1)^2] / 2 + E[l(G(z))^2] / 2 (Mao et al. 2017, equation 9)."""
    return 0.5 * ((real - 1).square().mean(-1) + fake.square().mean(-1))


def d_hinge(real: Logits, fake: Logits) -> Loss:
    """Returns E[max(0, 1 - l(x))] + E[max(0, 1 + l(G(z)))] (Lim & Ye 2017)."""
    return (1 - real).relu().mean(-1) + (1 + fake).relu().mean(-1)


def non_saturating(fake: Logits) -> Loss:
    """Returns -E[log D(G(z))] (Goodfellow et al. 2014, section 3, the practical form)."""
    return softplus(-fake).mean(-1)


def minimax(fake: Logits) -> Loss:
    """Returns E[log(1 - D(G(z)))] (Goodfellow et al. 2014, equation 1)."""
    return -softplus(fake).mean(-1)  # log(1 - sigmoid(l)) = -softplus(l)


def g_least_squares(fake: Logits) -> Loss:
    """Returns E[(l(G(z)) - 1)^2] / 2 (Mao et al. 2017, equation 9)."""
    return 0.5 * (fake - 1).square().mean(-1)


def g_hinge(fake: Logits) -> Loss:
    """Returns -E[l(G(z))], the generator's side of the hinge (Lim & Ye 2017)."""
    return -fake.mean(-1)


def with_slopes(loss: Callable[..., Loss], *logits: Logits) -> tuple[Loss, list[Logits]]:
    """Returns a loss and its derivative by each logit, however the logits were made."""
    leaves = [each.detach().requires_grad_() for each in logits]
    with torch.enable_grad():
        value = loss(*leaves)
    return value.detach(), list(torch.autograd.grad(value.sum(), leaves))


DISCRIMINATOR_LOSSES: Mapping[str, Callable[[Logits, Logits], Loss]] = {
    "sum": sum_of_cross_entropies,
    "half_sum": half_sum_of_cross_entropies,
    "least_squares": d_least_squares,
    "hinge": d_hinge,
}
GENERATOR_LOSSES: Mapping[str, Callable[[Logits], Loss]] = {
    "non_saturating": non_saturating,
    "minimax": minimax,
    "least_squares": g_least_squares,
    "hinge": g_hinge,
}
