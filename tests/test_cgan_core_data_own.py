import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cgan_core.data import DataError, LabeledImages, load_data
from cgan_core.data.digits import DIGITS

GENERATOR = np.random.default_rng(0)
IMAGES = GENERATOR.integers(256, size=(100, 4, 5), dtype=np.uint8)
LABELS = np.arange(100) % 3
VECTORS = GENERATOR.standard_normal((100, 6)).astype(np.float32)
SPLIT = np.arange(100) % 3


def _save(folder: Path, **arrays: Any) -> Path:
    path = folder / "own.npz"
    np.savez(path, **arrays)
    return path


def _conditions(split: LabeledImages) -> np.ndarray:
    assert split.conditions is not None
    return split.conditions


def test_labels_are_cut_by_class_and_shuffled_by_seed(tmp_path: Path) -> None:
    path = _save(tmp_path, images=IMAGES, labels=LABELS.astype(np.uint8))
    splits = load_data(path=path)
    parts = (splits.train, splits.validation, splits.test)
    assert [len(part) for part in parts] == [70, 20, 10]
    assert (splits.name, splits.source, splits.num_classes) == ("own", "own.npz", 3)
    assert (splits.subset, splits.notice) == (False, None)
    label_of = {image.tobytes(): label for image, label in zip(IMAGES, LABELS, strict=True)}
    seen = set()
    for part in parts:
        for image, label in zip(part.images, _conditions(part), strict=True):
            assert label_of[image.tobytes()] == label
            seen.add(image.tobytes())
    assert len(seen) == 100
    assert splits.digest == load_data(path=str(path)).digest
    assert splits.digest != load_data(path=path, seed=1).digest


@pytest.mark.parametrize("names", [False, True])
def test_given_split_is_kept_and_shuffled(tmp_path: Path, names: bool) -> None:
    split = np.array(["train", "validation", "test"])[SPLIT] if names else SPLIT.astype(np.int8)
    splits = load_data(path=_save(tmp_path, images=IMAGES, conditions=VECTORS, split=split))
    assert splits.num_classes is None
    got = _conditions(splits.validation)
    want = VECTORS[SPLIT == 1]
    assert not np.array_equal(got, want)
    assert np.array_equal(np.sort(got, axis=0), np.sort(want, axis=0))


def test_coloured_unconditional_images(tmp_path: Path) -> None:
    splits = load_data(path=_save(tmp_path, images=np.stack([IMAGES] * 3, axis=-1)))
    assert splits.image_shape == (4, 5, 3)
    assert splits.train.conditions is None
    assert splits.train.pixels.shape == (70, 60)


