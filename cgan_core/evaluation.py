"""From a generator to its scores: samples, pooled and class-conditional likelihood, guardrails.

The protocol (which points, how many samples, which bandwidth) is data of its own with a digest:
scores under different protocols are not comparable.
"""

import dataclasses
import functools
import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from cgan_core import parzen
from cgan_core.bandwidth import Method
from cgan_core.config import GANConfig
from cgan_core.data import DataSplits, LabeledImages
from cgan_core.data.folds import leave_out
from cgan_core.distances import wide_accumulation
from cgan_core.evaluation_noise import EvaluationNoise, SampleSet
from cgan_core.examples import Examples
from cgan_core.guardrails import Guardrails, GuardrailScores
from cgan_core.samples import Samples, checked
from cgan_core.scores import Scores

PROTOCOL_VERSION = 2
VECTORS_VERSION = 3  # where images have no labels: the density that conditions come from changed
MAX_SAMPLES = 10_000
MAX_BANDWIDTH_POINTS = 1_000
BUNDLED_SAMPLES = 5_000
GENERATE_ROWS = 1_000  # generated at once; bounds memory


@dataclass(frozen=True)
class Protocol:
    """How a score is made (docs/protocol.md).

    Args:
        dataset_digest: of the data that is scored on.
        num_samples: N, the generator's samples; a multiple of the class count.
        num_bandwidth_points: the first validation points, which choose sigma; the rest is scored.
        num_classes: classes that share N evenly, or None.
        bandwidth: `exact` (the maximum over sigma) or `grid` (10 points of logspace(-1, 0)).
        seed: of the evaluation's noise, common to all trials of a study, and of the folds.
        version: of this procedure.
        folds: k parts of the training split, of which a training leaves one out, to be scored on
            it; 1 where the others train on all of it.
    """

    dataset_digest: str
    num_samples: int
    num_bandwidth_points: int
    num_classes: int | None
    bandwidth: Method = "exact"
    seed: int = 0
    version: int = PROTOCOL_VERSION
    folds: int = 1

    @property
    def digest(self) -> str:
        """SHA-256 over every field; of `folds` only above 1, for scores before it had none."""
        fields = dataclasses.asdict(self)
        if self.folds == 1:
            del fields["folds"]
        text = json.dumps(fields, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


def version_for(num_classes: int | None) -> int:
    """Returns the version of the procedure that data with so many classes are scored by."""
    return VECTORS_VERSION if num_classes is None else PROTOCOL_VERSION


def protocol_for(splits: DataSplits, seed: int = 0, folds: int = 1) -> Protocol:
    """Returns the protocol that the data's size and kind prescribe.

    Full MNIST: N = 10,000 and 1,000 bandwidth points. Bundled digits: 5,000 and 500. Any other
    data: N is the largest multiple of the class count at which every class has that many training
    images, at most 10,000, and a quarter of the validation points, at most 1,000. With folds it
    is the same N for all: that of the whole training split.
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
    version = version_for(classes)
    return Protocol(
        splits.digest, samples, points, classes, seed=seed, version=version, folds=folds
    )


class Evaluator:
    """Scores samples on the validation and the test split under one protocol.

    Samples are drawn and scored on one device. What does not depend on them (points, training
    images, noise) is made ready there once, for all members and measurements.

    With a fold, `examples` are the training images of the others, and `validation` scores on it.
    sigma still comes from the first validation points, the guardrails compare with the validation
    images, and their classifier is that of the whole training split: no judge differs from fold to
    fold, and none has been shown the images it judges by. Only the nearest training image is
    sought among those that are trained on.

    Args:
        splits: data.
        protocol: how the score is made.
        device: such as `cuda`: where the generators are.
        fold: the one of `protocol.folds` that is left out of training; None for none.

    Raises:
        ValueError: if there is no such fold.
    """

    def __init__(
        self, splits: DataSplits, protocol: Protocol, device: str = "cpu", fold: int | None = None
    ) -> None:
        self.protocol, self.splits = protocol, splits
        self.device = torch.device(device)
        self._held_out: LabeledImages | None = None
        trained_on = splits
        if fold is not None:
            parts = leave_out(splits, fold, protocol.folds, protocol.seed)
            trained_on, self._held_out = parts
        self.examples = Examples(trained_on)
        self._noise = EvaluationNoise(
            self.examples, protocol.num_samples, protocol.num_classes, protocol.seed, self.device
        )

    @functools.cached_property
    def guardrails(self) -> Guardrails:
        """What guards the scores; made, and a classifier trained, when first asked for."""
        return Guardrails(self.examples, self.splits, self.protocol.num_samples)

    def guard(self, samples: Samples) -> GuardrailScores:
        """Scores samples, on the CPU, on what a likelihood does not see."""
        given = samples.to(torch.device("cpu"))
        return self.guardrails.scores(given.images, given.conditions)

    def draw(
        self,
        generate: Callable[[Tensor, Tensor | None], Tensor],
        config: GANConfig,
        noise_draw: int = 0,
        which: SampleSet = "first",
    ) -> Samples:
        """Draws the protocol's N samples from a generator (noise, condition) -> images.

        The noise and conditions depend on the protocol's seed, the draw and the set alone, so
        that two generators are compared on the same ones. They come on this device, where the
        generator must be.

        Args:
            generate: the generator.
            config: what noise it takes, and whether it is conditioned at all.
            noise_draw: 0 for the search's noise; others for confirmations.
            which: the `first` set of the draw is scored, a `second` shows what chance did.

        Raises:
            SampleError: if a sample is not finite, or not in [0, 1].
        """
        noise = self._noise.noise(config.noise, config.noise_dim, noise_draw, which)
        z = noise.split(GENERATE_ROWS)
        given = config.condition != "none"
        conditions = self._noise.conditions(noise_draw, which) if given else None
        y: Sequence[Tensor | None] = [None] * len(z)
        if conditions is not None:
            y = conditions.split(GENERATE_ROWS)
        with torch.inference_mode(), wide_accumulation(self.device):
            images = torch.cat([generate(*block) for block in zip(z, y, strict=True)])
        return checked(Samples(images, conditions))

    @functools.cached_property
    def _validation(self) -> Samples:
        return self._on_device(self.splits.validation)

    @functools.cached_property
    def _test(self) -> Samples:
        return self._on_device(self.splits.test)

    @functools.cached_property
    def _scored(self) -> Samples:
        """The points of a validation score: all of the fold, or those that chose no sigma."""
        if self._held_out is not None:
            return self._on_device(self._held_out)
        return self._validation[self.protocol.num_bandwidth_points :]

    def _on_device(self, images: LabeledImages) -> Samples:
        return Samples(images.pixels, images.condition_tensor).to(self.device)

    def validation(self, samples: Samples) -> Scores:
        """Chooses sigma on the first validation points; scores the others, or all of the fold."""
        return self.validations([samples])[0]

    def validations(self, population: Iterable[Samples]) -> list[Scores]:
        """Scores the samples of several members in one call, each as `validation` does alone.

        One member's samples are taken at a time, so no more are held of an iterator that draws
        them.
        """
        return self._scores(population, self._scored, self.bandwidth)

    def bandwidth(self, samples: Samples, method: Method | None = None) -> float:
        """Chooses sigma on the first validation points, by the protocol's method or another."""
        points = self._validation.images[: self.protocol.num_bandwidth_points]
        centers = samples.images.to(self.device)
        return parzen.select_bandwidth(points, centers, method or self.protocol.bandwidth)

    def test(self, samples: Samples, bandwidth: float) -> Scores:
        """Scores every test point with the validation's bandwidth."""
        return self._scores([samples], self._test, lambda _: bandwidth)[0]

    def _scores(
        self,
        population: Iterable[Samples],
        points: Samples,
        bandwidth: Callable[[Samples], float],
    ) -> list[Scores]:
        on_device = (samples.to(self.device) for samples in population)
        return [self._likelihoods(samples, points, bandwidth(samples)) for samples in on_device]

    def _likelihoods(self, samples: Samples, points: Samples, sigma: float) -> Scores:
        is_labelled = self.protocol.num_classes is not None and samples.conditions is not None
        found = parzen.log_likelihoods(
            points.images,
            samples.images,
            sigma,
            labels=points.conditions if is_labelled else None,
            center_labels=samples.conditions if is_labelled else None,
        )
        return Scores.of(found, sigma, len(samples.images))
