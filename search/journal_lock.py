"""The lock of a journal: a file beside it that names the process which writes there."""

import fcntl
import os
import socket
import time
from pathlib import Path


class LockHeldError(Exception):
    """Another process has the lock; `holder` names it."""

    def __init__(self, holder: str) -> None:
        super().__init__(holder)
        self.holder = holder


def take_lock(path: Path) -> int:
    """Takes the lock, and names this process in its file; returns the file's handle.

    Raises:
        LockHeldError: Another process has it.
        OSError: The file cannot be written.
    """
    while True:
        lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        if not _lock_soon(lock):
            holder = _holder(lock)
            os.close(lock)
            raise LockHeldError(holder)
        if _is_at(path, lock):
            break
        os.close(lock)  # it was removed between the two, by whom it was held
    os.ftruncate(lock, 0)
    os.pwrite(lock, f"process {os.getpid()} on {socket.gethostname()}\n".encode(), 0)
    return lock


def holder_of(path: Path) -> str | None:
    """Names the process that has a lock; None where none has."""
    try:
        lock = os.open(path, os.O_RDONLY)
    except OSError:
        return None  # nobody ever had
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)  # for an instant: see `_lock_soon`
    except BlockingIOError:
        return _holder(lock)
    finally:
        os.close(lock)
    return None


def _is_at(path: Path, handle: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(handle))
    except FileNotFoundError:
        return False


def _lock_soon(lock: int) -> bool:
    """Takes the lock; asks a few times, for `holder_of` holds it for an instant."""
    for pause in (0.01, 0.05, 0.1, None):
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if pause is not None:
                time.sleep(pause)
        else:
            return True
    return False


def _holder(lock: int) -> str:
    return os.pread(lock, 200, 0).decode(errors="replace").strip() or "another process"
