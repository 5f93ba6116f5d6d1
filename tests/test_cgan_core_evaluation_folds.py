"""An evaluator of a fold: what it scores on, what is trained on, and what stays the study's."""

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
import torch
from tiny_data import tiny_config, tiny_splits

from cgan_core.data.folds import leave_out
from cgan_core.evaluation import Evaluator, protocol_for
from cgan_core.samples import Samples

FOLDS, SEED = 3, 5
SPLITS = tiny_splits(train=120)
PROTOCOL = protocol_for(SPLITS, SEED, FOLDS)
STUDY = Evaluator(SPLITS, PROTOCOL)


def samples(count: int = 60) -> Samples:
    """Noisy test images."""
    rng = np.random.default_rng(0)
    rows = rng.integers(len(SPLITS.test), size=count)
    noisy = SPLITS.test.pixels[rows] + torch.from_numpy(rng.normal(0, 0.05, (count, 16))).float()
    labels = SPLITS.test.condition_tensor
    assert labels is not None
    return Samples(noisy.clamp(0, 1), labels[rows])


def direct(points: torch.Tensor, centers: torch.Tensor, sigma: float) -> torch.Tensor:
    """The definition in float64."""
    squares = torch.cdist(points.double(), centers.double()).square()
    volume = points.shape[1] / 2 * math.log(2 * math.pi * sigma**2)
    return (-squares / (2 * sigma**2)).logsumexp(1) - math.log(len(centers)) - volume


@pytest.mark.parametrize("fold", range(FOLDS))
def test_all_of_the_fold_is_scored_and_validation_chooses_sigma(fold: int) -> None:
    given = samples()
    scores = Evaluator(SPLITS, PROTOCOL, fold=fold).validation(given)
    _, held_out = leave_out(SPLITS, fold, FOLDS, SEED)
    assert scores.bandwidth == STUDY.validation(given).bandwidth
    expected = direct(held_out.pixels, given.images, scores.bandwidth)
    torch.testing.assert_close(scores.points, expected.float(), rtol=0, atol=1e-3)
    assert given.conditions is not None
    assert held_out.conditions is not None
    assert scores.conditional_points is not None
    own = [
        direct(point[None], given.images[given.conditions == label], scores.bandwidth)
        for point, label in zip(held_out.pixels, held_out.conditions, strict=True)
    ]
    torch.testing.assert_close(
        scores.conditional_points, torch.cat(own).float(), rtol=0, atol=1e-3
    )


def test_no_image_is_trained_on_that_is_scored() -> None:
    scored = 0
    for fold in range(FOLDS):
        evaluator = Evaluator(SPLITS, PROTOCOL, fold=fold)
        _, held_out = leave_out(SPLITS, fold, FOLDS, SEED)
        distances = torch.cdist(held_out.pixels * 255, evaluator.examples.images.float())
        assert distances.min() > 0
        assert len(evaluator.examples) + len(held_out) == len(SPLITS.train)
        scored += evaluator.validation(samples()).num_points
    assert scored == len(SPLITS.train)


def test_the_density_of_conditions_knows_nothing_of_the_fold() -> None:
    splits = tiny_splits("vectors")
    evaluator = Evaluator(splits, protocol_for(splits, SEED, FOLDS), fold=1)
    rest, _ = leave_out(splits, 1, FOLDS, SEED)
    assert evaluator.examples.density is not None
    np.testing.assert_array_equal(evaluator.examples.density.centers, rest.train.conditions)


def test_the_test_set_and_the_noise_are_those_of_the_study() -> None:
    def generate(noise: torch.Tensor, _: torch.Tensor | None) -> torch.Tensor:
        return noise

    folded = Evaluator(SPLITS, PROTOCOL, fold=0)
    given = samples()
    assert torch.equal(folded.test(given, 0.2).points, STUDY.test(given, 0.2).points)
    drawn = [evaluator.draw(generate, tiny_config(noise_dim=16)) for evaluator in (folded, STUDY)]
    assert torch.equal(drawn[0].images, drawn[1].images)


def test_copies_are_found_out_by_what_was_trained_on() -> None:
    """Of the images of a fold, they are none of the training that left it out."""
    rest, held_out = leave_out(SPLITS, 2, FOLDS, SEED)
    folded = Evaluator(SPLITS, PROTOCOL, fold=2)
    limit = STUDY.guardrails.limits.memorization_ratio
    assert limit is not None
    ratios: list[float] = []
    for part in (rest.train, held_out):
        found = folded.guard(Samples(part.pixels, part.condition_tensor)).memorization_ratio
        assert found is not None
        ratios.append(found)
    assert ratios[0] == 0
    assert ratios[1] > limit
    copied = STUDY.guard(Samples(held_out.pixels, held_out.condition_tensor))
    assert copied.memorization_ratio == 0


def test_all_other_guardrails_are_the_same_for_every_fold() -> None:
    given = samples()
    expected = dataclasses.asdict(STUDY.guard(given))
    for fold in range(FOLDS):
        found: dict[str, Any] = dataclasses.asdict(
            Evaluator(SPLITS, PROTOCOL, fold=fold).guard(given)
        )
        assert found.pop("memorization_ratio") != expected["memorization_ratio"]
        assert found == {key: expected[key] for key in found}


@pytest.mark.parametrize(("fold", "folds"), [(3, 3), (0, 1)])
def test_a_fold_that_the_protocol_has_not_is_refused(fold: int, folds: int) -> None:
    protocol = dataclasses.replace(PROTOCOL, folds=folds)
    with pytest.raises(ValueError, match=f"but got fold={fold}, folds={folds}"):
        Evaluator(SPLITS, protocol, fold=fold)
