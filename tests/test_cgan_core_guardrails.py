"""The guardrail scores against independent truths, and the flags of faulty generators."""

import dataclasses
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm
from scipy.ndimage import convolve
from sklearn.neighbors import KNeighborsClassifier, NearestNeighbors
from tiny_data import tiny_splits
from torch import Tensor

from benchmarks.guardrails import small_evaluator, stand_ins
from cgan_core.classes import ClassReader
from cgan_core.classifier import Classifier, key_of
from cgan_core.data.digits import load_digits
from cgan_core.evaluation import Evaluator, protocol_for
from cgan_core.frechet import Gaussian, frechet_distance
from cgan_core.guardrails import Limits, nearest_training_distances
from cgan_core.neighbors import Cloud, compare
from cgan_core.references import real_images
from cgan_core.samples import Samples
from cgan_core.sharpness import detail

NEED_LABELS = {"label_accuracy", "missing_classes", "frechet_distance"}
OTHERS = {"precision", "recall", "two_sample_accuracy", "memorization_ratio", "sharpness"}


def clouds(count: int = 150, shift: float = 0.5) -> tuple[Tensor, Tensor]:
    rng = np.random.default_rng(1)
    real, generated = rng.normal(size=(count, 6)), rng.normal(shift, 0.8, (count, 6))
    return torch.from_numpy(real).float(), torch.from_numpy(generated).float()


def covered(manifold: Tensor, vectors: Tensor) -> float:
    """Kynkäänniemi et al. (2019), equation 1, by scikit-learn."""
    index = NearestNeighbors(n_neighbors=4).fit(manifold.double())
    radii = index.kneighbors(manifold.double())[0][:, 3]  # the nearest is the point itself
    distances = torch.cdist(vectors.double(), manifold.double())
    return float((distances <= torch.from_numpy(radii)).any(1).double().mean())


@pytest.mark.parametrize("shift", [0.0, 0.5, 2.0])
def test_precision_and_recall_are_those_of_scikit_learn(shift: float) -> None:
    real, generated = clouds(shift=shift)
    found = compare(Cloud.of(real), Cloud.of(generated))
    assert found.precision == pytest.approx(covered(real, generated))
    assert found.recall == pytest.approx(covered(generated, real))


@pytest.mark.parametrize("shift", [0.0, 0.5, 2.0])
def test_two_sample_accuracy_is_that_of_leave_one_out(shift: float) -> None:
    real, generated = clouds(shift=shift)
    vectors = torch.cat([real, generated]).double().numpy()
    labels = np.repeat([0, 1], len(real))
    hits = []
    for left_out in range(len(vectors)):
        rest = np.arange(len(vectors)) != left_out
        judge = KNeighborsClassifier(1).fit(vectors[rest], labels[rest])
        hits.append(judge.predict(vectors[left_out : left_out + 1])[0] == labels[left_out])
    found = compare(Cloud.of(real), Cloud.of(generated)).two_sample_accuracy
    assert found == pytest.approx(np.mean(hits))


def test_frechet_distance_is_that_of_scipy() -> None:
    a, b = (Gaussian.of(vectors) for vectors in clouds())
    shared = sqrtm(a.covariance.numpy() @ b.covariance.numpy())
    squares = float((a.mean - b.mean).square().sum())
    traces = float(a.covariance.trace() + b.covariance.trace()) - 2 * np.trace(shared).real
    assert frechet_distance(a, b) == pytest.approx(squares + traces, rel=1e-9)
    assert frechet_distance(b, a) == pytest.approx(frechet_distance(a, b), rel=1e-9)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-9)


def test_frechet_distance_of_singular_covariances() -> None:
    """Closed form: on one axis it is (difference of means)^2 + (difference of deviations)^2."""
    line = torch.randn(50, 1, generator=torch.Generator().manual_seed(0)) @ torch.ones(1, 3)
    a, b = Gaussian.of(line), Gaussian.of(2 * line + 1)
    deviation, mean = line[:, 0].double().std(), line[:, 0].double().mean()
    expected = 3 * float((mean + 1) ** 2 + deviation**2)
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("shape", [(6, 5), (6, 5, 3), (1, 1), (2, 2)])
def test_detail_is_what_a_binomial_filter_takes_away(shape: tuple[int, ...]) -> None:
    images = np.random.default_rng(0).random((4, *shape)).astype(np.float32)
    row = np.array([1, 2, 1]) / 4
    kernel = np.outer(row, row).reshape(1, 3, 3, *([1] * (len(shape) - 2)))
    exact = images.astype(np.float64)
    fine = exact - convolve(exact, kernel, mode="nearest")
    energy = (exact - exact.mean((1, 2), keepdims=True)).reshape(4, -1)
    energy = np.square(energy).sum(1)
    expected = np.square(fine).reshape(4, -1).sum(1) / np.where(energy > 0, energy, 1)
    found = detail(torch.from_numpy(images).flatten(1), shape)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-9)


def test_distance_to_the_nearest_training_image() -> None:
    evaluator = Evaluator(splits := tiny_splits(), protocol_for(splits))
    images = splits.test.pixels
    expected = torch.cdist(images.double(), splits.train.pixels.double()).amin(1)
    for block in (1, 7, 60):
        found = nearest_training_distances(images, evaluator.examples, block)
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-7)


def test_missing_classes_by_what_the_classifier_can_read() -> None:
    labels = torch.arange(3).repeat(100)
    read = labels.clone()
    read[:9:3] = 1  # three of class 0 are taken for class 1, and none for class 2
    reader = ClassReader.of(read, labels, 3)
    assert reader.mistaken.tolist() == [0, 3 / 200, 0]
    assert reader.missing(read) == 0
    one_gone = labels[labels != 2].repeat(2)
    assert reader.missing(one_gone) == 1
    misread = torch.cat([torch.zeros(297), torch.full((3,), 1)]).long()
    assert reader.missing(misread) == 2  # three may well be of class 0
    several = torch.cat([torch.zeros(200), torch.full((50,), 1), torch.full((50,), 2)]).long()
    assert reader.missing(several) == 0


