"""Guardrail scores: what a likelihood does not see, each held against held-out real images.

A flag's limit comes from what validation images score by the same steps (`Limits`).
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float32, Float64, Int64
from torch import Tensor

from cgan_core.classes import ClassReader
from cgan_core.classifier import Classifier
from cgan_core.data import DataSplits
from cgan_core.examples import Examples
from cgan_core.frechet import Gaussian, frechet_distance
from cgan_core.nearest import nearest
from cgan_core.neighbors import Cloud, compare
from cgan_core.sharpness import detail
from cgan_core.streams import stream

MAX_IMAGES = 1_000  # of each kind, where images are compared with each other
BLOCK_ROWS = 5_000  # training images searched at once; bounds memory
TYPICAL, RARE = 0.25, 0.05  # quantiles: what a quarter of samples may not share with so few real


@dataclass(frozen=True)
class GuardrailScores:
    """What samples are beside their likelihood; None where the data cannot say.

    Args:
        label_accuracy: share of samples that the classifier reads as the class they were drawn
            for.
        missing_classes: classes that hardly any sample is read as (`cgan_core.classes`).
        frechet_distance: of the Gaussians of samples and validation images, in the classifier's
            features (Heusel et al. 2017).
        precision, recall: Kynkäänniemi et al. (2019), k = 3.
        two_sample_accuracy: of the leave-one-out 1-nearest-neighbour classifier (Lopez-Paz &
            Oquab 2017); 0.5 is perfect.
        memorization_ratio: lower quartile of the samples' distances to their nearest training
            images, over that of validation images; 0 if a quarter are copies.
        sharpness: lower quartile of the samples' share of fine detail, over that of validation
            images (`cgan_core.sharpness`).
    """

    label_accuracy: float | None = None
    missing_classes: int | None = None
    frechet_distance: float | None = None
    precision: float | None = None
    recall: float | None = None
    two_sample_accuracy: float | None = None
    memorization_ratio: float | None = None
    sharpness: float | None = None

    @property
    def metrics(self) -> dict[str, float]:
        """Those that there are, by name."""
        pairs = dataclasses.asdict(self).items()
        return {name: float(value) for name, value in pairs if value is not None}


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Where the flags begin, by held-out real images; None where the data cannot say.

    Args:
        label_accuracy: half way from chance to the classifier's accuracy on validation images.
        memorization_ratio: the 5 % quantile of validation images' distances over their lower
            quartile: below it a quarter of the samples are nearer to a training image than all
            but one in twenty real images are.
        sharpness: the same of their shares of fine detail.
    """

    label_accuracy: float | None = None
    memorization_ratio: float | None = None
    sharpness: float | None = None

    def flags(self, metrics: Mapping[str, float]) -> tuple[str, ...]:
        """Names what to beware of in recorded scores; a score that is not there is no fault."""
        below = {
            "ignores_labels": ("label_accuracy", self.label_accuracy),
            "blurred": ("sharpness", self.sharpness),
            "memorizes": ("memorization_ratio", self.memorization_ratio),
        }
        found = [
            flag
            for flag, (name, limit) in below.items()
            if limit is not None and name in metrics and metrics[name] < limit
        ]
        return (*found, *(["missing_classes"] if metrics.get("missing_classes") else []))


class Guardrails:
    """Scores samples against a data set's validation images.

    Images are compared with each other among at most 1,000 of each kind, chosen by chance: the
    nearest training image costs 1,000 x training images x pixels multiply-adds, 39e9 on full
    MNIST against 79e9 of the Parzen score, and all else less than 4e9. The classifier reads all
    samples. Features are its last hidden layer where there are labels, pixels elsewhere; there
    the scores that need classes are None.

    Args:
        examples: the training images.
        splits: the data set they are of.
        num_samples: N of the protocol.
    """

    def __init__(self, examples: Examples, splits: DataSplits, num_samples: int) -> None:
        self._examples, self._shape = examples, splits.image_shape
        real = splits.validation.pixels
        self._chosen = min(MAX_IMAGES, len(real), num_samples)
        self._classifier = Classifier.of(splits) if splits.num_classes is not None else None
        features = self._features(real)
        labels = splits.validation.condition_tensor
        self._reader: ClassReader | None = None
        if self._classifier is not None and splits.num_classes is not None and labels is not None:
            read = self._classifier.classes(features)
            self._reader = ClassReader.of(read, labels, splits.num_classes)
        enough = self._chosen > 1  # neighbours and covariances need another one
        gaussian = enough and self._classifier is not None
        self._gaussian = Gaussian.of(features) if gaussian else None
        chosen = self._choose(len(real))
        self._cloud = Cloud.of(features[chosen]) if enough else None
        self._details = detail(real[chosen], self._shape)
        self._distances = nearest_training_distances(real[chosen], examples)

    @property
    def limits(self) -> Limits:
        """Where the flags begin."""
        return Limits(
            label_accuracy=None if self._reader is None else self._reader.accuracy_limit,
            memorization_ratio=_ratio(self._distances, self._distances, RARE),
            sharpness=_ratio(self._details, self._details, RARE),
        )

    def scores(
        self, images: Float32[Tensor, "samples pixels"], conditions: Tensor | None
    ) -> GuardrailScores:
        """Scores samples with values in [0, 1], and the labels they were drawn for if any."""
        features = self._features(images)
        chosen = self._choose(len(images))
        accuracy = missing = None
        if self._classifier is not None and self._reader is not None:
            read = self._classifier.classes(features)
            missing = self._reader.missing(read)
            accuracy = None if conditions is None else _share(read == conditions)
        distance = None
        if self._gaussian is not None and len(images) > 1:
            distance = frechet_distance(self._gaussian, Gaussian.of(features))
        compared = {}
        if self._cloud is not None and len(chosen) > 1:
            compared = dataclasses.asdict(compare(self._cloud, Cloud.of(features[chosen])))
        nearness = nearest_training_distances(images[chosen], self._examples)
        return GuardrailScores(
            label_accuracy=accuracy,
            missing_classes=missing,
            frechet_distance=distance,
            memorization_ratio=_ratio(nearness, self._distances),
            sharpness=_ratio(detail(images[chosen], self._shape), self._details),
            **compared,
        )

    def _features(self, images: Float32[Tensor, "n pixels"]) -> Float32[Tensor, "n features"]:
        return images if self._classifier is None else self._classifier.features(images)

    def _choose(self, count: int) -> Int64[Tensor, " chosen"]:
        """Rows by chance, for samples may lie in the order of their classes."""
        return torch.from_numpy(stream(0, "guardrail rows").permutation(count)[: self._chosen])


def nearest_training_distances(
    images: Float32[Tensor, "images pixels"], examples: Examples, block: int = BLOCK_ROWS
) -> Float64[Tensor, " images"]:
    """The Euclidean distance of each image to its nearest training image."""
    best = torch.full((len(images),), torch.inf, dtype=torch.float64)
    for start in range(0, len(examples), block):
        found, _ = nearest(images, examples.images[start : start + block] / 255)
        best = torch.minimum(best, found)
    return best.mul_(2).sqrt_()


def _ratio(
    values: Float64[Tensor, " values"],
    real: Float64[Tensor, " real"],
    quantile: float = TYPICAL,
) -> float | None:
    """A quantile of the values over the lower quartile of the real ones; None if that is 0."""
    typical = float(real.quantile(TYPICAL))
    return float(values.quantile(quantile)) / typical if typical > 0 else None


def _share(hits: Tensor) -> float:
    return float(hits.double().mean())
