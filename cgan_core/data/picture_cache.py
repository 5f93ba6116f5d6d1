"""Decoded pictures of a folder, kept in the user cache as memory-mapped arrays.

A folder is decoded once; every process of a machine then maps the same pages.
"""

import hashlib
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int64, UInt8

from cgan_core.data.cache_lock import cache_lock
from cgan_core.data.decoding import BrokenPictureError, Header, decode, read_header
from cgan_core.data.errors import DataError
from cgan_core.data.places import cache_folder
from cgan_core.replacing import replacing

VERSION = 1  # of how pictures are decoded
PROGRESS_SECONDS = 5.0
COPIED_ROWS = 1_024  # at once; bounds memory

Pixels = UInt8[np.ndarray, "images height width *channels"]


@dataclass(frozen=True, eq=False)
class Pictures:
    """The pictures of some files.

    Attributes:
        folder: Of the cache, where they lie.
        images: One for each name; that of a broken one is meaningless.
        broken: Why, by name.
    """

    folder: Path
    images: Pixels
    broken: Mapping[str, str]

    def rows(self, rows: Int64[np.ndarray, " rows"]) -> Pixels:
        """Some of the pictures in an order of their own, kept as an array of its own."""
        named = hashlib.sha256(rows.astype("<i8").tobytes()).hexdigest()
        path = self.folder / f"{named}.npy"
        with cache_lock(path):
            if not path.exists():
                shape = (len(rows), *self.images.shape[1:])
                with replacing(path) as partial:
                    kept = np.lib.format.open_memmap(partial, "w+", np.uint8, shape)
                    for start in range(0, len(rows), COPIED_ROWS):
                        few = slice(start, start + COPIED_ROWS)
                        kept[few] = self.images[rows[few]]
                    kept.flush()
        return _mapped(path)


def pictures_of(folder: Path, names: Sequence[str], size: int | None = None) -> Pictures:
    """Decodes files of a folder, or maps what was decoded before.

    Kept under the folder, the files' names, lengths and times of change, and the size.

    Args:
        folder: Where the files are.
        names: Relative to it.
        size: Cut to squares and shrink to it; None leaves pictures as they are.

    Raises:
        DataError: If all are broken, they are not of one size, or one is smaller than `size`.
    """
    place = cache_folder() / "pictures" / _key(folder, names, size)
    with cache_lock(place / "pictures.npy"):
        with suppress(OSError, ValueError):
            broken = json.loads((place / "broken.json").read_text())
            return Pictures(place, _mapped(place / "pictures.npy"), broken)
        broken = {}
        headers = _headers(folder, names, broken)
        shape, grey = _shape(folder, headers, size)
        with replacing(place / "pictures.npy") as partial:
            kept = np.lib.format.open_memmap(partial, "w+", np.uint8, (len(names), *shape))
            report = _reporter("decoding pictures", len(names))
            for row, name in enumerate(names):
                report(row)
                if name in headers:
                    try:
                        kept[row] = decode(folder / name, grey, size)
                    except BrokenPictureError as error:
                        broken[name] = str(error)
            kept.flush()
        with replacing(place / "broken.json") as partial:  # last: now the rest is whole
            partial.write_text(json.dumps(broken))
        return Pictures(place, _mapped(place / "pictures.npy"), broken)


def _mapped(path: Path) -> Pixels:
    """Maps an array; whoever writes to it (nobody should) changes a copy of the page only."""
    return np.asarray(np.lib.format.open_memmap(path, "c"))


def _key(folder: Path, names: Sequence[str], size: int | None) -> str:
    stats = [(folder / name).stat() for name in names]
    listing = [[n, s.st_size, s.st_mtime_ns] for n, s in zip(names, stats, strict=True)]
    text = json.dumps([VERSION, str(folder.resolve()), size, listing])
    return hashlib.sha256(text.encode()).hexdigest()


def _headers(folder: Path, names: Sequence[str], broken: dict[str, str]) -> dict[str, Header]:
    """The headers by name; what has none is added to `broken`."""
    headers, report = {}, _reporter("looking at pictures", len(names))
    for row, name in enumerate(names):
        report(row)
        try:
            headers[name] = read_header(folder / name)
        except BrokenPictureError as error:
            broken[name] = str(error)
    if not headers:
        raise DataError(
            f"{folder}: none of {len(names)} pictures can be read, {names[0]}: "
            f"{broken[names[0]]}; give others"
        )
    return headers


def _shape(
    folder: Path, headers: Mapping[str, Header], size: int | None
) -> tuple[tuple[int, ...], bool]:
    """The shape of every decoded picture, and whether it is grey: where all are."""
    grey = all(header.grey for header in headers.values())
    first_name, first = next(iter(headers.items()))
    for name, header in headers.items():
        edge = min(header.width, header.height)
        if size is not None and edge < size:
            raise DataError(
                f"{folder / name}: is {header.width} x {header.height} pixels, and pictures are "
                f"never enlarged; data.size must be at most {edge}, but got {size}"
            )
        if size is None and (header.width, header.height) != (first.width, first.height):
            raise DataError(
                f"{folder / name}: all pictures must be of one size, but this is {header.width} "
                f"x {header.height} pixels and {first_name} {first.width} x {first.height}; set "
                "data.size, to which the middle square of each is shrunk"
            )
    height, width = (size, size) if size is not None else (first.height, first.width)
    return ((height, width) if grey else (height, width, 3)), grey


def _reporter(what: str, total: int) -> Callable[[int], None]:
    """Returns what says on standard error how far it is, every few seconds."""
    last = time.monotonic()

    def report(done: int) -> None:
        nonlocal last
        if time.monotonic() - last >= PROGRESS_SECONDS:
            last = time.monotonic()
            sys.stderr.write(f"{what}: {done:,} of {total:,}\n")

    return report
