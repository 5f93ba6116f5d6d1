import dataclasses
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans
from tiny_data import tiny_config, tiny_splits
from torch import Tensor

from cgan_core.configs.mlp import MLPConfig
from cgan_core.data import DataSplits, LabeledImages, load_data
from cgan_core.data.digits import load_digits
from cgan_core.evaluation import (
    Evaluator,
    Protocol,
    protocol_for,
)
from cgan_core.evaluation_noise import SampleSet
from cgan_core.examples import Examples
from cgan_core.fused import FusedPopulation
from cgan_core.member import Member
from cgan_core.references import (
    centroids,
    class_means,
    real_images,
    reference_lines,
    untrained,
)
from cgan_core.samples import SampleError, Samples
from cgan_core.scores import Scores
from cgan_core.stopping import BestState
from cgan_core.streams import stream

SPLITS = tiny_splits()
EVALUATOR = Evaluator(SPLITS, protocol_for(SPLITS))


def known_samples(seed: int = 0) -> Samples:
    """Random images, those of a class of its brightness."""
    rng = np.random.default_rng(seed)
    labels = np.arange(45) % 3
    images = (60 + 70 * labels[:, None] + rng.normal(0, 25, (45, 16))) / 255
    pixels = torch.from_numpy(images).float().clamp(0, 1)
    return Samples(pixels, torch.from_numpy(labels))


def direct(points: Tensor, centers: Tensor, sigma: float) -> Tensor:
    """The definition in float64."""
    squares = torch.cdist(points.double(), centers.double()).square()
    volume = points.shape[1] / 2 * math.log(2 * math.pi * sigma**2)
    return (-squares / (2 * sigma**2)).logsumexp(1) - math.log(len(centers)) - volume


def direct_conditional(points: Tensor, labels: Tensor, samples: Samples, sigma: float) -> Tensor:
    assert samples.conditions is not None
    rows = [
        direct(point[None], samples.images[samples.conditions == label], sigma)
        for point, label in zip(points, labels, strict=True)
    ]
    return torch.cat(rows)


@pytest.mark.skipif("CGAN_DATA_DIR" not in os.environ, reason="full MNIST is not at hand")
def test_protocol_of_full_mnist() -> None:
    if not (Path(os.environ["CGAN_DATA_DIR"]) / "mnist.npz").is_file():
        pytest.skip("full MNIST is not at hand")
    protocol = protocol_for(load_data("mnist", require_full=True))
    assert (protocol.num_samples, protocol.num_bandwidth_points) == (10_000, 1_000)
    assert (protocol.num_classes, protocol.bandwidth) == (10, "exact")


def test_protocol_of_the_bundled_digits() -> None:
    protocol = protocol_for(load_digits("a test"))
    assert (protocol.num_samples, protocol.num_bandwidth_points) == (5_000, 500)


@pytest.mark.parametrize(
    ("conditions", "samples"), [("labels", 45), ("vectors", 60), ("none", 60)]
)
def test_protocol_of_a_users_file(conditions: str, samples: int) -> None:
    protocol = protocol_for(tiny_splits(conditions))
    assert (protocol.num_samples, protocol.num_bandwidth_points) == (samples, 10)
    assert protocol.num_classes == (3 if conditions == "labels" else None)


@pytest.mark.parametrize(("classes", "samples"), [(3, 9_999), (None, 10_000)])
def test_protocol_of_large_data_is_capped(classes: int | None, samples: int) -> None:
    images = np.zeros((40_000, 1, 1), np.uint8)
    part = LabeledImages(images, None if classes is None else np.arange(40_000) % classes)
    splits = DataSplits(
        train=part,
        validation=part,
        test=part,
        name="large",
        source="synthetic",
        subset=False,
        num_classes=classes,
    )
    protocol = protocol_for(splits)
    assert (protocol.num_samples, protocol.num_bandwidth_points) == (samples, 1_000)


@pytest.mark.parametrize("name", [spec.name for spec in dataclasses.fields(Protocol)])
def test_protocol_digest_covers_every_field(name: str) -> None:
    changes: dict[str, Any] = {
        "dataset_digest": "other",
        "num_samples": 1,
        "num_bandwidth_points": 1,
        "num_classes": None,
        "bandwidth": "grid",
        "seed": 1,
        "version": 0,
        "folds": 2,
    }
    changed = dataclasses.replace(EVALUATOR.protocol, **{name: changes[name]})
    assert changed.digest != EVALUATOR.protocol.digest
    assert dataclasses.replace(EVALUATOR.protocol).digest == EVALUATOR.protocol.digest


