"""A throw-away MLflow server on PostgreSQL, with basic authentication, as a cluster's head has."""

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.request import urlopen

START_SECONDS = 120.0
_USER = "admin"
_AUTH = """[mlflow]
default_permission = READ
database_uri = {database}
admin_username = {user}
authorization_function = mlflow.server.auth:authenticate_request_basic_auth
auth_cache_ttl_seconds = 60
"""


class ServerError(RuntimeError):
    """PostgreSQL or MLflow did not start."""


@dataclass(frozen=True)
class TrackingServer:
    """One MLflow server; `environment` holds what its clients need to be let in."""

    uri: str
    environment: dict[str, str]


@contextmanager
def tracking_server(workers: int = 1) -> Iterator[TrackingServer]:
    """Starts PostgreSQL and MLflow in a folder of their own, and removes all at the end.

    Raises:
        ServerError: PostgreSQL is not installed, or one of the two does not start.
    """
    with tempfile.TemporaryDirectory(prefix="mlflow-") as name:
        folder = Path(name)
        folder.chmod(0o755)  # root's PostgreSQL is another user's, who must get through
        with _postgres(folder / "postgres") as database:
            environment = {
                "MLFLOW_TRACKING_USERNAME": _USER,
                "MLFLOW_TRACKING_PASSWORD": secrets.token_urlsafe(16),
            }
            with _mlflow(folder, database, environment, workers) as uri:
                yield TrackingServer(uri, environment)


@contextmanager
def _postgres(folder: Path) -> Iterator[str]:
    """Yields the URI of an empty database behind a Unix socket."""
    programs = _programs()
    account = "postgres" if os.geteuid() == 0 else None
    folder.mkdir(mode=0o700)
    if account:
        shutil.chown(folder, account, account)
    data = folder / "data"

    def call(program: str, *words: str) -> None:
        done = subprocess.run(
            [str(programs / program), *words],
            cwd=folder,
            user=account,
            group=account,
            extra_groups=[] if account else None,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        if done.returncode:
            raise ServerError(f"{program}: {done.stderr.strip()}")

    call("initdb", "-D", str(data), "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-sync")
    options = f"-k {folder} -c listen_addresses=''"
    call("pg_ctl", "-D", str(data), "-w", "-l", str(folder / "log"), "-o", options, "start")
    try:
        for database in ("mlflow", "users"):
            call("createdb", "-h", str(folder), "-U", "postgres", database)
        yield f"postgresql+psycopg:///{{}}?host={folder}&user=postgres"
    finally:
        call("pg_ctl", "-D", str(data), "-w", "-m", "immediate", "stop")


def _programs() -> Path:
    """Debian keeps a server's programs off the PATH, by version."""
    found = shutil.which("initdb")
    folders = [Path(found).resolve().parent] if found else []
    folders += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    if not folders:
        raise ServerError("PostgreSQL is not installed; on Debian: apt-get install postgresql")
    return folders[0]


@contextmanager
def _mlflow(
    folder: Path, database: str, environment: dict[str, str], workers: int
) -> Iterator[str]:
    config = folder / "basic_auth.ini"
    config.write_text(_AUTH.format(database=database.format("users"), user=_USER))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    place = ["--host", "127.0.0.1", "--port", str(port), "--workers", str(workers)]
    artifacts = ["--artifacts-destination", str(folder / "artifacts")]
    log = folder / "mlflow.log"
    process = subprocess.Popen(
        [sys.executable, "-m", "mlflow", "server", "--app-name", "basic-auth", *place, *artifacts],
        cwd=folder,
        env=os.environ
        | {
            "MLFLOW_BACKEND_STORE_URI": database.format("mlflow"),
            "MLFLOW_AUTH_CONFIG_PATH": str(config),
            "MLFLOW_AUTH_ADMIN_PASSWORD": environment["MLFLOW_TRACKING_PASSWORD"],
            "MLFLOW_FLASK_SERVER_SECRET_KEY": secrets.token_urlsafe(32),
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            "MLFLOW_DISABLE_TELEMETRY": "true",
        },
        stdout=log.open("w"),
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        uri = f"http://127.0.0.1:{port}"
        _await_health(uri, process, log)
        yield uri
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # its workers too
        process.wait()


def _await_health(uri: str, process: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError), urlopen(f"{uri}/health"):
            return
        time.sleep(0.2)
    raise ServerError(f"mlflow server did not start: {log.read_text()[-2000:]}")
