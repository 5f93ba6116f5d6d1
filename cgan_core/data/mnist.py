"""Full MNIST (LeCun, Cortes and Burges, 1998) from disk or from a mirror."""

import functools
import hashlib
from pathlib import Path

import numpy as np
from jaxtyping import Shaped, UInt8

from cgan_core.data.archive import read_archive
from cgan_core.data.download import DownloadError, download_files
from cgan_core.data.errors import REMEDY, DataError, MnistNotFoundError
from cgan_core.data.idx import idx_bytes, read_idx
from cgan_core.data.images import DataSplits, LabeledImages
from cgan_core.data.places import cache_folder, data_folder

ARCHIVE = "mnist.npz"
IDX_NAMES = {
    "x_train": "train-images-idx3-ubyte",
    "y_train": "train-labels-idx1-ubyte",
    "x_test": "t10k-images-idx3-ubyte",
    "y_test": "t10k-labels-idx1-ubyte",
}
# Of the uncompressed official files, whose published MD5s begin 6bbc9ace, a25bea73, 2646ac64
# and 27ae3e4e (all four are in the test).
OFFICIAL_SHA256 = {
    "x_train": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "y_train": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "x_test": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "y_test": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}
NUM_VALIDATION = 10_000

Arrays = dict[str, UInt8[np.ndarray, "..."]]


def load_mnist(*, allow_download: bool = True) -> DataSplits:
    """Full MNIST in its original order: 50,000 train, 10,000 validation, 10,000 test.

    Looked for in the folder `CGAN_DATA_DIR`, then in the user cache, then downloaded into it.

    Raises:
        MnistNotFoundError: If it is not at hand and cannot be downloaded.
        DataError: If a file is damaged or is not the official one.
    """
    looked = []
    folder = data_folder()
    if folder is not None:
        if arrays := _find(folder, complete=True):
            return _official_splits(arrays, "CGAN_DATA_DIR")
        looked.append(f"CGAN_DATA_DIR={folder}")
    cache = cache_folder()
    if arrays := _find(cache, complete=False):
        return _official_splits(arrays, "cache")
    looked.append(f"the cache {cache}")
    reason = f"neither {ARCHIVE} nor the IDX files are in {' or '.join(looked)}"
    if not allow_download:
        raise MnistNotFoundError(f"{reason}, and downloading is off")
    if fault := _download_once(cache):
        raise MnistNotFoundError(f"{reason}, and the download failed ({fault})")
    if arrays := _find(cache, complete=False):
        return _official_splits(arrays, "download")
    raise MnistNotFoundError(f"{reason} after the download")


@functools.cache
def _download_once(folder: Path) -> str | None:
    """Downloads into `folder`; why that failed, asked of the network once a process."""
    checksums = {IDX_NAMES[key]: OFFICIAL_SHA256[key] for key in IDX_NAMES}
    try:
        download_files(checksums, folder)
    except DownloadError as error:
        return str(error)
    return None


def _find(folder: Path, *, complete: bool) -> Arrays | None:
    """The four verified arrays in `folder`, or None.

    Args:
        folder: Where to look.
        complete: Whether some but not all IDX files are an error (in the cache they are a
            download that was cut short).
    """
    archive = folder / ARCHIVE
    if archive.is_file():
        return _read_archive(archive)
    paths = {key: _idx_path(folder, name) for key, name in IDX_NAMES.items()}
    found = {key: path for key, path in paths.items() if path is not None}
    if len(found) == len(paths):
        return {key: _verified(path, key, read_idx(path)) for key, path in found.items()}
    if found and complete:
        missing = ", ".join(IDX_NAMES[key] for key in paths if key not in found)
        raise DataError(
            f"{folder}: all four MNIST files must be there, but {missing} is missing; add it"
        )
    return None


def _idx_path(folder: Path, name: str) -> Path | None:
    for stem in (name, name.replace("-idx", ".idx")):
        for path in (folder / stem, folder / f"{stem}.gz"):
            if path.is_file():
                return path
    return None


def _read_archive(path: Path) -> Arrays:
    arrays = read_archive(path)
    for key in IDX_NAMES:
        if key not in arrays:
            raise DataError(
                f"{path}: keys must include {', '.join(IDX_NAMES)}, but {key} is missing; {REMEDY}"
            )
    return {key: _verified(path, key, arrays[key]) for key in IDX_NAMES}


def _verified(path: Path, key: str, array: Shaped[np.ndarray, "..."]) -> UInt8[np.ndarray, "..."]:
    """The array, once its IDX file is known to be the official one byte for byte."""
    checksum = None
    if array.dtype.kind in "iu":
        array = array.astype(np.uint8)
        checksum = hashlib.sha256(idx_bytes(array)).hexdigest()
    if checksum != OFFICIAL_SHA256[key]:
        raise DataError(
            f"{path}: {key} must be the official MNIST array ({IDX_NAMES[key]}, SHA-256 "
            f"{OFFICIAL_SHA256[key][:8]}...), but this {array.dtype} {array.shape} has "
            f"{'none' if checksum is None else f'{checksum[:8]}...'}; replace or delete the file "
            "(a data set of your own is given by its path instead)"
        )
    return array


def _official_splits(arrays: Arrays, source: str) -> DataSplits:
    images, labels = arrays["x_train"], arrays["y_train"].astype(np.int64)
    test = LabeledImages(arrays["x_test"], arrays["y_test"].astype(np.int64))
    return DataSplits(
        train=LabeledImages(images[:-NUM_VALIDATION], labels[:-NUM_VALIDATION]),
        validation=LabeledImages(images[-NUM_VALIDATION:], labels[-NUM_VALIDATION:]),
        test=test,
        name="mnist",
        source=source,
        subset=False,
        num_classes=10,
    )