def test_without_folds_a_protocol_is_that_of_before_there_were_any() -> None:
    whole = Protocol("0" * 64, 5_000, 500, 10, seed=3)
    assert whole.digest == "72e688298a24863218fe0a12aaf6a0c7eb86cacaf831f0295593f21a57915229"
    folded = [dataclasses.replace(whole, folds=folds).digest for folds in (1, 2, 3)]
    assert folded[0] == whole.digest
    assert len({*folded}) == 3


def test_folds_leave_all_else_of_the_protocol_as_it_is() -> None:
    whole, folded = (protocol_for(SPLITS, seed=3, folds=folds) for folds in (1, 4))
    assert dataclasses.replace(folded, folds=1) == whole


def test_validation_scores_are_the_direct_formula() -> None:
    protocol = dataclasses.replace(EVALUATOR.protocol, bandwidth="grid")
    samples = known_samples()
    scores = Evaluator(SPLITS, protocol).validation(samples)
    pixels, labels = SPLITS.validation.pixels, SPLITS.validation.condition_tensor
    assert labels is not None
    grid = [10 ** (k / 9 - 1) for k in range(10)]
    best = max(grid, key=lambda s: float(direct(pixels[:10], samples.images, s).mean()))
    pooled = direct(pixels[10:], samples.images, best)
    conditional = direct_conditional(pixels[10:], labels[10:], samples, best)
    assert scores.bandwidth == pytest.approx(best, rel=1e-12)
    assert scores.log_likelihood == pytest.approx(float(pooled.mean()), abs=1e-3)
    assert scores.standard_error == pytest.approx(float(pooled.std()) / 30**0.5, rel=1e-3)
    assert scores.conditional_log_likelihood == pytest.approx(float(conditional.mean()), abs=1e-3)
    assert scores.conditional_points is not None
    torch.testing.assert_close(scores.points, pooled.float(), rtol=0, atol=1e-3)
    torch.testing.assert_close(scores.conditional_points, conditional.float(), rtol=0, atol=1e-3)
    assert (scores.num_points, scores.num_samples) == (30, 45)


def test_exact_bandwidth_beats_the_grid_on_the_points_that_choose_it() -> None:
    samples, points = known_samples(), SPLITS.validation.pixels[:10]
    found = {
        method: float(direct(points, samples.images, EVALUATOR.bandwidth(samples, method)).mean())
        for method in ("grid", "exact")
    }
    assert found["exact"] >= found["grid"]


def test_test_scores_use_every_test_point_and_the_given_bandwidth() -> None:
    samples = known_samples()
    scores = EVALUATOR.test(samples, 0.21)
    pooled = direct(SPLITS.test.pixels, samples.images, 0.21)
    assert (scores.num_points, scores.bandwidth) == (30, 0.21)
    assert scores.log_likelihood == pytest.approx(float(pooled.mean()), abs=1e-3)


def assert_same_scores(found: Scores, expected: Scores, nats: float = 0.0) -> None:
    for field in dataclasses.fields(Scores):
        value, other = getattr(found, field.name), getattr(expected, field.name)
        if value is None or other is None:
            assert value is other
        else:
            torch.testing.assert_close(
                torch.as_tensor(value), torch.as_tensor(other), rtol=0, atol=nats
            )


@pytest.mark.parametrize("conditions", ["labels", "vectors", "none"])
def test_members_are_scored_together_as_alone(conditions: str) -> None:
    splits = tiny_splits(conditions)
    evaluator = Evaluator(splits, protocol_for(splits))
    members = [Member(tiny_config(g_init_range=1.0), evaluator.examples, seed=s) for s in range(3)]
    population = [evaluator.draw(member.generator, tiny_config()) for member in members]
    population.insert(1, Samples(known_samples().images, None))  # without labels, beside others
    together = evaluator.validations(iter(population))
    fresh = [Evaluator(splits, evaluator.protocol).validation(samples) for samples in population]
    for found, alone in zip(together, fresh, strict=True):
        assert_same_scores(found, alone)
    assert len({scores.log_likelihood for scores in together}) == 4
    assert evaluator.validations([]) == []


def test_real_digits_are_scored_together_as_alone() -> None:
    splits = load_digits("a test")
    evaluator = Evaluator(splits, Protocol(splits.digest, 1_000, 100, 10))
    population = [real_images(evaluator), untrained(evaluator)]
    together = evaluator.validations(population)
    for found, samples in zip(together, population, strict=True):
        assert_same_scores(found, evaluator.validation(samples))


