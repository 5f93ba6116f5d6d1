"""A PostgreSQL cluster of our own: in a folder, behind a Unix socket, with passwords."""

import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any
from urllib.parse import quote

from search.mlflow_schema import SCHEMAS, TRACKING
from search.private_file import read_or_make_secret, write_private
from search.service_process import ServiceProcess, last_lines, start
from search.services_file import ServicesError
from search.services_state import StateFolder

USER = "mlflow"  # owns the databases and nothing else
START_SECONDS = 120.0  # with what it must repair after a crash
STOP_SECONDS = 30.0
HELD_SECONDS = 20.0
HELD_LOOK_SECONDS = 0.5
# A killed server's number is its own until its parent asks; its children need a moment to notice.
_HELD = ("another postmaster", "pre-existing shared memory block")
_SUPERUSER = "postgres"
_DEBIAN = Path("/usr/lib/postgresql")
_LONGEST_SOCKET_PATH = 107  # of the kernel
_SOCKET_NAME = ".s.PGSQL.5432"


class Postgres:
    """The database server of a state folder.

    Args:
        state: Whose `postgres/` holds the cluster (`data/`) and its socket.

    Attributes:
        socket: The folder of the socket, which is what clients call its host.

    Raises:
        ServicesError: No PostgreSQL, or none of the cluster's version, is installed.
    """

    def __init__(self, state: StateFolder) -> None:
        self._state = state
        self._data = state.postgres / "data"
        self.socket = state.postgres / "socket"
        version = self._data / "PG_VERSION"
        self._programs = find_programs(version.read_text().strip() if version.exists() else None)

    def program(self, name: str) -> Path:
        """Returns the path of one of PostgreSQL's programs."""
        return self._programs / name

    @property
    def driver(self) -> Any:
        """The module psycopg.

        Raises:
            ServicesError: It is not installed.
        """
        try:
            import psycopg
        except ImportError:
            raise ServicesError(
                "psycopg, PostgreSQL's driver, is missing; install it by "
                "`pip install -c constraints.txt '.[services]'`"
            ) from None
        return psycopg

    @property
    def passwords(self) -> Path:
        """The file for `PGPASSFILE`."""
        return self._state.secret(f"{USER}.pgpass")

    def uri(self, database: str) -> str:
        """Returns the URI of a database, without a password: see `passwords`."""
        return f"postgresql+psycopg://{USER}@/{database}?host={quote(str(self.socket))}"

    def create(self) -> None:
        """Makes the cluster where it is missing; what was begun and not finished is begun anew."""
        # initdb writes PG_VERSION first and pg_control last but for the databases' own files, so
        # a folder counts only when it was renamed.
        if self._data.exists():
            return
        path = str(self.socket / _SOCKET_NAME)
        if len(path) > _LONGEST_SOCKET_PATH:
            raise ServicesError(
                f"--state {self._state.path}: too long for a socket's path by "
                f"{len(path) - _LONGEST_SOCKET_PATH} characters; name another folder"
            )
        begun = self._data.with_name("begun")
        shutil.rmtree(begun, ignore_errors=True)
        password = read_or_make_secret(self._state.secret("postgres-password"))
        passed = self._state.postgres / "password"
        write_private(passed, password + "\n")
        if self._state.database_user is not None:
            shutil.chown(passed, self._state.database_user)
        try:
            self._run_as_its_user(
                "initdb", "--pgdata", begun, "--no-locale", "--encoding", "UTF8",
                "--username", _SUPERUSER, "--pwfile", passed, "--auth", "scram-sha-256",
            )  # fmt: skip
        finally:
            passed.unlink()
        begun.rename(self._data)

    def is_held(self) -> bool:
        """Whether the last start failed for what an earlier server left, which soon is gone."""
        end = last_lines(self._state.database_log, 3)
        return any(sign in end for sign in _HELD)

    def start(self) -> ServiceProcess:
        """Starts the server and returns at once: see `wait`."""
        if not self.socket.exists():
            self._run_as_its_user("mkdir", "-m", "700", self.socket)
        settings = {
            "listen_addresses": "",
            "unix_socket_directories": '"' + str(self.socket).replace('"', '""') + '"',
            "unix_socket_permissions": "0700",
            "password_encryption": "scram-sha-256",
        }
        command: list[str | Path] = [self.program("postgres"), "-D", self._data]
        for name, value in settings.items():
            command += ["-c", f"{name}={value}"]
        return start(command, _environment(), self._state.database_log, self._state.database_user)

    def wait(self, process: ServiceProcess) -> None:
        """Waits until it answers, and makes databases and their owner where they are missing.

        Raises:
            ServicesError: It has ended, or does not answer in time; with the end of its log.
        """
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                self._make_databases()
                return
            except self.driver.OperationalError as problem:
                if process.is_alive() and time.monotonic() < deadline:
                    time.sleep(0.05)
                    continue
                log = self._state.database_log
                raise ServicesError(
                    f"PostgreSQL did not start: {str(problem).strip()}\n"
                    f"  the end of {log}:\n{last_lines(log)}"
                ) from None

    def stop(self, process: ServiceProcess) -> None:
        """Ends it; who is connected is sent away."""
        process.stop(signal.SIGINT, signal.SIGQUIT, STOP_SECONDS)

    def connect(self, database: str = TRACKING.database) -> Any:
        """Returns a connection as the databases' owner.

        Raises:
            psycopg.OperationalError: The server does not answer.
        """
        return self.driver.connect(
            host=str(self.socket),
            dbname=database,
            user=USER,
            passfile=str(self.passwords),
            connect_timeout=5,
        )

    def _make_databases(self) -> None:
        secret = read_or_make_secret(self._state.secret("mlflow-password"))
        write_private(self.passwords, f"*:*:*:{USER}:{secret}\n")
        superuser = read_or_make_secret(self._state.secret("postgres-password"))
        with self.driver.connect(
            host=str(self.socket), dbname="postgres", user=_SUPERUSER, password=superuser,
            autocommit=True, connect_timeout=5,
        ) as connection:  # fmt: skip
            if not connection.execute(
                "select 1 from pg_roles where rolname = %s", [USER]
            ).rowcount:
                # Hashed here, so that no log of statements can hold it.
                digest = connection.pgconn.encrypt_password(
                    secret.encode(), USER.encode(), b"scram-sha-256"
                )
                connection.execute(f"create role {USER} login password '{digest.decode()}'")
            for name in (schema.database for schema in SCHEMAS):
                found = connection.execute("select 1 from pg_database where datname = %s", [name])
                if not found.rowcount:
                    connection.execute(f"create database {name} owner {USER}")

    def _run_as_its_user(self, program: str, *arguments: str | Path) -> None:
        user = self._state.database_user
        path = self.program(program) if program == "initdb" else program
        done = subprocess.run(
            [str(path), *map(str, arguments)],
            env=_environment(), cwd="/", capture_output=True, text=True, check=False,
            user=user, group=user, extra_groups=None if user is None else [],
        )  # fmt: skip
        if done.returncode != 0:
            raise ServicesError(f"{path} failed: {(done.stderr or done.stdout).strip()}")


