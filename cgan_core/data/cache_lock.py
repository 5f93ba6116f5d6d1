"""One process at a time fills a place of the cache; the others wait and find it there."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cgan_core.data.errors import DataError


@contextmanager
def cache_lock(path: Path) -> Iterator[None]:
    """Holds the lock of what will lie at `path`, whose folder is made where it is missing.

    Raises:
        DataError: If the folder cannot be written, or what is written there fails.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.with_name(f".{path.name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
    except OSError as error:
        raise DataError(
            f"{path.parent}: the cache must be writable, but {error}; make room, or set "
            "CGAN_CACHE_DIR to another folder"
        ) from error
