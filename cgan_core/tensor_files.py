"""Tensors in safetensors files, which cannot run code when they are read."""

from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

# How a pickle of protocol 2 or later begins, and the archive that torch.save makes of one.
_PICKLE, _ARCHIVE = b"\x80", b"PK\x03\x04"


class TensorFileError(ValueError):
    """A file holds no tensors that can be read safely."""


def write_tensors(tensors: dict[str, Tensor], path: Path) -> None:
    """Writes tensors by name, for whom any new file here is.

    Raises:
        OSError: The file cannot be written.
    """
    path.touch()
    mode = path.stat().st_mode  # as the umask has it; safetensors writes for the owner alone
    save_file(tensors, path)
    path.chmod(mode)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Reads the tensors of a file by name.

    Raises:
        TensorFileError: It is no safetensors file.
        OSError: It cannot be read.
    """
    try:
        return load_file(path)
    except SafetensorError as error:
        with path.open("rb") as file:
            head = file.read(len(_ARCHIVE))
        if head.startswith(_PICKLE) or head == _ARCHIVE:
            fault = "is a pickle, which is not loaded since it can run code"
        else:
            fault = f"is none ({error})"
        raise TensorFileError(
            f"{path}: must be a safetensors file, but {fault}; bring back the file that was "
            "written here"
        ) from error