def test_the_bundle_is_itself_such_a_file() -> None:
    splits = load_data(path=DIGITS)
    assert (len(splits.train), splits.num_classes) == (7000, 10)


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "float images": (
        {"images": IMAGES / 255},
        r"images must be uint8 .*got float64 \(100, 4, 5\)",
    ),
    "flat images": ({"images": IMAGES.reshape(100, 20)}, r"images must have shape .*\(100, 20\)"),
    "no pixels": ({"images": IMAGES[:, :0]}, r"images must have shape .*\(100, 0, 5\)"),
    "no images": ({"images": IMAGES[:0]}, r"images must have shape .*\(0, 4, 5\)"),
    "no image key": ({"labels": LABELS}, r"key 'images' must be there, .*\['labels'\]"),
    "near key": ({"images": IMAGES, "label": LABELS}, "but got 'label'; rename it to 'labels'"),
    "far key": ({"images": IMAGES, "zzz": LABELS}, "but got 'zzz'; leave it out"),
    "both": (
        {"images": IMAGES, "labels": LABELS, "conditions": VECTORS},
        "labels and conditions must not both be there",
    ),
    "lengths": (
        {"images": IMAGES, "labels": LABELS[:7]},
        r"labels must have one row for each of the 100 images, but got shape \(7,\)",
    ),
    "float labels": ({"images": IMAGES, "labels": LABELS / 1}, "labels must be integers"),
    "one-hot labels": ({"images": IMAGES, "labels": np.eye(3, dtype=int)[LABELS]}, "labels must"),
    "negative": ({"images": IMAGES, "labels": LABELS - 1}, "labels must lie in 0.*but got -1"),
    "outside": (
        {"images": IMAGES, "labels": LABELS, "num_classes": 2},
        r"labels must lie in 0\.\.1, but got 2",
    ),
    "gap": (
        {"images": IMAGES, "labels": LABELS * 2},
        r"every class of 0\.\.4 must be in the training split, but 2 are not, class 1 first",
    ),
    "missing class": (
        {"images": IMAGES, "labels": LABELS, "num_classes": 9},
        "but 6 are not, class 3 first",
    ),
    "huge label": (
        {"images": IMAGES, "labels": np.where(LABELS > 1, 10**15, LABELS)},
        "class 2 first",
    ),
    "class only in test": ({"images": IMAGES, "labels": LABELS, "split": SPLIT}, "2 are not"),
    "num_classes shape": (
        {"images": IMAGES, "labels": LABELS, "num_classes": [3]},
        "num_classes must be one integer",
    ),
    "num_classes alone": ({"images": IMAGES, "num_classes": 3}, "num_classes needs labels"),
    "flat conditions": ({"images": IMAGES, "conditions": VECTORS[:, 0]}, r"shape \(n, c\)"),
    "integer conditions": (
        {"images": IMAGES, "conditions": np.eye(3, dtype=int)[LABELS]},
        "float",
    ),
    "NaN": (
        {"images": IMAGES, "conditions": np.where(np.eye(100, 6, k=-6), np.nan, VECTORS)},
        r"finite in float32, but row 6, column 0 is nan; .*\(6 of them\)",
    ),
    "too large": (
        {"images": IMAGES, "conditions": VECTORS.astype(float) * 1e99},
        "finite in float32",
    ),
    "constant": ({"images": IMAGES, "conditions": np.ones((100, 2))}, "conditions must vary"),
    "split value": ({"images": IMAGES, "split": SPLIT + 1}, "split must hold .*but got '3'"),
    "split word": ({"images": IMAGES, "split": np.array(["dev"] * 100)}, "but got 'dev'"),
    "split type": ({"images": IMAGES, "split": SPLIT / 1}, "split must be integers or strings"),
    "empty split": (
        {"images": IMAGES, "split": SPLIT * 0},
        "every split must have images, but got train=100, validation=0, test=0",
    ),
    "too few": ({"images": IMAGES[:3]}, "train=2, validation=1, test=0"),
    "objects": ({"images": IMAGES, "labels": np.array([None] * 100)}, "Python objects"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_file_gives_one_message_that_names_it(tmp_path: Path, case: str) -> None:
    arrays, message = BAD[case]
    with pytest.raises(DataError, match=message) as caught:
        load_data(path=_save(tmp_path, **arrays))
    assert str(caught.value).startswith(f"{tmp_path / 'own.npz'}: ")
    assert "\n" not in str(caught.value)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="file must exist, but there is none"):
        load_data(path=tmp_path / "none.npz")


def test_no_archive(tmp_path: Path) -> None:
    path = tmp_path / "own.npz"
    path.write_text("images")
    with pytest.raises(DataError, match="must be an npz archive, but is none"):
        load_data(path=path)
    np.save(tmp_path / "own.npy", IMAGES)
    with pytest.raises(DataError, match="must be an npz archive, but is none"):
        load_data(path=tmp_path / "own.npy")


def test_any_damage_gives_a_message_and_never_other_data(tmp_path: Path) -> None:
    path = _save(tmp_path, images=IMAGES, labels=LABELS)
    want = load_data(path=path).digest
    good = path.read_bytes()
    chance = random.Random(0)
    refused = 0
    for _ in range(300):
        bad = bytearray(good)
        if chance.random() < 0.3:
            del bad[chance.randrange(len(bad)) :]
        else:
            for _ in range(chance.choice((1, 8))):
                bad[chance.randrange(len(bad))] ^= 1 << chance.randrange(8)
        path.write_bytes(bad)
        try:
            # Some bytes of a zip (time stamps, say) carry no data.
            assert load_data(path=path).digest == want
        except DataError as error:
            refused += str(path) in str(error)
    assert refused > 200


def test_truncated_bundle(tmp_path: Path) -> None:
    path = tmp_path / "own.npz"
    shutil.copy(DIGITS, path)
    path.write_bytes(path.read_bytes()[:-5000])
    with pytest.raises(DataError, match="npz file is truncated or corrupt"):
        load_data(path=path)
