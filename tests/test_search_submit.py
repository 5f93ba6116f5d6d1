"""A study submitted from a laptop to a real head with a token, over a line that breaks."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import NamedTuple

import pytest
from tiny_study import write_space

from search.command_line import INTERRUPTED, USER_ERROR
from search.job_address import find_job_server
from search.recorded_study import RecordedStudy

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(600)]

ROOT = Path(__file__).parent.parent
BIN = Path(sys.executable).parent
TOKEN = "0123456789abcdef0123456789abcdef"


class Head(NamedTuple):
    """A cluster of one node: its job server, and the home of who started it."""

    port: int
    home: Path


def free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        held = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [one.getsockname()[1] for one in held]


def environment(home: Path, token: str) -> dict[str, str]:
    """That of a user with a home, a token and nothing else of Ray."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    kept |= {"HOME": str(home), "PATH": "/usr/bin:/bin"}  # no `python` that knows Ray
    (home / ".ray").mkdir(parents=True, exist_ok=True)
    (home / ".ray" / "auth_token").write_text(token)
    return kept | {"PYTHONPATH": str(ROOT), "XDG_CONFIG_HOME": str(home / ".config")}


@pytest.fixture(scope="module")
def head() -> Iterator[Head]:
    """As `ray start --head` begins it, with ports of its own."""
    names = [
        *("port", "ray-client-server-port", "dashboard-port", "dashboard-agent-listen-port"),
        *("dashboard-agent-grpc-port", "metrics-export-port", "runtime-env-agent-port"),
    ]
    ports = dict(zip(names, free_ports(len(names)), strict=True))
    # Below /tmp: the paths of Ray's sockets must be short.
    home = Path(tempfile.mkdtemp(prefix="head-", dir="/tmp"))
    flags = [f"--{name}={port}" for name, port in ports.items()]
    flags += ["--min-worker-port=0", "--max-worker-port=0", f"--temp-dir={home / 'ray'}"]
    with (home / "out.txt").open("w") as out:
        ray = subprocess.Popen(
            [BIN / "ray", "start", "--head", "--block", "--num-cpus=2", *flags],
            env=environment(home, TOKEN)
            | {"RAY_AUTH_MODE": "token", "RAY_USAGE_STATS_ENABLED": "0"},
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        deadline = time.monotonic() + 120
        while find_job_server(f"127.0.0.1:{ports['dashboard-port']}") is None:
            assert ray.poll() is None, (home / "out.txt").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.2)
        yield Head(ports["dashboard-port"], home)
    finally:
        ray.terminate()
        with suppress(subprocess.TimeoutExpired):
            ray.wait(30)
        with suppress(ProcessLookupError):  # what `ray start` itself started
            os.killpg(ray.pid, signal.SIGKILL)
        shutil.rmtree(home, ignore_errors=True)


class Tunnel:
    """A port that leads to another one, until it is cut."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._ends: list[socket.socket] = []
        (self.port,) = free_ports(1)
        self.open()

    def open(self) -> None:
        self._server = socket.create_server(("127.0.0.1", self.port))
        threading.Thread(target=self._serve, args=(self._server,), daemon=True).start()

    def cut(self) -> None:
        for end in (self._server, *self._ends):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
        self._ends.clear()

    def _serve(self, server: socket.socket) -> None:
        with suppress(OSError):
            while True:
                near = server.accept()[0]
                far = socket.create_connection(("127.0.0.1", self._target))
                self._ends += [near, far]
                for pair in ((near, far), (far, near)):
                    threading.Thread(target=self._pump, args=pair, daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(2**16):
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)


class Laptop:
    """Where the command is given."""

    def __init__(self, folder: Path, token: str = TOKEN) -> None:
        self.folder = folder
        folder.mkdir()
        self._environment = environment(folder / "home", token)

    def submit(self, port: int, *words: str) -> subprocess.Popen[str]:
        address = f"127.0.0.1:{port}"
        return subprocess.Popen(
            [sys.executable, "-m", "search.run", "tiny.yaml", "--address", address, *words],
            cwd=self.folder,
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )


def heard(process: subprocess.Popen[str], words: str) -> str:
    """Reads a command's standard error until it says something; returns the line."""
    assert process.stderr is not None
    said = []
    for line in process.stderr:
        said.append(line)
        if words in line:
            return line
    raise AssertionError("".join(said))


def files(folder: Path) -> dict[str, bytes]:
    found = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*")}
    apart = ("tune", "journal.lock", "submitted.json")
    return {
        name: path.read_bytes()
        for name, path in found.items()
        if path.is_file() and not name.startswith(apart)
    }


def test_a_wrong_token_is_refused_in_words(head: Head, tmp_path: Path) -> None:
    stranger = Laptop(tmp_path / "stranger", token="f" * 32)
    write_space(stranger.folder)
    process = stranger.submit(head.port)
    out, err = process.communicate(timeout=200)
    assert (process.returncode, out) == (USER_ERROR, "")
    assert "refuses the token in ~/.ray/auth_token; copy the one of the cluster's head" in err
    assert "Traceback" not in err
    assert not (stranger.folder / "runs").exists()


def test_a_study_goes_on_without_who_submitted_it(
    head: Head, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    laptop = Laptop(tmp_path / "laptop")
    write_space(
        laptop.folder,
        stages=[{"kind": "model", "sampler": "random", "trials": 2}],
        scheduler={"kind": "none"},
        budget={"kimg_per_trial": 0.8, "measure_kimg": 0.4, "trials": 2},
    )
    there, here = head.home / "runs" / "tiny", laptop.folder / "runs" / "tiny"
    tunnel = Tunnel(head.port)
    request.addfinalizer(tunnel.cut)

    first = laptop.submit(tunnel.port)
    job = heard(first, "job cgan.tiny.").split()[1].rstrip(";")
    second = laptop.submit(tunnel.port)
    heard(second, f"following job {job}")
    tunnel.cut()
    heard(first, "connection lost")
    tunnel.open()
    heard(first, "connected again")
    first.kill()
    first.communicate()

    heard(second, "if it is cut short")
    second.send_signal(signal.SIGINT)
    again = f"-m search.run tiny.yaml --address 127.0.0.1:{tunnel.port}\n"
    heard(second, "Follow it again by:")
    heard(second, again)
    second.send_signal(signal.SIGINT)
    _, said = second.communicate(timeout=200)
    assert second.returncode == INTERRUPTED, said
    assert "asked to stop" in said
    assert files(here) == files(there)
    assert not (there / "summary.json").exists()

    third = laptop.submit(tunnel.port, "--json")
    out, said = third.communicate(timeout=200)
    assert third.returncode == 0, said
    assert json.loads(out) == json.loads((there / "summary.json").read_text())
    assert files(here) == files(there)
    assert not (here / "tune").exists()
    ledger = RecordedStudy.read(here).ledger
    assert len(ledger.sessions) == 2
    assert sorted(ledger.trials) == [0, 1]
