import gzip
import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cgan_core.data import DataError, LabeledImages, load_data, mnist
from cgan_core.data.digits import DIGEST
from cgan_core.data.download import DownloadError
from cgan_core.data.idx import idx_bytes, parse_idx
from cgan_core.data.places import cache_folder

MD5 = {
    "x_train": "6bbc9ace898e44ae57da46a324031adb",
    "y_train": "a25bea736e30d166cdddb491f175f624",
    "x_test": "2646ac647ad5339dbf082846283269ea",
    "y_test": "27ae3e4e09519cfbb04c329615203637",
}
Arrays = dict[str, Any]
full = pytest.mark.skipif("CGAN_DATA_DIR" not in os.environ, reason="CGAN_DATA_DIR is not set")


@pytest.fixture
def arrays(monkeypatch: pytest.MonkeyPatch) -> Arrays:
    """A small stand-in for the official arrays: 40 training images, 10,000 for validation."""
    generator = np.random.default_rng(0)
    made = {
        "x_train": generator.integers(256, size=(10_040, 2, 2), dtype=np.uint8),
        "y_train": generator.integers(10, size=10_040, dtype=np.uint8),
        "x_test": generator.integers(256, size=(30, 2, 2), dtype=np.uint8),
        "y_test": generator.integers(10, size=30, dtype=np.uint8),
    }
    checksums = {key: hashlib.sha256(idx_bytes(array)).hexdigest() for key, array in made.items()}
    monkeypatch.setattr(mnist, "OFFICIAL_SHA256", checksums)
    return made


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """An empty data folder and an empty cache, and no network."""
    data, cache = tmp_path / "data", tmp_path / "cache"
    data.mkdir()
    cache.mkdir()
    monkeypatch.setenv("CGAN_DATA_DIR", str(data))
    monkeypatch.setenv("CGAN_CACHE_DIR", str(cache))

    def refuse(checksums: Mapping[str, str], folder: Path) -> None:
        raise DownloadError("no network in tests")

    monkeypatch.setattr(mnist, "download_files", refuse)
    mnist._download_once.cache_clear()
    return data, cache


def _write_idx(folder: Path, arrays: Arrays, dot: bool, zipped: bool) -> None:
    for key, array in arrays.items():
        name = mnist.IDX_NAMES[key].replace("-idx", ".idx" if dot else "-idx")
        content = idx_bytes(array)
        path = folder / (f"{name}.gz" if zipped else name)
        path.write_bytes(gzip.compress(content) if zipped else content)


def _labels(split: LabeledImages) -> np.ndarray:
    assert split.conditions is not None
    return split.conditions


@pytest.mark.parametrize("dot", [False, True])
@pytest.mark.parametrize("zipped", [False, True])
def test_idx_files_equal_the_archive(
    arrays: Arrays, folders: tuple[Path, Path], dot: bool, zipped: bool
) -> None:
    data, cache = folders
    _write_idx(data, arrays, dot, zipped)
    from_idx = load_data(require_full=True)
    for path in data.iterdir():
        path.unlink()
    np.savez_compressed(cache / "mnist.npz", **arrays)
    from_npz = load_data(require_full=True)
    assert (from_idx.source, from_npz.source) == ("CGAN_DATA_DIR", "cache")
    assert from_idx.digest == from_npz.digest
    assert (from_npz.subset, from_npz.notice, from_npz.num_classes) == (False, None, 10)
    assert np.array_equal(from_npz.train.images, arrays["x_train"][:40])
    assert np.array_equal(_labels(from_npz.validation), arrays["y_train"][40:])
    assert np.array_equal(from_npz.test.images, arrays["x_test"])


