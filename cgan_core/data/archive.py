"""Reading `.npz` archives that anybody may have written."""

import difflib
from collections.abc import Collection
from pathlib import Path

import numpy as np
from jaxtyping import Shaped

from cgan_core.data.errors import DataError

ZIP_MAGIC = b"PK"
_REWRITE = "write the file again with numpy.savez_compressed"


def read_archive(
    path: Path, allowed: Collection[str] | None = None
) -> dict[str, Shaped[np.ndarray, "..."]]:
    """All arrays of an npz file, never unpickling anything.

    Args:
        path: The file.
        allowed: The keys it may have; None allows all.

    Raises:
        DataError: If it is missing, damaged, no npz, holds Python objects or an unknown key.
    """
    if not path.is_file():
        raise DataError(f"{path}: file must exist, but there is none; correct the path")
    try:
        with path.open("rb") as file:
            if file.read(len(ZIP_MAGIC)) != ZIP_MAGIC:
                raise DataError(f"{path}: file must be an npz archive, but is none; {_REWRITE}")
        with np.load(path, allow_pickle=False) as archive:  # noqa: TID251 - so it cannot unpickle
            _check_keys(path, archive.files, allowed)
            arrays = {key: archive[key] for key in archive.files}
    except DataError:
        raise
    # On a damaged file the zip and npy parsers raise whatever comes: struct.error, KeyError, ...
    except Exception as error:
        raise DataError(_fault(path, error)) from error
    for key, array in arrays.items():
        if not isinstance(array, np.ndarray):
            raise DataError(f"{path}: {key} must be an array in npy format; {_REWRITE}")
    return arrays


def _check_keys(path: Path, keys: list[str], allowed: Collection[str] | None) -> None:
    for key in keys:
        if allowed is None or key in allowed:
            continue
        near = difflib.get_close_matches(key, allowed, n=1)
        hint = f"rename it to {near[0]!r}" if near else "leave it out"
        raise DataError(f"{path}: keys must be of {', '.join(allowed)}, but got {key!r}; {hint}")


def _fault(path: Path, error: Exception) -> str:
    if "allow_pickle" in str(error):
        return (
            f"{path}: arrays must hold numbers or strings, but one holds Python objects, which "
            "are not loaded since that can run code; convert it with astype and save again"
        )
    return (
        f"{path}: npz file is truncated or corrupt ({type(error).__name__}: {error}); {_REWRITE}"
    )