def find_programs(version: str | None) -> Path:
    """Returns the folder of PostgreSQL's programs: of that major version, else the newest.

    Raises:
        ServicesError: There is none.
    """
    folders = sorted(_DEBIAN.glob("*/bin"), key=lambda folder: _number(folder.parent.name))
    if on_path := shutil.which("initdb"):
        folders.insert(0, Path(on_path).resolve().parent)
    folders = [folder for folder in folders if (folder / "initdb").exists()]
    if version is None and folders:
        return folders[-1]
    for folder in folders:
        if version == _major_version(folder):
            return folder
    wanted = "PostgreSQL is" if version is None else f"PostgreSQL {version}, which made it, is"
    raise ServicesError(
        f"{wanted} not installed; `make system` installs Debian's as root "
        "(apt-get install postgresql)"
        + (", and pg_upgradecluster(1) tells how to go on with a newer one" if version else "")
    )


def _number(text: str) -> float:
    return float(text) if re.fullmatch(r"\d+(\.\d+)?", text) else 0.0


def _major_version(folder: Path) -> str:
    said = subprocess.run(
        [str(folder / "postgres"), "--version"], capture_output=True, text=True, check=True
    ).stdout
    found = re.search(r"\d+", said)
    return found[0] if found else ""


def _environment() -> dict[str, str]:
    """Returns what its programs need; no variable of ours can steer it."""
    return {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"}