def test_a_score_leaves_the_samples_and_the_points_as_they_are() -> None:
    samples, fresh = known_samples(), Evaluator(SPLITS, EVALUATOR.protocol)
    before = fresh.validation(samples)
    fresh.test(samples, 0.2)
    assert_same_scores(fresh.validation(samples), before)
    assert torch.equal(samples.images, known_samples().images)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_gpu_scores_as_a_cpu_does() -> None:
    splits = load_digits("a test")
    protocol = Protocol(splits.digest, 1_000, 100, 10)
    here, there = Evaluator(splits, protocol), Evaluator(splits, protocol, "cuda")
    population = FusedPopulation(there.examples, 2, "cuda")
    config = MLPConfig.paper()
    member = population.join(config, seed=1)
    population.advance([member], 20)
    drawn = there.draw(member.generator, config)
    assert drawn.images.is_cuda
    for samples in (drawn, real_images(there)):
        expected = here.validation(samples.to(torch.device("cpu")))
        assert_same_scores(there.validation(samples), expected, nats=1e-3)
        tested = here.test(samples.to(torch.device("cpu")), 0.2)
        assert_same_scores(there.test(samples, 0.2), tested, nats=1e-3)
    population.leave(member)
    on_cpu = here.draw(member.generator, config)
    torch.testing.assert_close(drawn.images.cpu(), on_cpu.images, rtol=0, atol=1e-5)


def test_shuffled_labels_cost_the_conditional_score_alone() -> None:
    samples = known_samples()
    assert samples.conditions is not None
    shuffled = Samples(samples.images, samples.conditions.roll(1))
    right, wrong = EVALUATOR.test(samples, 0.15), EVALUATOR.test(shuffled, 0.15)
    assert wrong.log_likelihood == pytest.approx(right.log_likelihood, abs=1e-3)
    assert right.conditional_log_likelihood is not None
    assert wrong.conditional_log_likelihood is not None
    assert wrong.conditional_log_likelihood < right.conditional_log_likelihood - 5
    line = reference_lines(EVALUATOR, samples, kmeans=False)["label_shuffled"]
    assert line is not None
    assert line < right.conditional_log_likelihood - 1  # a third keep their label by chance


@pytest.mark.parametrize("conditions", ["vectors", "none"])
def test_without_labels_nothing_is_conditional(conditions: str) -> None:
    splits = tiny_splits(conditions)
    evaluator = Evaluator(splits, protocol_for(splits))
    member = Member(tiny_config(), evaluator.examples, seed=0)
    samples = evaluator.draw(member.generator, tiny_config())
    scores = evaluator.validation(samples)
    assert (samples.conditions is None) == (conditions == "none")
    assert scores.conditional_log_likelihood is None
    assert scores.conditional_points is None
    lines = reference_lines(evaluator, samples, kmeans=False)
    assert (lines["label_shuffled"], lines["class_means"]) == (None, None)
    assert lines["real_data"] is not None


def drawn_by(
    evaluator: Evaluator, noise_draw: int = 0, which: SampleSet = "first"
) -> tuple[Tensor, Tensor]:
    """What a generator is given, in all its calls together."""
    given: list[tuple[Tensor, Tensor]] = []

    def generate(noise: Tensor, condition: Tensor | None) -> Tensor:
        assert condition is not None
        given.append((noise, condition))
        return noise

    evaluator.draw(generate, tiny_config(noise_dim=16), noise_draw, which)
    return torch.cat([z for z, _ in given]), torch.cat([y for _, y in given])


def test_noise_is_common_to_all_generators_of_a_study() -> None:
    other_seed = dataclasses.replace(EVALUATOR.protocol, seed=1)
    noise, labels = drawn_by(EVALUATOR)
    again, _ = drawn_by(Evaluator(SPLITS, EVALUATOR.protocol))
    fresh, _ = drawn_by(Evaluator(SPLITS, other_seed))
    assert torch.equal(noise, again)
    assert not torch.equal(noise, fresh)
    assert labels.bincount().tolist() == [15, 15, 15]


def test_the_search_is_scored_on_the_noise_of_before_there_was_other() -> None:
    noise, _ = drawn_by(EVALUATOR)
    expected = stream(EVALUATOR.protocol.seed, "evaluation noise").random((45, 16), np.float32)
    assert torch.equal(noise, torch.from_numpy(expected))


@pytest.mark.parametrize("conditions", ["labels", "vectors"])
def test_each_draw_and_each_set_of_it_is_another_and_common_to_all(conditions: str) -> None:
    splits = tiny_splits(conditions)
    protocol = protocol_for(splits)
    first, again = Evaluator(splits, protocol), Evaluator(splits, protocol)
    sets: list[SampleSet] = ["first", "second"]
    drawn = [drawn_by(first, draw, which) for which in sets for draw in range(3)]
    common = [drawn_by(again, draw, which) for which in sets for draw in range(3)]
    for mine, other in zip(drawn, common, strict=True):
        assert torch.equal(mine[0], other[0])
        assert torch.equal(mine[1], other[1])
    assert len({noise.numpy().tobytes() for noise, _ in drawn}) == 6
    kinds = {given.numpy().tobytes() for _, given in drawn}
    assert len(kinds) == (1 if conditions == "labels" else 6)


