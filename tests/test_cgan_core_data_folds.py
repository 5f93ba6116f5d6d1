import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_data import tiny_splits

from cgan_core.data import LabeledImages
from cgan_core.data.folds import assign_folds, leave_out

SEEDS = st.integers(0, 2**63 - 1)
LABELS = st.lists(st.integers(0, 4), min_size=1, max_size=120).map(
    lambda labels: np.array(labels, np.int64)
)


def spread(counts: np.ndarray) -> int:
    return int(counts.max() - counts.min())


@given(labels=LABELS, seed=SEEDS, data=st.data())
def test_folds_share_every_class_as_evenly_as_can_be(
    labels: np.ndarray, seed: int, data: st.DataObject
) -> None:
    folds = data.draw(st.integers(1, len(labels)))
    assigned = assign_folds(len(labels), folds, seed, labels)
    assert spread(np.bincount(assigned, minlength=folds)) <= 1
    for label in np.unique(labels):
        assert spread(np.bincount(assigned[labels == label], minlength=folds)) <= 1
    np.testing.assert_array_equal(assigned, assign_folds(len(labels), folds, seed, labels))


@given(count=st.integers(1, 200), seed=SEEDS, data=st.data())
def test_folds_without_classes_are_even(count: int, seed: int, data: st.DataObject) -> None:
    folds = data.draw(st.integers(1, count))
    assigned = assign_folds(count, folds, seed)
    assert spread(np.bincount(assigned, minlength=folds)) <= 1
    assert set(assigned) == set(range(folds))


def test_another_seed_deals_otherwise() -> None:
    labels = np.arange(90) % 3
    first, second = (assign_folds(90, 3, seed, labels) for seed in (1, 2))
    assert (first != second).any()
    assert (assign_folds(90, 3, 1) != first).any()  # classes matter


def test_images_of_a_class_are_shuffled_before_they_are_dealt() -> None:
    assigned = assign_folds(3_000, 3, 0, np.arange(3_000) // 1_500)
    halves = np.bincount(assigned[:750], minlength=3)  # of one class
    assert halves.sum() == 750
    assert halves.min() > 200  # 250 expected, standard deviation 9
    assert (assigned[:1_500] != np.arange(1_500) % 3).mean() > 0.5


def images_of(part: LabeledImages) -> list[bytes]:
    conditions = [b""] * len(part) if part.conditions is None else part.conditions
    return [
        image.tobytes() + bytes(condition)
        for image, condition in zip(part.images, conditions, strict=True)
    ]


@pytest.mark.parametrize("conditions", ["labels", "vectors", "none"])
def test_each_training_image_is_held_out_once_with_its_condition(conditions: str) -> None:
    splits = tiny_splits(conditions)
    held_out: list[bytes] = []
    for fold in range(4):
        rest, part = leave_out(splits, fold, folds=4, seed=7)
        assert sorted(images_of(rest.train) + images_of(part)) == sorted(images_of(splits.train))
        assert rest.validation is splits.validation
        assert rest.test is splits.test
        assert (len(part), len(rest.train)) == (15, 45)
        held_out += images_of(part)
    assert sorted(held_out) == sorted(images_of(splits.train))


def test_what_is_held_out_keeps_its_stored_order() -> None:
    splits = tiny_splits()
    _, part = leave_out(splits, 1, folds=2, seed=0)
    places = [images_of(splits.train).index(image) for image in images_of(part)]
    assert places == sorted(places)


@pytest.mark.parametrize(("fold", "folds"), [(-1, 2), (2, 2), (0, 1)])
def test_a_fold_that_is_not_there_is_refused(fold: int, folds: int) -> None:
    with pytest.raises(ValueError, match=rf"but got fold={fold}, folds={folds}"):
        leave_out(tiny_splits(), fold, folds, seed=0)


@pytest.mark.parametrize("folds", [0, 4])
def test_folds_that_nothing_fills_are_refused(folds: int) -> None:
    with pytest.raises(ValueError, match=rf"`1 <= folds <= 3` must hold, but got folds={folds}"):
        assign_folds(3, folds, seed=0)
