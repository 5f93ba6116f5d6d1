"""From a generator to its scores: samples, pooled and class-conditional likelihood, guardrails.

The protocol (which points, how many samples, which bandwidth) is data of its own with a digest:
scores under different protocols are not comparable.
"""

import dataclasses
import functools
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from cgan_core import parzen
from cgan_core.bandwidth import Method
from cgan_core.data import DataSplits
from cgan_core.examples import Examples
from cgan_core.guardrails import Guardrails, GuardrailScores
from cgan_core.streams import draw_noise, stream

PROTOCOL_VERSION = 2
MAX_SAMPLES = 10_000
MAX_BANDWIDTH_POINTS = 1_000
BUNDLED_SAMPLES = 5_000
GENERATE_ROWS = 1_000  # generated at once; bounds memory


class SampleError(ValueError):
    """Samples are not finite, or not in [0, 1]."""


@dataclass(frozen=True)
class Protocol:
    """How a score is made (docs/protocol.md).

    Args:
        dataset_digest: of the data that is scored on.
        num_samples: N, the generator's samples; a multiple of the class count.
        num_bandwidth_points: the first validation points, which choose sigma; the rest is scored.
        num_classes: classes that share N evenly, or None.
        bandwidth: `exact` (the maximum over sigma) or `grid` (10 points of logspace(-1, 0)).
        seed: of the evaluation's noise, common to all trials of a study.
        version: of this procedure.
    """

    dataset_digest: str
    num_samples: int
    num_bandwidth_points: int
    num_classes: int | None
    bandwidth: Method = "exact"
    seed: int = 0
    version: int = PROTOCOL_VERSION

    @property
    def digest(self) -> str:
        """SHA-256 over every field."""
        text = json.dumps(dataclasses.asdict(self), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


def protocol_for(splits: DataSplits, seed: int = 0) -> Protocol:
    """Returns the protocol that the data's size and kind prescribe.

    Full MNIST: N = 10,000 and 1,000 bandwidth points. Bundled digits: 5,000 and 500. Any other
    data: N is the largest multiple of the class count at which every class has that many training
    images, at most 10,000, and a quarter of the validation points, at most 1,000.
    """
    classes = splits.num_classes
    if splits.subset:
        samples = BUNDLED_SAMPLES
    elif classes is None or splits.train.conditions is None:
        samples = min(len(splits.train.images), MAX_SAMPLES)
    else:
        rarest = int(np.bincount(splits.train.conditions, minlength=classes).min())
        samples = classes * min(rarest, MAX_SAMPLES // classes)
    points = min(MAX_BANDWIDTH_POINTS, len(splits.validation.images) // 4)
    return Protocol(splits.digest, samples, points, classes, seed=seed)


@dataclass(frozen=True)
class Samples:
    """Images in [0, 1] with the conditions that they were generated for, or None."""

    images: Float[Tensor, "samples pixels"]
    conditions: Tensor | None


@dataclass(frozen=True)
class Scores:
    """What samples are worth on one split, in nats.

    Args:
        log_likelihood: pooled Parzen log-likelihood, mean over the points.
        standard_error: of that mean over the points, std / sqrt(n).
        conditional_log_likelihood: of each point under the samples of its own class, or None.
        conditional_standard_error: of that mean over the points, or None.
        bandwidth: standard deviation sigma of each Gaussian, in units of the pixel range.
        points: per-point pooled log-likelihoods.
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

    @property
    def num_points(self) -> int:
        """Points that were scored."""
        return len(self.points)


class Evaluator:
    """Scores samples on the validation and the test split under one protocol.

    Args:
        splits: data.
        protocol: how the score is made.
    """

    def __init__(self, splits: DataSplits, protocol: Protocol) -> None:
        self.protocol, self.splits = protocol, splits
        self.examples = Examples(splits)

    @functools.cached_property
    def guardrails(self) -> Guardrails:
        """What guards the scores; made, and a classifier trained, when first asked for."""
        return Guardrails(self.examples, self.splits, self.protocol.num_samples)

    def guard(self, samples: Samples) -> GuardrailScores:
        """Scores samples on what a likelihood does not see, against validation images."""
        return self.guardrails.scores(samples.images, samples.conditions)

    def draw(
        self,
        generate: Callable[[Tensor, Tensor | None], Tensor],
        noise: str,
        noise_dim: int,
    ) -> Samples:
        """Draws the protocol's N samples from a generator (noise, condition) -> images.

        The noise and conditions depend on the protocol's seed alone, so that two generators are
        compared on the same draws.

        Raises:
            SampleError: if a sample is not finite.
        """
        rng = stream(self.protocol.seed, "evaluation noise")
        z = draw_noise(rng, noise, self.protocol.num_samples, noise_dim)
        conditions = self.balanced_conditions()
        blocks = range(0, len(z), GENERATE_ROWS)
        with torch.inference_mode():
            images = torch.cat(
                [
                    generate(
                        z[i : i + GENERATE_ROWS],
                        None if conditions is None else conditions[i : i + GENERATE_ROWS],
                    )
                    for i in blocks
                ]
            )
        return checked(Samples(images, conditions))

    def balanced_conditions(self) -> Tensor | None:
        """Returns N conditions: each class equally often and in turn, or drawn from p_y."""
        count = self.protocol.num_samples
        if self.protocol.num_classes is not None:
            return torch.arange(count) % self.protocol.num_classes
        return self.examples.draw_conditions(stream(self.protocol.seed, "evaluation y"), count)

    def validation(self, samples: Samples) -> Scores:
        """Chooses sigma on the first validation points and scores the others."""
        split, first = self.splits.validation, self.protocol.num_bandwidth_points
        conditions = split.condition_tensor
        rest = None if conditions is None else conditions[first:]
        return self._score(samples, split.pixels[first:], rest, self.bandwidth(samples))

    def bandwidth(self, samples: Samples, method: Method | None = None) -> float:
        """Chooses sigma on the first validation points, by the protocol's method or another."""
        points = self.splits.validation.pixels[: self.protocol.num_bandwidth_points]
        return parzen.select_bandwidth(points, samples.images, method or self.protocol.bandwidth)

    def test(self, samples: Samples, bandwidth: float) -> Scores:
        """Scores every test point with the validation's bandwidth."""
        split = self.splits.test
        return self._score(samples, split.pixels, split.condition_tensor, bandwidth)

    def _score(
        self, samples: Samples, images: Tensor, conditions: Tensor | None, sigma: float
    ) -> Scores:
        classes = self.protocol.num_classes
        labels = conditions if classes and samples.conditions is not None else None
        pooled, conditional = parzen.log_likelihoods(
            images,
            samples.images,
            sigma,
            labels=labels,
            center_labels=samples.conditions if labels is not None else None,
        )
        given = given_error = None
        if conditional is not None:
            given, given_error = float(conditional.mean()), _standard_error(conditional)
        return Scores(
            log_likelihood=float(pooled.mean()),
            standard_error=_standard_error(pooled),
            conditional_log_likelihood=given,
            conditional_standard_error=given_error,
            bandwidth=sigma,
            num_samples=len(samples.images),
            points=pooled.float(),
            conditional_points=None if conditional is None else conditional.float(),
        )


def _standard_error(points: Float[Tensor, " points"]) -> float:
    return float(points.std() / len(points) ** 0.5)


def checked(samples: Samples) -> Samples:
    """Returns the samples, or raises SampleError if one is not finite or not in [0, 1].

    In [-1, 1] every score would be off by D log 2 (543 nats for MNIST).
    """
    low, high = samples.images.aminmax()
    if not (low >= 0 and high <= 1):  # also false for NaN
        message = f"`0 <= sample <= 1` must hold, but got values from {low:g} to {high:g}"
        raise SampleError(message)
    return samples
