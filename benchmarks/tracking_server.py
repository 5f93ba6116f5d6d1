"""Throw-away services of the platform: MLflow on PostgreSQL, as a cluster's head has them."""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from search.services_file import Services, read_services


class ServerError(RuntimeError):
    """The services did not start."""


@contextmanager
def tracking_server() -> Iterator[Services]:
    """Starts both in a folder of their own, which clients in this process find; removes all.

    Raises:
        ServerError: They do not start; the message says why.
    """
    folder = Path(tempfile.mkdtemp(prefix="services-", dir="/tmp"))
    folder.chmod(0o711)  # the database's user passes through
    before = os.environ.get("XDG_CONFIG_HOME")
    os.environ["XDG_CONFIG_HOME"] = str(folder / "config")
    try:
        _call("up", folder, "--storage", str(folder / "storage"), "--port", str(_free_port()))
        services = read_services()
        assert services is not None
        yield services
    finally:
        _call("down", folder)
        if before is None:
            del os.environ["XDG_CONFIG_HOME"]
        else:
            os.environ["XDG_CONFIG_HOME"] = before
        shutil.rmtree(folder)


def _call(action: str, folder: Path, *words: str) -> None:
    command = [sys.executable, "-m", "search.services", action, "--state", str(folder / "state")]
    done = subprocess.run([*command, *words], capture_output=True, text=True)
    if done.returncode:
        raise ServerError(f"search.services {action}: {done.stderr.strip()}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
