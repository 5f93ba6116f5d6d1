"""A study's folder as a parcel: packed in pieces on the cluster, unpacked where it was asked for.

A parcel is a compressed tar file cut into pieces of at most 8 MiB, and `index.json` with the
SHA-256 of each, so that a fetch that was cut off goes on with what is missing. The checkpoints of
runs stay where they are.
"""

import hashlib
import io
import json
import shutil
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from cgan_core.replacing import replacing
from search.checkpoints import TUNE_FOLDER
from search.history import JOURNAL_NAME, LOCK_NAME

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

PIECE_BYTES = 8 * 2**20
INDEX_NAME = "index.json"


class ParcelError(ValueError):
    """A parcel that is not as it was packed, or not to be unpacked here."""


class Piece(NamedTuple):
    """One piece: its name in the parcel's folder, and what it must hold."""

    name: str
    size_bytes: int
    sha256: str

    def is_in(self, folder: Path) -> bool:
        """Whether this piece lies there, whole."""
        try:
            content = (folder / self.name).read_bytes()
        except FileNotFoundError:
            return False
        return hashlib.sha256(content).hexdigest() == self.sha256


class Parcel(NamedTuple):
    """What `index.json` holds."""

    files: int
    pieces: tuple[Piece, ...]

    @property
    def size_bytes(self) -> int:
        """Of all pieces."""
        return sum(piece.size_bytes for piece in self.pieces)

    @classmethod
    def read(cls, text: str | bytes) -> Self:
        """Reads an index.

        Raises:
            ParcelError: It is none, or a piece would lie outside of its folder.
        """
        try:
            content = json.loads(text)
            pieces = tuple(
                Piece(str(p["name"]), int(p["size_bytes"]), str(p["sha256"]))
                for p in content["pieces"]
            )
            parcel = cls(int(content["files"]), pieces)
        except (ValueError, TypeError, KeyError) as error:
            raise ParcelError(f"{INDEX_NAME}: cannot be understood ({error!r})") from None
        for number, piece in enumerate(parcel.pieces):
            if piece.name != _name(number) or not 0 < piece.size_bytes <= PIECE_BYTES:
                raise ParcelError(f"{INDEX_NAME}: names {piece.name!r}, which is no piece")
        return parcel


def pack(study: Path, folder: Path) -> Parcel:
    """Packs a study's folder, but not its checkpoints, as pieces into another folder."""
    folder.mkdir(parents=True)
    files = list(_files(study))
    writer = _Cutter(folder)
    with writer, tarfile.open(fileobj=writer, mode="w|gz") as tar:
        for file in files:
            tar.add(file, file.relative_to(study).as_posix(), recursive=False)
    parcel = Parcel(len(files), tuple(writer.pieces))
    with replacing(folder / INDEX_NAME) as temporary:  # last: it says that all is there
        content = {"files": parcel.files, "pieces": [p._asdict() for p in parcel.pieces]}
        temporary.write_text(json.dumps(content))
    return parcel


def _files(study: Path) -> Iterator[Path]:
    for path in sorted(study.rglob("*")):
        top = path.relative_to(study).parts[0]
        if top not in (TUNE_FOLDER, LOCK_NAME) and path.is_file() and not path.is_symlink():
            yield path


def _name(number: int) -> str:
    return f"{number:06d}.part"


class _Cutter(io.RawIOBase):
    """What is written goes into files of `PIECE_BYTES` each."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._buffer = bytearray()
        self.pieces: list[Piece] = []

    def writable(self) -> bool:
        return True

    def write(self, data: "ReadableBuffer") -> int:
        self._buffer += memoryview(data)
        while len(self._buffer) >= PIECE_BYTES:
            self._cut()
        return memoryview(data).nbytes

    def close(self) -> None:
        if self._buffer:
            self._cut()
        super().close()

    def _cut(self) -> None:
        content = bytes(self._buffer[:PIECE_BYTES])
        del self._buffer[:PIECE_BYTES]
        name = _name(len(self.pieces))
        (self._folder / name).write_bytes(content)
        self.pieces.append(Piece(name, len(content), hashlib.sha256(content).hexdigest()))


class _Joined(io.RawIOBase):
    """Files read as one."""

    def __init__(self, files: Iterable[Path]) -> None:
        self._rest = iter(files)
        self._file = io.BytesIO()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not (count := self._file.readinto(buffer)):
            following = next(self._rest, None)
            if following is None:
                return 0
            self._file = io.BytesIO(following.read_bytes())
        return count


def unpack(parcel: Parcel, folder: Path, study: Path) -> None:
    """Unpacks the pieces in a folder over a study's folder.

    Raises:
        ParcelError: The parcel is broken, reaches out of the folder, or is of another study than
            the one that lies there.
    """
    beside = folder / "unpacked"
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir()
    joined = io.BufferedReader(_Joined(folder / piece.name for piece in parcel.pieces))
    try:
        with tarfile.open(fileobj=joined, mode="r|gz") as tar:
            tar.extractall(beside, filter="data")  # refuses what climbs out, links and devices
    except (tarfile.TarError, EOFError, OSError) as error:
        raise ParcelError(f"the record that came back is refused: {error}") from None
    _check_same_study(beside, study)
    for file in sorted(path for path in beside.rglob("*") if path.is_file()):
        goal = study / file.relative_to(beside)
        goal.parent.mkdir(parents=True, exist_ok=True)
        file.replace(goal)
    shutil.rmtree(beside)


def _check_same_study(came: Path, study: Path) -> None:
    """A journal only grows: what lies here must be the beginning of what came."""
    here = study / JOURNAL_NAME
    if not here.exists():
        return
    begun = here.read_bytes()
    there = came / JOURNAL_NAME
    if not there.exists() or not there.read_bytes().startswith(begun):
        raise ParcelError(
            f"{study}: holds another study than the one that came back, which stays on the "
            "cluster; move this folder away, then give the same command again"
        )