def test_download_is_asked_once_then_digits_stand_in(
    folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def refuse(checksums: Mapping[str, str], folder: Path) -> None:
        asked.append((dict(checksums), folder))
        raise DownloadError("the network is closed")

    monkeypatch.setattr(mnist, "download_files", refuse)
    splits = load_data(allow_download=False)
    assert splits.notice is not None
    assert "downloading is off" in splits.notice
    assert not asked
    splits = load_data()
    assert splits.digest == DIGEST
    assert splits.notice is not None
    assert "the network is closed" in splits.notice
    load_data()
    assert [folder for _, folder in asked] == [folders[1]]
    with pytest.raises(DataError, match=r"full MNIST is required, but .*closed.*; put mnist\.npz"):
        load_data(require_full=True)


def test_downloaded_files_are_used(
    arrays: Arrays, folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def deliver(checksums: Mapping[str, str], folder: Path) -> None:
        assert list(checksums) == list(mnist.IDX_NAMES.values())
        _write_idx(folder, arrays, dot=False, zipped=True)

    monkeypatch.setattr(mnist, "download_files", deliver)
    assert load_data().source == "download"
    assert load_data().source == "cache"


def test_incomplete_cache_is_no_error_but_an_incomplete_data_folder_is(
    arrays: Arrays, folders: tuple[Path, Path]
) -> None:
    data, cache = folders
    del arrays["y_test"]
    _write_idx(cache, arrays, dot=False, zipped=True)
    assert load_data().subset
    _write_idx(data, arrays, dot=False, zipped=False)
    with pytest.raises(DataError, match=r"all four .*but t10k-labels-idx1-ubyte is missing"):
        load_data()


def test_other_content_is_refused(arrays: Arrays, folders: tuple[Path, Path]) -> None:
    data, _ = folders
    path = data / "mnist.npz"
    for key in arrays:
        changed = arrays | {key: arrays[key] ^ 1}
        np.savez(path, **changed)
        with pytest.raises(DataError, match=rf"mnist\.npz: {key} must be the official .*replace"):
            load_data()
    np.savez(path, **(arrays | {"x_train": arrays["x_train"] / 255}))
    with pytest.raises(DataError, match=r"x_train must be .*float64 \(10040, 2, 2\) has none"):
        load_data()
    np.savez(path, x_train=arrays["x_train"])
    with pytest.raises(DataError, match=r"keys must include .*but y_train is missing"):
        load_data()
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(DataError, match=r"mnist\.npz: npz file is truncated or corrupt"):
        load_data()


@pytest.mark.parametrize("cut", [2, 10, -1])
@pytest.mark.parametrize("zipped", [False, True])
def test_truncated_idx_is_refused(
    arrays: Arrays, folders: tuple[Path, Path], cut: int, zipped: bool
) -> None:
    data, _ = folders
    _write_idx(data, arrays, dot=False, zipped=zipped)
    path = data / ("train-images-idx3-ubyte" + ".gz" * zipped)
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(DataError, match=r"train-images-idx3-ubyte.*replace the file"):
        load_data()


def test_data_folder_must_exist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CGAN_DATA_DIR", str(tmp_path / "none"))
    with pytest.raises(DataError, match="CGAN_DATA_DIR must name a folder"):
        load_data()


def test_cache_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CGAN_CACHE_DIR", "~/there")
    assert cache_folder() == Path.home() / "there"
    monkeypatch.delenv("CGAN_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    assert cache_folder() == Path("/x/cgan-search")


def test_idx_by_hand() -> None:
    content = bytes([0, 0, 8, 2, 0, 0, 0, 2, 0, 0, 0, 3, 1, 2, 3, 4, 5, 6])
    assert parse_idx(content).tolist() == [[1, 2, 3], [4, 5, 6]]
    assert idx_bytes(parse_idx(content)) == content
    for bad in (b"", content[:-1], content + b"0", b"\x00\x00\x09" + content[3:]):
        with pytest.raises(ValueError, match="IDX"):
            parse_idx(bad)


@full
def test_the_real_thing() -> None:
    splits = load_data(require_full=True)
    assert [len(s) for s in (splits.train, splits.validation, splits.test)] == [
        50_000,
        10_000,
        10_000,
    ]
    images = np.concatenate([splits.train.images, splits.validation.images])
    labels = np.concatenate([_labels(splits.train), _labels(splits.validation)])
    arrays = {
        "x_train": images,
        "y_train": labels.astype(np.uint8),
        "x_test": splits.test.images,
        "y_test": _labels(splits.test).astype(np.uint8),
    }
    assert labels[:5].tolist() == [5, 0, 4, 1, 9]
    for key, array in arrays.items():
        assert hashlib.md5(idx_bytes(array)).hexdigest() == MD5[key]
