"""The drivers of one study: begun, looked into, killed and begun again."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil

from benchmarks.fault_room import Room
from search.events import Ended, Event, Started
from search.history import JOURNAL_NAME
from search.journal import Journal

MARK = "CGAN_FAULTS"  # in the environment of all that a campaign starts
_FAKETIME = Path("/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1")
_RAY = {
    # Ray notices within seconds what takes it half a minute by default.
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "2000",
    "RAY_health_check_failure_threshold": "4",
    "RAY_gcs_rpc_server_reconnect_timeout_s": "15",
}


class Drivers:
    """A study's drivers, of which one lives at a time.

    Args:
        room: Where the study is.
        pack: Trials that share an engine; 1 for a process each.
        clock: The file that tells its clock how wrong it is; None for the host's clock.
        log: What they say.
        temporary: A short path for Ray's own files.
        uri: Where runs are tracked; None for the services.
        seconds: Between measurements.
    """

    def __init__(
        self,
        room: Room,
        *,
        pack: int,
        clock: Path | None,
        log: Path,
        temporary: Path,
        uri: str | None,
        seconds: float,
    ) -> None:
        self.room, self.pack, self.clock, self.log = room, pack, clock, log
        self.sessions = 0
        self._uri = uri
        self._words = ["--pack", str(pack), "--seconds", str(seconds)]
        self._words += ["--tracking-uri", uri] if uri else []
        self._environment = os.environ | _RAY | {
            "RAY_TMPDIR": str(temporary),
            "TMPDIR": str(temporary),
            "PYTHONPATH": str(Path(__file__).parents[1]),
            "OMP_NUM_THREADS": "1",
            MARK: str(os.getpid()),
        }  # fmt: skip
        if clock is not None:
            set_clock(clock, 0)
            self._environment |= {
                "LD_PRELOAD": str(_FAKETIME),
                "FAKETIME_TIMESTAMP_FILE": str(clock),
                "FAKETIME_CACHE_DURATION": "1",
                "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            }
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The driver's."""
        assert self._process is not None
        return self._process.pid

    def begin(self) -> None:
        """Starts the next driver, with the same words as the one before but for `--resume`."""
        command = [sys.executable, "-m", "benchmarks.fault_driver", str(self.room.folder)]
        resume = ["--resume"] if self.sessions else []
        self.sessions += 1
        within = self.room.inside([*command, *self._words, *resume])
        with self.log.open("ab") as log:
            log.write(f"--- session {self.sessions}\n".encode())
            log.flush()
            self._process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", *within],  # it, and its Ray, die with us
                env=self._environment,
                cwd=Path(__file__).parents[1],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def sync(self) -> int:
        """Has `search.sync` deliver what MLflow lacks; returns its exit code."""
        uri = self._uri and ["--tracking-uri", self._uri]
        command = [sys.executable, "-m", "search.sync", str(self.room.folder), *(uri or [])]
        environment = {k: v for k, v in self._environment.items() if k != "LD_PRELOAD"}
        with self.log.open("ab") as log:
            done = subprocess.run(
                ["setpriv", "--pdeathsig", "KILL", *self.room.inside(command)],
                env=environment,
                cwd=Path(__file__).parents[1],
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        return done.returncode

    def code(self) -> int | None:
        """The driver's exit code; None while it runs."""
        assert self._process is not None
        return self._process.poll()

    def end(self) -> None:
        """Kills the driver, if there is one, and what it began."""
        if self._process is None:
            return
        begun = [self.pid] + [child.pid for child in self.children()]
        for pid in begun:
            kill(pid)
        self._process.wait()

    def children(self) -> list[psutil.Process]:
        """All that the driver began, and those began."""
        try:
            return psutil.Process(self.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []

    def named(self, name: str) -> list[int]:
        """The driver's processes of a name."""
        found = []
        for child in self.children():
            try:
                if child.name() == name:
                    found.append(child.pid)
            except psutil.NoSuchProcess:
                continue
        return found

    def trainers(self) -> dict[int, list[Started]]:
        """The processes that train now, and what each of them does."""
        active: dict[tuple[int, int], Started] = {}
        for event in self.events():
            if isinstance(event, Started):
                active[event.run] = event
            elif isinstance(event, Ended):
                active.pop(event.run, None)
        alive = {child.pid for child in self.children()}
        found: dict[int, list[Started]] = {}
        for started in active.values():
            if started.pid in alive:
                found.setdefault(started.pid, []).append(started)
        return found

    def events(self) -> list[Event]:
        """The journal as it is now."""
        path = self.room.seen / JOURNAL_NAME
        return Journal.read(path) if path.exists() else []

    def measured(self) -> int:
        """How many measurements the journal holds."""
        path = self.room.seen / JOURNAL_NAME
        return path.read_bytes().count(b'"event":"measured"') if path.exists() else 0


def kill(pid: int) -> None:
    """Sends SIGKILL, unless it is gone."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def set_clock(file: Path, seconds: int) -> None:
    """Says how far a clock is ahead, or behind where it is below zero."""
    temporary = file.with_suffix(".new")
    temporary.write_text(f"{seconds:+d}\n")
    temporary.replace(file)


def has_faketime() -> bool:
    """Whether clocks can be made to jump."""
    return _FAKETIME.exists()