def test_dropout_is_off_in_samples() -> None:
    member = Member(tiny_config(g_dropout=0.9, g_init_range=1.0), EVALUATOR.examples, seed=0)
    first, second = (EVALUATOR.draw(member.generator, tiny_config()) for _ in range(2))
    assert torch.equal(first.images, second.images)
    z = torch.zeros(1, 5)
    assert torch.equal(
        member.generator(z, torch.tensor([0])), member.generator(z, torch.tensor([0]))
    )


@pytest.mark.parametrize(
    ("value", "message"),
    [(math.nan, "from nan to nan"), (-1.0, "from -1 to 0.5"), (1.5, "from 0.5 to 1.5")],
)
def test_samples_that_are_no_images_are_refused(value: float, message: str) -> None:
    def generate(noise: Tensor, condition: Tensor | None) -> Tensor:
        images = torch.full((len(noise), 16), 0.5)
        images[0, 0] = value
        return images

    with pytest.raises(
        SampleError, match=f"`0 <= sample <= 1` must hold, but got values {message}"
    ):
        EVALUATOR.draw(generate, tiny_config(noise="gaussian", noise_dim=3))


def test_real_images_are_distinct_and_even() -> None:
    samples = real_images(EVALUATOR)
    assert samples.conditions is not None
    assert samples.conditions.bincount().tolist() == [15, 15, 15]
    assert len(samples.images.unique(dim=0)) == 45
    distances = torch.cdist(samples.images.double(), SPLITS.train.pixels.double())
    assert distances.min(1).values.max() < 1e-6


def test_class_means_are_the_means() -> None:
    samples = class_means(EVALUATOR)
    assert samples is not None
    for label in range(3):
        rows = SPLITS.train.images[SPLITS.train.conditions == label].reshape(-1, 16)
        np.testing.assert_allclose(samples.images[label], rows.mean(0) / 255, atol=1e-6)


def test_untrained_generator_shows_the_mean_image() -> None:
    samples = untrained(EVALUATOR)
    mean = SPLITS.train.pixels.mean(0)
    assert (samples.images.mean(0) - mean).abs().max() < 0.05
    assert samples.images.shape == (45, 16)


def starting_centers(evaluator: Evaluator) -> Tensor:
    order = stream(evaluator.protocol.seed, "k-means").permutation(len(evaluator.examples))
    return SPLITS.train.pixels[torch.from_numpy(order[: evaluator.protocol.num_samples])]


def test_centroids_are_those_of_scikit_learn() -> None:
    evaluator = Evaluator(SPLITS, dataclasses.replace(EVALUATOR.protocol, num_samples=6))
    start = starting_centers(evaluator).double().numpy()
    theirs = KMeans(6, init=start, n_init=1, max_iter=10, tol=0, algorithm="lloyd")
    theirs.fit(SPLITS.train.pixels.double().numpy())
    ours = centroids(evaluator)
    np.testing.assert_allclose(ours.images, theirs.cluster_centers_, atol=1e-5)
    assert ours.conditions is None


def test_each_round_of_k_means_lowers_the_objective(monkeypatch: pytest.MonkeyPatch) -> None:
    evaluator = Evaluator(SPLITS, dataclasses.replace(EVALUATOR.protocol, num_samples=6))
    objectives = []
    for rounds in range(6):
        monkeypatch.setattr("cgan_core.references.KMEANS_ITERATIONS", rounds)
        distances = torch.cdist(SPLITS.train.pixels.double(), centroids(evaluator).images.double())
        objectives.append(float(distances.min(1).values.square().sum()))
    assert objectives == sorted(objectives, reverse=True)
    assert objectives[1] < objectives[0]


def test_reference_lines_of_real_digits_are_in_order() -> None:
    splits = load_digits("a test")
    protocol = Protocol(splits.digest, 1_000, 100, 10)
    lines = reference_lines(Evaluator(splits, protocol))
    order = [lines[name] for name in ("kmeans", "real_data", "class_means", "untrained")]
    values = [value for value in order if value is not None]
    assert len(values) == 4
    assert values == sorted(values, reverse=True)
    assert lines["label_shuffled"] is None


def test_best_state_is_kept() -> None:
    member, best = Member(tiny_config(), Examples(SPLITS), seed=0), BestState()
    assert best.offer(-50.0, 1.0, member.generator)
    kept = best.parameters
    assert kept is not None
    held = {name: value.clone() for name, value in kept.items()}
    member.advance(1)
    assert not best.offer(math.nan, 2.0, member.generator)
    assert not best.offer(-50.0, 2.0, member.generator)
    assert (best.score, best.kimg, best.parameters) == (-50.0, 1.0, kept)
    assert all(torch.equal(kept[name], held[name]) for name in held)
    assert best.offer(-49.0, 3.0, member.generator)
    assert best.kimg == 3.0
