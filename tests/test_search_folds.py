from pathlib import Path

import numpy as np
import pytest
from tiny_data import tiny_splits
from tiny_study import content, write_npz

from cgan_core.data.folds import assign_folds
from search.folds import MIN_IMAGES, refusal_of_folds
from search.prepared import PreparedStudy
from search.sections import ReplicationSection
from search.study import StudySpec
from search.study_file import StudyError

SPLITS = tiny_splits()  # 60 training images: 30, 15 and 15 of a class


def test_folds_are_refused_where_a_class_is_too_rare_for_them() -> None:
    assert [refusal_of_folds(folds, SPLITS) for folds in (1, 2, 3)] == [None] * 3
    refusal = refusal_of_folds(4, SPLITS)
    assert refusal == (
        "`folds * 5 <= 15` (training images of class 1 in synthetic) must hold, but got folds=4; "
        "use at most `folds: 3`"
    )


def test_what_is_accepted_gives_every_fold_enough_of_every_class() -> None:
    labels = SPLITS.train.conditions
    assert labels is not None
    assigned = assign_folds(60, 3, 0, labels)
    counts = np.bincount(assigned * 3 + labels, minlength=9)
    assert counts.min() == MIN_IMAGES


@pytest.mark.parametrize("conditions", ["vectors", "none"])
def test_without_classes_all_images_count_alike(conditions: str) -> None:
    splits = tiny_splits(conditions)
    assert refusal_of_folds(12, splits) is None
    refusal = refusal_of_folds(13, splits)
    assert refusal is not None
    assert "`folds * 5 <= 60` (training images in synthetic)" in refusal


def test_folds_of_next_to_nothing_are_all_refused() -> None:
    refusal = refusal_of_folds(2, tiny_splits(train=30))  # 7 of class 2
    assert refusal is not None
    assert refusal.endswith("use `folds: 1`")


def with_folds(tmp_path: Path, folds: int) -> StudySpec:
    """As a study file will say it once several trainings of a configuration are built."""
    spec = StudySpec.from_mapping(content(write_npz(tmp_path / "tiny.npz")))
    replication = ReplicationSection.model_construct(seeds=1, folds=folds)
    return spec.model_copy(update={"replication": replication})


def test_a_study_of_too_many_folds_is_refused_when_its_data_are_known(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match=r"^replication\.folds: `folds \* 5 <= 56` .* folds=20"):
        PreparedStudy(with_folds(tmp_path, 20), tmp_path / "out", resume=False, say=print)


@pytest.mark.parametrize(("folds", "fold"), [(1, None), (4, 0)])
def test_folds_of_a_study_are_in_its_protocol_and_its_first_trial(
    tmp_path: Path, folds: int, fold: int | None
) -> None:
    prepared = PreparedStudy(with_folds(tmp_path, folds), tmp_path, resume=False, say=print)
    assert (prepared.protocol.folds, prepared.protocol.seed) == (folds, prepared.spec.seed)
    trial = prepared.first_trial()
    assert (trial["fold"], trial["noise_draw"]) == (fold, 0)
    assert len(prepared.evaluator.examples) == 168
