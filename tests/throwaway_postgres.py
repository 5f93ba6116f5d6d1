"""A PostgreSQL and an MLflow server of the tests' own, on a free port, gone afterwards."""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from search.services_file import Services
from search.services_state import State, StateFolder


@dataclass(frozen=True)
class Throwaway:
    """Services that were started by the command.

    Attributes:
        folder: All of theirs: `state/`, `storage/`, and `config/` for XDG_CONFIG_HOME.
        port: Where the MLflow server listens.
    """

    folder: Path
    port: int

    @property
    def config(self) -> Path:
        return self.folder / "config"

    @property
    def services(self) -> Services:
        return Services.model_validate_json((self.config / "cgan/services.json").read_text())

    @property
    def state_folder(self) -> StateFolder:
        return StateFolder(self.folder / "state")

    @property
    def state(self) -> State:
        state = self.state_folder.read()
        assert state is not None
        return state

    def command(self, *words: str | Path) -> "subprocess.CompletedProcess[str]":
        """`python -m search.services WORDS --state ...`."""
        return subprocess.run(
            [sys.executable, "-m", "search.services", *map(str, words),
             "--state", str(self.folder / "state")],
            env={k: v for k, v in os.environ.items() if not k.startswith("MLFLOW")}
            | {"XDG_CONFIG_HOME": str(self.config)},
            capture_output=True, text=True, check=False,
        )  # fmt: skip

    def up(self, *words: str | Path) -> "subprocess.CompletedProcess[str]":
        return self.command(
            "up", "--storage", self.folder / "storage", "--port", str(self.port), *words
        )


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def throwaway_folder() -> Iterator[Path]:
    """A folder that the database's user may pass through, which pytest's own are not."""
    folder = Path(tempfile.mkdtemp(prefix="cgan-services-", dir="/tmp"))
    folder.chmod(0o711)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


@contextmanager
def throwaway_services() -> Iterator[Throwaway]:
    """Starts both, and stops them whatever happens."""
    with throwaway_folder() as folder:
        services = Throwaway(folder, free_port())
        try:
            done = services.up()
            assert done.returncode == 0, done.stderr
            yield services
        finally:
            services.command("down")
