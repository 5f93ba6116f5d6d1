"""Faces: cut by whole persons, conditions standardised, traits kept apart."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cgan_core.data import DataError, DataSplits, LabeledImages, load_data
from cgan_core.data.folds import assign_folds, leave_out
from cgan_core.data.lfwcrop import halved, read_lfwcrop
from cgan_core.data.partition import grouped_partition

REAL = Path(os.environ.get("CGAN_DATA_DIR", "")) / "lfwcrop_grey.npz"
UNKNOWN = [3, 77]  # rows without attributes


def face_arrays(count: int = 400) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    attributes = (rng.standard_normal((count, 4)) * [1, 9, 0, 1] + [0, 5, 2, 0]).astype(np.float32)
    attributes[UNKNOWN, 1] = np.nan
    person = np.minimum(rng.geometric(0.03, count), 120).astype(np.int32)  # some have many
    return {
        "images": rng.integers(256, size=(count, 64, 64), dtype=np.uint8),
        "attributes": attributes,
        "male": rng.integers(-1, 2, size=count).astype(np.int8),
        "smile": rng.integers(-1, 2, size=count).astype(np.int8),
        "person": person,
    }


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("faces") / "lfwcrop_grey.npz"
    np.savez(path, **face_arrays())
    return path


def parts_of(splits: DataSplits) -> tuple[LabeledImages, LabeledImages, LabeledImages]:
    return splits.train, splits.validation, splits.test


def check_persons_apart(splits: DataSplits) -> None:
    seen: set[int] = set()
    for part in parts_of(splits):
        assert part.groups is not None
        persons = set(part.groups.tolist())
        assert not persons & seen
        seen |= persons


def test_nobody_is_on_two_sides_and_all_is_kept_together(file: Path) -> None:
    splits, arrays = read_lfwcrop(file, 64, "test"), face_arrays()
    check_persons_apart(splits)
    assert [len(part) for part in parts_of(splits)] == [318, 40, 40]
    row_of = {image.tobytes(): k for k, image in enumerate(arrays["images"])}
    rows = [row_of[image.tobytes()] for part in parts_of(splits) for image in part.images]
    assert sorted(rows) == [k for k in range(400) if k not in UNKNOWN]
    for name in ("male", "smile"):
        traits = np.concatenate([part.traits[name] for part in parts_of(splits)])
        np.testing.assert_array_equal(traits, arrays[name][rows])
    raw = arrays["attributes"][rows]
    standard = splits.standardization
    assert standard is not None
    made = np.concatenate([part.conditions for part in parts_of(splits)])
    np.testing.assert_array_equal(made, standard.apply(raw))


def test_conditions_are_standardised_on_the_training_split_alone(file: Path) -> None:
    splits = read_lfwcrop(file, 64, "test")
    train, validation = splits.train.conditions, splits.validation.conditions
    assert train is not None
    assert validation is not None
    np.testing.assert_allclose(train.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(train.std(0), [1, 1, 0, 1], atol=1e-5)
    assert abs(validation.mean(0)[[0, 1, 3]]).min() > 1e-4
    assert splits.condition_names == tuple(f"component_{k}" for k in range(4))


def test_the_small_size_is_the_mean_of_2_x_2_pixels(file: Path) -> None:
    large, small = (read_lfwcrop(file, size, "test") for size in (64, 32))
    assert small.image_shape == (32, 32)
    means = large.test.images.reshape(-1, 32, 2, 32, 2).astype(np.float64).mean((2, 4))
    np.testing.assert_array_equal(small.test.images, np.floor(means + 0.5))
    assert small.digest != large.digest
    assert halved(np.array([[[0, 1], [1, 0]]], np.uint8)).tolist() == [[[1]]]


def test_traits_are_no_part_of_the_data_that_are_learnt(file: Path, tmp_path: Path) -> None:
    arrays = face_arrays()
    np.savez(tmp_path / "other.npz", **(arrays | {"smile": -arrays["smile"]}))
    assert read_lfwcrop(tmp_path / "other.npz", 64, "").digest == read_lfwcrop(file, 64, "").digest


def test_folds_keep_persons_whole_and_sizes_even(file: Path) -> None:
    splits = read_lfwcrop(file, 32, "test")
    found = [leave_out(splits, fold, 4, 7) for fold in range(4)]
    assert sum(len(out) for _, out in found) == len(splits.train)
    for rest, out in found:
        assert rest.train.groups is not None
        assert out.groups is not None
        assert not set(rest.train.groups) & set(out.groups)
        assert {*out.traits} == {"male", "smile"}
        assert abs(len(out) - len(splits.train) / 4) < 5
    with pytest.raises(ValueError, match="`1 <= folds <= 2` must hold, but got folds=3"):
        assign_folds(9, 3, 0, groups=np.arange(9) // 5)


def test_large_groups_may_come_to_any_side() -> None:
    groups = np.concatenate([np.zeros(30, np.int64), np.arange(1, 571)])
    sides = set()
    for seed in range(40):
        codes = grouped_partition(groups, (0.7, 0.2, 0.1), np.random.default_rng(seed))
        assert np.bincount(codes).tolist() == [420, 120, 60]
        assert len(set(codes[:30])) == 1
        sides.add(int(codes[0]))
    assert sides == {0, 1, 2}


@pytest.fixture
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty data folder and an empty cache."""
    monkeypatch.setenv("CGAN_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("CGAN_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path


def test_a_missing_other_or_misnamed_file_is_refused(nowhere: Path, file: Path) -> None:
    with pytest.raises(DataError, match=r"lfwcrop_grey\.npz, .*CGAN_DATA_DIR.*lfw_people"):
        load_data("lfwcrop", size=32)
    (nowhere / "lfwcrop_grey.npz").write_bytes(file.read_bytes())
    with pytest.raises(DataError, match=r"must have SHA-256 ef4d8e0e.*replace the file"):
        load_data("lfwcrop", size=32)
    with pytest.raises(DataError, match="size of lfwcrop must be 64 or 32, but got 48"):
        load_data("lfwcrop", size=48)
    with pytest.raises(DataError, match=r"data\.size: the pictures of mnist keep their size"):
        load_data("mnist", size=32)
    with pytest.raises(DataError, match="conditions needs a path"):
        load_data("lfwcrop", conditions="a.csv")


def test_faces_that_cannot_be_fetched_are_refused(nowhere: Path) -> None:
    with pytest.raises(DataError, match=r"lfw_people is not in .*OSError.*is missing.*download"):
        load_data("lfw_people", size=32, allow_download=False)


def test_faces_as_scikit_learn_keeps_them(nowhere: Path) -> None:
    """Its own fetcher over pictures laid out as its download is, with the area that is cut out."""
    home = nowhere / "cache" / "scikit-learn" / "lfw_home"
    rng = np.random.default_rng(0)
    for person in range(8):
        folder = home / "lfw" / f"Person_{person}"
        folder.mkdir(parents=True)
        for k in range(1 + person % 3):
            pixels = rng.integers(256, size=(250, 250, 1), dtype=np.uint8)
            face = Image.fromarray(np.repeat(pixels, 3, axis=2))
            face.save(folder / f"Person_{person}_{k + 1:04}.bmp")
    for name in ("pairs", "pairsDevTest", "pairsDevTrain"):
        (home / f"{name}.txt").touch()
    splits = load_data("lfw_people", size=84, allow_download=False)
    assert splits.notice is not None
    assert "neither LFWcrop nor attributes" in splits.notice
    check_persons_apart(splits)
    areas = set()
    for path in home.rglob("*.bmp"):
        with Image.open(path) as face:
            areas.add(np.asarray(face)[92:176, 83:167, 0].tobytes())
    assert {image.tobytes() for part in parts_of(splits) for image in part.images} == areas
    for path in home.rglob("*.bmp"):
        path.unlink()  # now from the cache
    again = load_data("lfw_people", size=84, allow_download=False)
    small = load_data(
        "lfw_people", size=21, allow_download=False, condition="masked_image", mask="centre"
    )
    assert again.digest == splits.digest
    assert small.image_shape == (21, 21)
    means = splits.train.images.reshape(-1, 21, 4, 21, 4).astype(float).mean((2, 4))
    assert abs(small.train.images - means).max() <= 1  # Pillow rounds rows, then columns


@pytest.mark.skipif(not REAL.is_file(), reason="CGAN_DATA_DIR holds no lfwcrop_grey.npz")
def test_the_real_faces() -> None:
    splits = load_data("lfwcrop", size=32)
    check_persons_apart(splits)
    assert [len(part) for part in parts_of(splits)] == [10_515, 1_314, 1_314]
    assert splits.digest == "7669a60a73729b471589ef8813b86f3cd082b3c50105acf12524a0795404d255"
    assert splits.train.conditions is not None
    assert splits.train.conditions.shape == (10_515, 30)
    for part in parts_of(splits):
        known = part.traits["male"] >= 0
        assert 0.7 < part.traits["male"][known].mean() < 0.85
