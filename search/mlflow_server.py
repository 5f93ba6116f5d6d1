"""MLflow's tracking server as a process: who may ask it, where its data are, how it is well."""

import base64
import configparser
import os
import shlex
import signal
import socket
import ssl
import sys
import time
import urllib.error
import urllib.request
from contextlib import suppress
from http import HTTPStatus
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psutil

from search.mlflow_schema import AUTHENTICATION, TRACKING
from search.postgres import Postgres
from search.private_file import read_or_make_secret, write_private
from search.service_process import ServiceProcess, last_lines, start
from search.services_file import Services, ServicesError
from search.services_state import Settings, StateFolder

ADMIN = "admin"
START_SECONDS = 180.0  # a first start makes all tables
STOP_SECONDS = 20.0
REQUEST_STOP_SECONDS = 5
ASK_SECONDS = 10.0
_EVERY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "[::1]", "": "127.0.0.1"}
_LOOPBACK = ("127.0.0.1", "localhost", "::1")


class MlflowServer:
    """The MLflow server of a state folder, over its database.

    Args:
        state: Where its secrets and its log are.
        settings: Where it listens, and where artifacts go.
    """

    def __init__(self, state: StateFolder, settings: Settings) -> None:
        self._state = state
        self._settings = settings

    @property
    def uri(self) -> str:
        """Where clients on this host find it."""
        host = _EVERY_ADDRESS.get(self._settings.host, self._settings.host)
        host = f"[{host}]" if ":" in host and not host.startswith("[") else host
        return f"http{'s' if self._settings.tls_cert else ''}://{host}:{self._settings.port}"

    @property
    def artifacts(self) -> str:
        """Where it keeps artifacts."""
        if self._settings.artifacts is not None:
            return self._settings.artifacts
        return str(Path(self._settings.storage or self._state.path) / "artifacts")

    @property
    def services(self) -> Services:
        """What clients must know."""
        return Services(
            tracking_uri=self.uri,
            username=ADMIN,
            password_file=str(self._state.secret("admin-password")),
            storage=self._settings.storage,
            ca_cert=self._settings.tls_ca,
            state=str(self._state.path),
            host=socket.gethostname(),
        )

    def check(self) -> None:
        """Looks for what would keep it from starting, but for a port that is taken.

        Raises:
            ServicesError: Something would, with the flag and the remedy.
        """
        if find_spec("flask_wtf") is None:
            raise ServicesError(
                "Flask-WTF, which MLflow's authentication needs, is missing; install it by "
                "`pip install -c constraints.txt '.[services]'`"
            )
        self._check_tls()
        if "://" not in self.artifacts:
            try:
                Path(self.artifacts).mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise ServicesError(
                    f"--storage or --artifacts: {self.artifacts} cannot be made "
                    f"({error.strerror}); name a folder that can be written"
                ) from None
        elif self.artifacts.startswith("s3://") and find_spec("boto3") is None:
            raise ServicesError(
                f"--artifacts {self.artifacts}: needs boto3; install it by `pip install boto3`"
            )

    def check_port(self) -> None:
        """Looks whether somebody else listens there.

        Raises:
            ServicesError: Somebody does, whom it names where it can.
        """
        host, port = self._settings.host, self._settings.port
        try:
            family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[
                0
            ]
            with socket.socket(family, kind) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(address)
        except socket.gaierror as error:
            raise ServicesError(f"--host {host}: {error.strerror}") from None
        except OSError as error:
            raise ServicesError(
                f"--port {port}: cannot be listened at on {host} ({error.strerror})"
                f"{_listener(port)}; end that, or choose another by --port"
            ) from None

    def start(self, postgres: Postgres) -> ServiceProcess:
        """Starts it and returns at once: see `wait`."""
        self._write_configuration(postgres)
        return start(self._command(postgres), self._environment(postgres), self._state.log)

    def wait(self, process: ServiceProcess) -> None:
        """Waits until it answers to its user.

        Raises:
            ServicesError: It has ended, or does not answer in time; with the end of its log.
        """
        deadline = time.monotonic() + START_SECONDS
        problem: str | None = "it has ended"
        while process.is_alive() and time.monotonic() < deadline:
            if (problem := self.problem()) is None:
                return
            if problem == self.refusal:
                raise ServicesError(problem)
            time.sleep(0.1)
        raise ServicesError(
            f"the MLflow server did not start: {problem}\n"
            f"  the end of {self._state.log}:\n{last_lines(self._state.log)}"
        )

    def stop(self, process: ServiceProcess) -> None:
        """Ends it, after the requests that it is at."""
        process.stop(signal.SIGTERM, signal.SIGKILL, STOP_SECONDS)

    def problem(self) -> str | None:
        """Asks it as a client would, database included; returns what is wrong, if anything."""
        try:
            self._ask("health")
            self._ask("api/2.0/mlflow/experiments/search?max_results=1")
        except urllib.error.HTTPError as error:
            return (
                self.refusal if error.code == HTTPStatus.UNAUTHORIZED else f"{self.uri}: {error}"
            )
        except (OSError, ValueError) as error:
            return f"{self.uri}: {error}"
        return None

    @property
    def refusal(self) -> str:
        """What is said of a server that runs, and takes another password than the one on file."""
        secret = self._state.secret("admin-password")
        return (
            f"{self.uri}: refuses the password of user {ADMIN} in {secret}: it was changed inside "
            "MLflow. Write the new one into that file, then `python -m search.services up` again"
        )

    def version(self) -> str | None:
        """Returns the version of the one that runs; None where it does not answer."""
        with suppress(OSError, ValueError):
            return self._ask("version")
        return None

    def _ask(self, path: str) -> str:
        password = read_or_make_secret(self._state.secret("admin-password"))
        token = base64.b64encode(f"{ADMIN}:{password}".encode()).decode()
        request = urllib.request.Request(
            f"{self.uri}/{path}", headers={"Authorization": f"Basic {token}"}
        )
        handlers: list[Any] = [urllib.request.ProxyHandler({})]  # it is on this host
        if self._settings.tls_cert:
            context = ssl.create_default_context(cafile=self._settings.tls_ca)
            handlers.append(urllib.request.HTTPSHandler(context=context))
        with urllib.request.build_opener(*handlers).open(request, timeout=ASK_SECONDS) as answer:
            return str(answer.read().decode())

    def _check_tls(self) -> None:
        settings = self._settings
        if (settings.tls_cert is None) != (settings.tls_key is None):
            raise ServicesError("--tls-cert and --tls-key: must be given together")
        if settings.tls_cert is None:
            if settings.host not in _LOOPBACK:
                raise ServicesError(
                    f"--host {settings.host}: would send passwords over the network in the clear; "
                    "add --tls-cert and --tls-key, or leave it at 127.0.0.1 and use a tunnel"
                )
            return
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(
                settings.tls_cert, settings.tls_key
            )
            ssl.create_default_context(cafile=settings.tls_ca)
        except (OSError, ssl.SSLError) as error:
            raise ServicesError(
                f"--tls-cert {settings.tls_cert}, --tls-key {settings.tls_key}, --tls-ca "
                f"{settings.tls_ca}: cannot be used ({error}); give PEM files that belong together"
            ) from None

    def _write_configuration(self, postgres: Postgres) -> None:
        parser = configparser.RawConfigParser()
        parser["mlflow"] = {
            "default_permission": "READ",
            "database_uri": postgres.uri(AUTHENTICATION.database).replace("%", "%%"),
            "admin_username": ADMIN,
            "admin_password": read_or_make_secret(self._state.secret("admin-password")),
            "auth_cache_ttl_seconds": "60",  # else each request hashes the password anew
        }
        path = self._state.secret("auth.ini")
        write_private(path, "")
        with path.open("w") as file:
            parser.write(file)

    def _command(self, postgres: Postgres) -> list[str | Path]:
        settings = self._settings
        # The log of requests would grow without end, and an idle client with TLS hold up the end.
        options = ["--no-access-log", "--timeout-graceful-shutdown", str(REQUEST_STOP_SECONDS)]
        if settings.tls_cert and settings.tls_key:
            options += ["--ssl-certfile", settings.tls_cert, "--ssl-keyfile", settings.tls_key]
        hosts = [f"{name}{port}" for name in ("localhost", "127.0.0.1", "[::1]", settings.host)
                 for port in ("", ":*")]  # fmt: skip
        return [
            sys.executable, "-m", "mlflow", "server",
            "--backend-store-uri", postgres.uri(TRACKING.database),
            "--artifacts-destination", self.artifacts,
            "--host", settings.host, "--port", str(settings.port), "--workers", "1",
            "--app-name", "basic-auth",
            "--allowed-hosts", ",".join(dict.fromkeys([*hosts, *settings.allowed_hosts])),
            "--uvicorn-opts", shlex.join(options),
        ]  # fmt: skip

    def _environment(self, postgres: Postgres) -> dict[str, str]:
        # What steers clients of MLflow and PostgreSQL in the caller's shell is not meant for it.
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW_", "PG"))}
        return kept | {
            "PGPASSFILE": str(postgres.passwords),
            "MLFLOW_AUTH_CONFIG_PATH": str(self._state.secret("auth.ini")),
            "MLFLOW_FLASK_SERVER_SECRET_KEY": read_or_make_secret(self._state.secret("flask-key")),
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # seven processes for nothing of ours
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "PYTHONUNBUFFERED": "1",
        }


def _listener(port: int) -> str:
    """Returns who listens at a port, as far as we may know."""
    with suppress(psutil.Error):
        for found in psutil.net_connections("inet"):
            listens = found.status == psutil.CONN_LISTEN and found.laddr[1:2] == (port,)
            if listens and found.pid:
                process = psutil.Process(found.pid)
                return f": process {found.pid} ({process.name()}) has it"
    return ""
