"""Where data are looked for and kept on this machine."""

import os
import sys
from pathlib import Path

from cgan_core.data.errors import DataError


def data_folder() -> Path | None:
    """The folder that `CGAN_DATA_DIR` names, or None where it is not set.

    Raises:
        DataError: If it names no folder.
    """
    value = os.environ.get("CGAN_DATA_DIR")
    if not value:
        return None
    folder = Path(value).expanduser()
    if not folder.is_dir():
        raise DataError(
            f"CGAN_DATA_DIR must name a folder, but {value!r} is none; correct or unset it"
        )
    return folder


def cache_folder() -> Path:
    """`CGAN_CACHE_DIR`, else `cgan-search` in the user's cache folder; it may not exist yet."""
    if value := os.environ.get("CGAN_CACHE_DIR"):
        return Path(value).expanduser()
    usual = "~/Library/Caches" if sys.platform == "darwin" else "~/.cache"
    return Path(os.environ.get("XDG_CACHE_HOME") or usual).expanduser() / "cgan-search"
