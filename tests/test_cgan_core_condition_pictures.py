import dataclasses

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from tiny_data import tiny_config, tiny_splits

from cgan_core.condition_pictures import (
    beside_nearest,
    completions,
    noise_of,
    sensitivities,
    walk,
)
from cgan_core.data import LabeledImages
from cgan_core.data.masks import Mask
from cgan_core.families import FAMILIES
from cgan_core.model import Model
from cgan_core.networks import ConditionKind
from cgan_core.traits import LinearTrait, trait_splits

WIDTH = 3


def model_of(width: int = WIDTH) -> Model:
    config, kind = tiny_config(noise="gaussian"), ConditionKind(width, labels=False)
    torch.manual_seed(0)
    network = FAMILIES[config.family].generator(config, (4, 4), kind)
    state = {name: torch.randn_like(value) for name, value in network.state_dict().items()}
    return Model.of(config, (4, 4), kind, state)


@pytest.fixture
def drawn() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    conditions = rng.normal(size=(400, WIDTH)).astype(np.float32)
    odds = conditions @ np.array([2.0, -1.0, 0.0]) + 0.7
    trait = (rng.random(400) < 1 / (1 + np.exp(-odds))).astype(np.int64)
    trait[::5] = -1
    return conditions, trait


def test_a_linear_trait_is_the_logistic_regression_of_what_is_known(
    drawn: tuple[np.ndarray, np.ndarray],
) -> None:
    conditions, trait = drawn
    found = LinearTrait.fit(conditions, trait)
    known = trait >= 0
    expected = LogisticRegression(C=1.0, tol=1e-8).fit(conditions[known], trait[known])
    np.testing.assert_allclose(found.weights, expected.coef_[0], rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(found.bias, expected.intercept_[0], rtol=1e-3)
    assert np.array_equal(found.has(conditions), expected.predict(conditions) == 1)


def test_a_walk_moves_along_one_trait_with_the_noise_held(
    drawn: tuple[np.ndarray, np.ndarray],
) -> None:
    conditions, trait = drawn
    linear, model, start = LinearTrait.fit(conditions, trait), model_of(), conditions[:2]
    log_odds = (-4.0, 0.0, 4.0)
    images = walk(model, start, linear, log_odds)
    assert images.shape == (6, 16)
    z = noise_of(model, 2)
    for column, value in enumerate(log_odds):
        y = linear.towards(start, value)
        np.testing.assert_allclose(linear.log_odds(y), value, atol=1e-4)
        apart = np.cross(y - start, linear.weights)
        np.testing.assert_allclose(apart, 0, atol=1e-4)
        at_value = images.unflatten(0, (2, -1))[:, column]
        torch.testing.assert_close(at_value, model.images(z, torch.from_numpy(y)))


def test_each_image_has_its_nearest_training_image_beside_it() -> None:
    images, training = torch.rand(5, 16), torch.rand(30, 16)
    pairs = beside_nearest(images, training)
    assert torch.equal(pairs[::2], images)
    nearest = torch.cdist(images.double(), training.double()).argmin(1)
    assert torch.equal(pairs[1::2], training[nearest])


def test_completions_show_the_truth_what_was_seen_and_what_was_made_of_it() -> None:
    pictures = np.random.default_rng(0).integers(0, 256, (2, 4, 4), dtype=np.uint8)
    visible = torch.from_numpy(Mask.of("left_half", (4, 4)).visible(pictures))
    truth = torch.from_numpy(pictures.reshape(2, -1)).float() / 255
    model = model_of(16)
    y = visible * 2 - 1
    rows = completions(model, truth, visible, y, 3).unflatten(0, (2, 5))
    assert torch.equal(rows[:, 0], truth)
    assert torch.equal(rows[:, 1], visible)
    z = noise_of(model, 3)
    torch.testing.assert_close(rows[1, 2:], model.images(z, y[1].expand(3, -1)))


def test_sensitivities_are_zero_where_nothing_changes() -> None:
    model = model_of()
    by_y, by_z = sensitivities(model, torch.randn(1, WIDTH).repeat(8, 1))
    assert by_y == 0 < by_z


def test_trait_splits_hold_the_known_images_alone() -> None:
    tiny = tiny_splits("vectors")

    def with_trait(part: LabeledImages) -> LabeledImages:
        trait = np.arange(len(part)) % 3 - 1
        return LabeledImages(part.images, part.conditions, {"smile": trait})

    train = with_trait(tiny.train)
    validation, test = with_trait(tiny.validation), with_trait(tiny.test)
    splits = dataclasses.replace(tiny, train=train, validation=validation, test=test)
    found = trait_splits(splits, "smile")
    assert found.num_classes == 2
    assert found.train.conditions is not None
    assert found.train.conditions.tolist() == [0, 1] * 20
    kept = train.images[np.arange(60) % 3 > 0]
    assert np.array_equal(found.train.images, kept)
