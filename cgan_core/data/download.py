"""The official MNIST files from public mirrors: checked, resumed, and never waited for long."""

import fcntl
import hashlib
import logging
import threading
import time
from collections.abc import Mapping, Sequence
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from cgan_core.data.idx import decompressed

MIRRORS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
)
CONNECT_SECONDS = 5.0
TOTAL_SECONDS = 120.0
BLOCK_BYTES = 1 << 16

_logger = logging.getLogger(__name__)


class DownloadError(Exception):
    """The files could not be had; the message says why, mirror by mirror."""


def download_files(
    checksums: Mapping[str, str],
    folder: Path,
    *,
    mirrors: Sequence[str] = MIRRORS,
    connect_seconds: float = CONNECT_SECONDS,
    total_seconds: float = TOTAL_SECONDS,
) -> None:
    """Downloads `NAME.gz` for each name into `folder`, going on after what is already there.

    Args:
        checksums: SHA-256 (hex) of each file's uncompressed content, by its name without `.gz`.
        folder: Where the files go; made where missing. One process at a time fills it.
        mirrors: Addresses that end in `/`, tried in order.
        connect_seconds: How long a mirror may take to answer, and then to send anything.
        total_seconds: When to give up; what came until then is kept for the next time.

    Raises:
        DownloadError: If a file cannot be had from any mirror.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / ".download.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            missing = [name for name in checksums if not (folder / f"{name}.gz").exists()]
            if not missing:
                return
            answering = _answering(mirrors, f"{missing[0]}.gz", connect_seconds)
            deadline = time.monotonic() + total_seconds
            for name in missing:
                _download(name, checksums[name], folder, answering, connect_seconds, deadline)
    except OSError as error:
        raise DownloadError(f"{folder} is not writable: {error}") from error


def _answering(mirrors: Sequence[str], name: str, seconds: float) -> list[str]:
    """The mirrors that answer within `seconds`.

    Asked in threads because a socket's time-out covers neither the look-up of a name nor the
    sum over all addresses behind it.
    """
    faults = dict.fromkeys(mirrors, f"no answer in {seconds:g} s")

    def ask(mirror: str) -> None:
        try:
            urlopen(Request(mirror + name, method="HEAD"), timeout=seconds).close()
            faults[mirror] = ""
        except (OSError, HTTPException) as error:
            faults[mirror] = _reason(error)

    threads = [threading.Thread(target=ask, args=(mirror,), daemon=True) for mirror in mirrors]
    deadline = time.monotonic() + seconds
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    answering = [mirror for mirror in mirrors if not faults[mirror]]
    if not answering:
        raise DownloadError("; ".join(f"{mirror}: {faults[mirror]}" for mirror in mirrors))
    return answering


def _download(
    name: str,
    checksum: str,
    folder: Path,
    mirrors: Sequence[str],
    connect_seconds: float,
    deadline: float,
) -> None:
    part = folder / f"{name}.gz.part"
    reasons = []
    for mirror in mirrors:
        url = f"{mirror}{name}.gz"
        try:
            _fetch_verified(url, part, checksum, connect_seconds, deadline)
        except (OSError, HTTPException, DownloadError) as error:
            reasons.append(f"{url}: {_reason(error)}")
        else:
            part.replace(folder / f"{name}.gz")
            return
    raise DownloadError("; ".join(reasons))


def _fetch_verified(
    url: str, part: Path, checksum: str, connect_seconds: float, deadline: float
) -> None:
    resumed = part.exists()
    _fetch(url, part, connect_seconds, deadline)
    if _content_sha256(part) == checksum:
        return
    part.unlink()
    if not resumed:
        raise DownloadError(f"content must have SHA-256 {checksum}, but has another")
    # What was there may have come from another file: once more from the start.
    _fetch_verified(url, part, checksum, connect_seconds, deadline)


def _fetch(url: str, part: Path, connect_seconds: float, deadline: float) -> None:
    """Downloads `url` into `part`, asking only for the bytes that `part` lacks."""
    have = part.stat().st_size if part.exists() else 0
    headers = {"Range": f"bytes={have}-"} if have else {}
    _logger.info("downloading %s from byte %d", url, have)
    try:
        response: HTTPResponse = urlopen(Request(url, headers=headers), timeout=connect_seconds)
    except HTTPError as error:
        if error.code == 416:  # range not satisfiable: nothing is missing, the checksum decides
            return
        raise
    with response, part.open("ab" if response.status == 206 else "wb") as file:
        left = response.length
        while block := response.read1(BLOCK_BYTES):
            file.write(block)
            if time.monotonic() > deadline:
                raise TimeoutError("too slow; the next start goes on from here")
        received = file.tell() - (have if response.status == 206 else 0)
        if left is not None and received < left:
            raise ConnectionError(f"connection closed after {received} of {left} bytes")


def _content_sha256(path: Path) -> str | None:
    try:
        return hashlib.sha256(decompressed(path.read_bytes())).hexdigest()
    except ValueError:
        return None


def _reason(error: Exception) -> str:
    if isinstance(error, HTTPError):
        return f"HTTP {error.code} {error.reason}"
    return str(getattr(error, "reason", "") or error) or type(error).__name__
