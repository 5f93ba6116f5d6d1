"""The journal of a study: events appended and fsynced, one JSON object a line."""

import errno
import os
from contextlib import suppress
from pathlib import Path
from typing import Self

from pydantic import ValidationError

from search.events import Event, from_line, to_line
from search.journal_lock import LockHeldError, holder_of, take_lock


class JournalError(ValueError):
    """A journal that cannot be read or written."""


class JournalExists(JournalError):  # noqa: N818 - reads as what is the case
    """A study is already recorded where a new one was to begin."""


class JournalLocked(JournalError):  # noqa: N818
    """Another process writes this journal."""


class Journal:
    """A journal open for writing, by one process at a time.

    Attributes:
        path: The file of events; `<stem>.lock` beside it names the process that writes it and
            `<stem>.torn` keeps the bytes of any torn line that was dropped.
        found: The events that it held when it was opened.
    """

    def __init__(self, path: Path, lock: int, *, made_folder: bool = False) -> None:
        """Takes over `lock`; `Journal.open` is the way in."""
        self.path = path
        self._lock = lock
        self._made_folder = made_folder
        data = path.read_bytes() if path.exists() else b""
        self.found, self._size = _parse(path, data)
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        if self._size < len(data):
            _keep(path.with_suffix(".torn"), data[self._size :])
            self._cut()

    @classmethod
    def open(cls, path: Path, *, create: bool) -> Self:
        """Opens a journal for writing, locks it, and drops a torn last line.

        Args:
            path: The file, `<folder>/journal.jsonl`.
            create: Whether to begin a new one (its folder is made where missing) or to go on
                with one that exists.

        Raises:
            JournalExists: `create` where events are recorded already.
            JournalLocked: Another process has it open.
            JournalError: It is missing or broken, or the folder cannot be written.
        """
        if not create and not path.is_file():
            raise JournalError(f"{path.parent}: holds no study ({path.name} is missing)")
        try:
            made_folder = not path.parent.exists()
            path.parent.mkdir(parents=True, exist_ok=True)
            lock = _take_lock(path)
            try:
                journal = cls(path, lock, made_folder=made_folder)
                _sync_folder(path.parent)
            except BaseException:
                os.close(lock)
                raise
        except OSError as error:
            raise JournalError(f"{path}: must be writable, but: {error.strerror}") from error
        if create and journal.found:
            journal.close()
            raise _exists(path)
        return journal

    @staticmethod
    def check(path: Path, *, create: bool) -> None:
        """Raises what `open` would raise, and writes nothing."""
        if not create and not path.is_file():
            raise JournalError(f"{path.parent}: holds no study ({path.name} is missing)")
        try:
            existing = next(folder for folder in path.parents if folder.exists())
            _check_writable(existing, path.parent)
        except OSError as error:
            raise JournalError(f"{path}: must be writable, but: {error.strerror}") from error
        if holder := Journal.writer(path):
            raise _locked(path, holder)
        if path.exists() and Journal.read(path) and create:
            raise _exists(path)

    @staticmethod
    def read(path: Path) -> list[Event]:
        """Reads the events without a lock, also while a driver writes them.

        Raises:
            JournalError: The file is missing, or a line but the last is broken.
        """
        try:
            data = path.read_bytes()
        except OSError as error:
            raise JournalError(f"{path}: must be readable, but: {error.strerror}") from error
        return _parse(path, data)[0]

    @staticmethod
    def writer(path: Path) -> str | None:
        """Names the process that has a journal open for writing, None where none has."""
        return holder_of(path.with_suffix(".lock"))

    def append(self, *events: Event) -> None:
        """Appends events and returns once they are on disk (one fsync for all).

        A disk that refuses is not asked again: after an fsync that failed nobody knows what is on
        disk, and a study that stops is gone on with by `--resume`.

        Raises:
            JournalError: The disk refused, say because it is full, another process has written
                here (locks may be none on a network), or the journal is closed; nothing was
                appended.
        """
        if self._file < 0:
            raise JournalError(f"{self.path}: must be open, but is closed")
        self._check_size()
        data = b"".join(to_line(event) for event in events)
        try:
            written = 0
            while written < len(data):
                written += os.write(self._file, data[written:])
            os.fsync(self._file)
            self._size += len(data)
        except OSError as error:
            self._cut()
            raise JournalError(f"{self.path}: cannot be appended to: {error.strerror}") from error
        except BaseException:
            self._cut()
            raise

    def close(self) -> None:
        """Closes the file and releases the lock; a second call does nothing."""
        if self._file >= 0:
            os.close(self._file)
            os.close(self._lock)
            self._file = self._lock = -1

    def discard(self) -> None:
        """Closes it, and takes back what `open` made where nothing was recorded.

        A folder that holds more than that, such as the `study.json` of a start that failed in
        between, stays as it is.
        """
        lock = self.path.with_suffix(".lock")
        with suppress(OSError):
            others = {*self.path.parent.iterdir()} - {self.path, lock}
            if self._file >= 0 and self._size == 0 and not others:
                self.path.unlink()
                lock.unlink()  # while it is held: see `take_lock`
                if self._made_folder:
                    self.path.parent.rmdir()
        self.close()

    def _check_size(self) -> None:
        try:
            size = os.fstat(self._file).st_size
        except OSError as error:
            raise JournalError(f"{self.path}: cannot be appended to: {error.strerror}") from error
        if size != self._size:
            self.close()  # what is there is another's, and not to be cut
            raise JournalError(
                f"{self.path}: must have the {self._size} bytes that this process knows of, but "
                f"has {size}: another one writes it too, so this storage keeps no locks; end the "
                "other, or all drivers but one, then --resume"
            )

    def _cut(self) -> None:
        """Cuts off what is not whole lines: half a line must not begin the next one."""
        try:
            os.ftruncate(self._file, self._size)
            os.fsync(self._file)
        except OSError as error:
            self.close()
            raise JournalError(f"{self.path}: cannot be truncated: {error.strerror}") from error


