"""Losses of the two players, as pure functions of logits (D(x) = sigmoid of its logit)."""

from collections.abc import Callable, Mapping

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import softplus

Logits = Float[Tensor, " rows"]
Scalar = Float[Tensor, ""]


def sum_of_cross_entropies(real: Logits, fake: Logits) -> Scalar:
    """Returns -E[log D(x)] - E[log(1 - D(G(z)))] (Goodfellow et al. 2014, equation 1)."""
    return softplus(-real).mean() + softplus(fake).mean()


def half_sum_of_cross_entropies(real: Logits, fake: Logits) -> Scalar:
    """Returns half of the sum: the cross-entropy of the mixed batch, as the 2014 code has it."""
    return 0.5 * sum_of_cross_entropies(real, fake)


def non_saturating(fake: Logits) -> Scalar:
    """Returns -E[log D(G(z))] (Goodfellow et al. 2014, section 3, the practical form)."""
    return softplus(-fake).mean()


def minimax(fake: Logits) -> Scalar:
    """Returns E[log(1 - D(G(z)))] (Goodfellow et al. 2014, equation 1)."""
    return -softplus(fake).mean()  # log(1 - sigmoid(l)) = -softplus(l)


DISCRIMINATOR_LOSSES: Mapping[str, Callable[[Logits, Logits], Scalar]] = {
    "sum": sum_of_cross_entropies,
    "half_sum": half_sum_of_cross_entropies,
}
GENERATOR_LOSSES: Mapping[str, Callable[[Logits], Scalar]] = {
    "non_saturating": non_saturating,
    "minimax": minimax,
}