def test_a_class_that_cannot_be_read_is_never_missing_nor_labels_judged() -> None:
    labels = torch.arange(2).repeat(50)
    reader = ClassReader.of(torch.zeros_like(labels), labels, 2)
    assert reader.missing(torch.zeros_like(labels)) == 0
    assert reader.accuracy_limit is None


def test_the_classifier_is_trained_once_and_kept(tmp_path: Path) -> None:
    splits = tiny_splits()
    first = Classifier.of(splits, tmp_path)
    (file,) = tmp_path.iterdir()
    assert file.name == f"{key_of(splits)}.safetensors"
    written = file.stat().st_mtime_ns
    again = Classifier.of(splits, tmp_path)
    assert file.stat().st_mtime_ns == written
    for name, values in first.weights.items():
        assert torch.equal(values, again.weights[name])
    assert key_of(tiny_splits(train=64)) != key_of(splits)


def test_a_broken_or_missing_cache_does_no_harm(tmp_path: Path) -> None:
    splits = tiny_splits()
    first = Classifier.of(splits, tmp_path)
    (file,) = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:100])
    (blocked := tmp_path / "blocked").write_text("no folder")
    for folder in (tmp_path, blocked):
        again = Classifier.of(splits, folder)
        for name, values in first.weights.items():
            assert torch.equal(values, again.weights[name])  # training repeats bit for bit


def test_the_order_of_samples_means_nothing() -> None:
    splits = tiny_splits(validation=80)
    evaluator = Evaluator(splits, protocol_for(splits))
    samples = real_images(evaluator)
    assert samples.conditions is not None
    order = torch.randperm(len(samples.images), generator=torch.Generator().manual_seed(0))
    permuted = Samples(samples.images[order], samples.conditions[order])
    found, expected = evaluator.guard(permuted).metrics, evaluator.guard(samples).metrics
    assert found == pytest.approx(expected, rel=1e-6, abs=1e-9)
    assert found.keys() == NEED_LABELS | OTHERS


@pytest.mark.parametrize("conditions", ["vectors", "none"])
def test_without_labels_the_scores_that_need_them_are_absent(conditions: str) -> None:
    splits = tiny_splits(conditions)
    evaluator = Evaluator(splits, protocol_for(splits))
    assert evaluator.guard(real_images(evaluator)).metrics.keys() == OTHERS
    limits = evaluator.guardrails.limits
    assert limits.label_accuracy is None
    assert limits.flags({"label_accuracy": 0.0, "sharpness": 1.0}) == ()


def test_scores_that_cannot_be_made_are_absent() -> None:
    """One image is nobody's neighbour; flat images have no detail to compare with."""
    splits = tiny_splits("none", validation=1)
    evaluator = Evaluator(splits, protocol_for(splits))
    found = evaluator.guard(Samples(torch.zeros(1, 16), None))
    assert found.metrics.keys() == {"memorization_ratio", "sharpness"}
    flat = dataclasses.replace(splits.train, images=np.full((5, 4, 4), 9, np.uint8))
    splits = dataclasses.replace(splits, train=flat, validation=flat)
    evaluator = Evaluator(splits, protocol_for(splits))
    found = evaluator.guard(Samples(torch.zeros(5, 16), None))
    assert found.metrics.keys() == OTHERS - {"memorization_ratio", "sharpness"}
    assert evaluator.guardrails.limits == Limits()


@pytest.fixture(scope="module")
def digits() -> Evaluator:
    return small_evaluator(load_digits("a test"))


def flags(evaluator: Evaluator, samples: Samples) -> tuple[str, ...]:
    return evaluator.guardrails.limits.flags(evaluator.guard(samples).metrics)


def test_each_faulty_generator_of_real_digits_is_flagged_by_name(digits: Evaluator) -> None:
    generators = stand_ins(digits.splits, digits.protocol.num_samples)
    assert {name: flags(digits, samples) for name, samples in generators.items()} == {
        "healthy": (),
        "shuffled": ("ignores_labels",),
        "blurred": ("blurred",),
        "memorizing": ("memorizes",),
        "missing a class": ("missing_classes",),
    }


@pytest.mark.parametrize("missing", range(10))
def test_whichever_class_is_missing_is_missed(digits: Evaluator, missing: int) -> None:
    generators = stand_ins(digits.splits, digits.protocol.num_samples, missing)
    found = digits.guard(generators["missing a class"])
    assert found.missing_classes == 1


def test_half_memorized_is_memorized(digits: Evaluator) -> None:
    generators = stand_ins(digits.splits, digits.protocol.num_samples)
    copies, fresh = generators["memorizing"].images, generators["healthy"].images
    half = torch.where(torch.arange(len(fresh))[:, None] % 2 == 0, copies, fresh)
    assert "memorizes" in flags(digits, Samples(half, None))


@pytest.mark.skipif("CGAN_DATA_DIR" not in os.environ, reason="full MNIST is not at hand")
def test_held_out_images_of_full_mnist_are_not_flagged() -> None:
    from cgan_core.data import load_data

    if not (Path(os.environ["CGAN_DATA_DIR"]) / "mnist.npz").is_file():
        pytest.skip("full MNIST is not at hand")
    splits = load_data("mnist", require_full=True)
    evaluator = small_evaluator(splits)
    healthy = Samples(splits.test.pixels, splits.test.condition_tensor)
    assert flags(evaluator, healthy) == ()