def _exists(path: Path) -> JournalExists:
    return JournalExists(
        f"{path.parent}: a study is recorded here already; name another folder by --output, or go "
        "on with that one by --resume (`resume=True`)"
    )


def _parse(path: Path, data: bytes) -> tuple[list[Event], int]:
    """The events in `data`, and the length in bytes of their lines.

    A last line without its newline, or with one but not JSON, is the torn end of an append that
    nobody was told had succeeded.
    """
    *lines, tail = data.split(b"\n")
    events: list[Event] = []
    size = 0
    for index, line in enumerate(lines, start=1):
        try:
            events.append(from_line(line))
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            if index == len(lines) and not tail and first["type"] == "json_invalid":
                break
            where = ".".join(str(part) for part in first["loc"])
            raise JournalError(
                f"{path}:{index}: a line must hold one event, but: "
                f"{f'{where}: ' if where else ''}{first['msg']} in {line[:80]!r}"
            ) from error
        size += len(line) + 1
    return events, size


def _keep(path: Path, torn: bytes) -> None:
    with path.open("ab") as file:
        file.write(torn + b"\n")
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    """Makes the names in a folder as durable as what they name."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _check_writable(existing: Path, folder: Path) -> None:
    """Raises what making `folder`, of which so much exists, would raise."""
    number = 0
    if not existing.is_dir():
        number = errno.EEXIST if existing == folder else errno.ENOTDIR
    elif not os.access(existing, os.W_OK | os.X_OK):
        number = errno.EACCES
    if number:
        raise OSError(number, os.strerror(number))


def _take_lock(path: Path) -> int:
    try:
        return take_lock(path.with_suffix(".lock"))
    except LockHeldError as held:
        raise _locked(path, held.holder) from None


def _locked(path: Path, holder: str) -> JournalLocked:
    return JournalLocked(
        f"{path.parent}: one driver at a time may write a study, but {holder} has it open"
    )
