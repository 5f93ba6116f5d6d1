"""The Fréchet distance of two Gaussians fitted to feature vectors."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64
from torch import Tensor


@dataclass(frozen=True)
class Gaussian:
    """Mean m and covariance C."""

    mean: Float64[Tensor, " features"]
    covariance: Float64[Tensor, "features features"]

    @classmethod
    def of(cls, vectors: Float[Tensor, "vectors features"]) -> "Gaussian":
        """Fits one to vectors (the unbiased covariance)."""
        return cls(vectors.double().mean(0), vectors.double().T.cov())


def frechet_distance(a: Gaussian, b: Gaussian) -> float:
    """d^2 = |m_a - m_b|^2 + tr(C_a + C_b - 2 (C_a C_b)^(1/2)) (Heusel et al. 2017, equation 6).

    The trace of the root is that of the symmetric (C_a^(1/2) C_b C_a^(1/2))^(1/2), so no complex
    numbers arise where a covariance is singular.
    """
    values, vectors = torch.linalg.eigh(a.covariance)
    root = (vectors * values.clamp(min=0).sqrt()) @ vectors.T
    shared = torch.linalg.eigvalsh(root @ b.covariance @ root).clamp(min=0).sqrt().sum()
    apart = (a.mean - b.mean).square().sum()
    return max(0.0, float(apart + a.covariance.trace() + b.covariance.trace() - 2 * shared))
