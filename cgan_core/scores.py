"""What samples are worth on one split."""

from dataclasses import dataclass
from typing import Self

from jaxtyping import Float
from torch import Tensor

from cgan_core.parzen import LogLikelihoods


@dataclass(frozen=True)
class Scores:
    """What samples are worth on one split, in nats.

    Args:
        log_likelihood: pooled Parzen log-likelihood, mean over the points.
        standard_error: of that mean over the points, std / sqrt(n).
        conditional_log_likelihood: of each point under the samples of its own class, or None.
        conditional_standard_error: of that mean over the points, or None.
        bandwidth: standard deviation sigma of each Gaussian, in units of the pixel range.
        points: per-point pooled log-likelihoods, on the CPU.
        conditional_points: per-point class-conditional log-likelihoods, or None.
    """

    log_likelihood: float
    standard_error: float
    conditional_log_likelihood: float | None
    conditional_standard_error: float | None
    bandwidth: float
    num_samples: int
    points: Float[Tensor, " points"]
    conditional_points: Float[Tensor, " points"] | None

    @classmethod
    def of(cls, found: LogLikelihoods, bandwidth: float, num_samples: int) -> Self:
        """Returns the scores that follow from log-likelihoods."""
        pooled = found.pooled.cpu()
        conditional = None if found.conditional is None else found.conditional.cpu()
        given = given_error = None
        if conditional is not None:
            given, given_error = float(conditional.mean()), _standard_error(conditional)
        return cls(
            log_likelihood=float(pooled.mean()),
            standard_error=_standard_error(pooled),
            conditional_log_likelihood=given,
            conditional_standard_error=given_error,
            bandwidth=bandwidth,
            num_samples=num_samples,
            points=pooled.float(),
            conditional_points=None if conditional is None else conditional.float(),
        )

    @property
    def num_points(self) -> int:
        """Points that were scored."""
        return len(self.points)


def _standard_error(points: Float[Tensor, " points"]) -> float:
    return float(points.std() / len(points) ** 0.5)
