"""The IDX format of the original MNIST files (LeCun, Cortes and Burges, 1998).

Big-endian: two zero bytes, a type byte (8 = unsigned byte), the number of dimensions, each
dimension as 32 bits, then the values row by row.
"""

import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from cgan_core.data.errors import DataError

UNSIGNED_BYTE = 8
GZIP_MAGIC = b"\x1f\x8b"


def decompressed(data: bytes) -> bytes:
    """The content of gzipped data; plain data as it is.

    Raises:
        ValueError: If the gzip stream is cut short or damaged.
    """
    if not data.startswith(GZIP_MAGIC):
        return data
    try:
        return gzip.decompress(data)
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"gzip stream is truncated or corrupt: {error}") from error


def parse_idx(content: bytes) -> UInt8[np.ndarray, "..."]:
    """The array in an uncompressed IDX file of unsigned bytes.

    Raises:
        ValueError: If the header or the length is wrong.
    """
    if len(content) < 4 or content[:3] != bytes((0, 0, UNSIGNED_BYTE)):
        raise ValueError(f"IDX header must start with 00 00 08, but got {content[:3].hex(' ')!r}")
    start = 4 + 4 * content[3]
    if len(content) < start:
        raise ValueError(f"IDX header must have {start} bytes, but got {len(content)}")
    shape = struct.unpack(f">{content[3]}I", content[4:start])
    if len(content) - start != math.prod(shape):
        raise ValueError(
            f"IDX shape {shape} needs {math.prod(shape)} bytes, but got {len(content) - start}"
        )
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)


def idx_bytes(array: UInt8[np.ndarray, "..."]) -> bytes:
    """The uncompressed IDX file of an array, byte for byte."""
    header = struct.pack(f">HBB{array.ndim}I", 0, UNSIGNED_BYTE, array.ndim, *array.shape)
    return header + array.tobytes()


def read_idx(path: Path) -> UInt8[np.ndarray, "..."]:
    """The array in an IDX file, plain or gzipped.

    Raises:
        DataError: If the file cannot be read or is damaged.
    """
    try:
        return parse_idx(decompressed(path.read_bytes()))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: {error}; replace the file by the official one") from error
