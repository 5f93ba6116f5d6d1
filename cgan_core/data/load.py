"""One way in: a data set by its name or by its file."""

from pathlib import Path

from cgan_core.data.digits import load_digits
from cgan_core.data.errors import DataError, MnistNotFoundError
from cgan_core.data.images import DataSplits
from cgan_core.data.mnist import load_mnist
from cgan_core.data.own import load_own


def load_data(
    name: str = "mnist",
    *,
    path: str | Path | None = None,
    require_full: bool = False,
    seed: int = 0,
    allow_download: bool = True,
) -> DataSplits:
    """Loads a data set; a `notice` in what it returns must be shown to the user.

    Args:
        name: `mnist`, resolved as `CGAN_DATA_DIR`, user cache, download, bundled digits. Not
            used with `path`.
        path: A user's own npz file (see `load_own`).
        require_full: Refuse the bundled digits.
        seed: Cuts and shuffles a user's own file.
        allow_download: Whether the network may be asked.

    Raises:
        DataError: If the data cannot be had or are not as they must be.
    """
    if path is not None:
        return load_own(Path(path).expanduser(), seed=seed)
    if name != "mnist":
        raise DataError(f"name must be 'mnist', but got {name!r}; give other data by its path")
    try:
        return load_mnist(allow_download=allow_download)
    except MnistNotFoundError as error:
        if require_full:
            raise
        return load_digits(error.reason)
