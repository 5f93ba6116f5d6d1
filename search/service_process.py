"""A process that outlives the command which started it, told from all others by what it was."""

import os
import signal
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from subprocess import DEVNULL, STDOUT, Popen

from pydantic import BaseModel, ConfigDict

MARK = "CGAN_SERVICE"  # an environment variable that children inherit
LARGEST_LOG_BYTES = 10_000_000
_LOOK_SECONDS = 0.05


class ServiceProcess(BaseModel):
    """What identifies a process that we started, though its number may come again.

    Attributes:
        pid: Its number.
        start_ticks: When it began, in ticks of the kernel's own clock, which no one sets.
        boot: Since which start of the machine that clock runs.
        mark: Value of `MARK` in its environment and in that of its children.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    pid: int
    start_ticks: int
    boot: str
    mark: str

    def is_alive(self) -> bool:
        """Whether it still runs."""
        return self.boot == _boot() and _start_ticks(self.pid) == self.start_ticks

    def members(self) -> list[int]:
        """Returns the process, if it runs, and all that carry its mark."""
        if self.boot != _boot():
            return []
        first = [self.pid] if self.is_alive() else []
        return first + [pid for pid in _marked(self.mark) if pid != self.pid]

    def stop(self, softly: signal.Signals, firmly: signal.Signals, seconds: float) -> None:
        """Asks it to end, and ends what is left of it when `seconds` have passed."""
        for number in (softly, firmly, signal.SIGKILL):
            alone = number == softly and self.is_alive()
            for pid in [self.pid] if alone else self.members():
                self._signal(pid, number)
            deadline = time.monotonic() + seconds
            while self.members() and time.monotonic() < deadline:
                time.sleep(_LOOK_SECONDS)

    def _signal(self, pid: int, number: signal.Signals) -> None:
        """Signals a process through a handle, taken before it is looked at once more."""
        with suppress(ProcessLookupError):
            handle = os.pidfd_open(pid)
            try:
                if pid in self.members():
                    signal.pidfd_send_signal(handle, number)
            finally:
                os.close(handle)


def start(
    command: Sequence[str | Path],
    environment: Mapping[str, str],
    log: Path,
    user: str | None = None,
) -> ServiceProcess:
    """Starts a process of its own session; what it says is added to `log`.

    Args:
        command: Program and arguments.
        environment: All of its environment, but for the mark.
        log: Kept from growing for ever: a large one is put aside first.
        user: Whom it runs as, with that user's group; None for ourselves.
    """
    if log.exists() and log.stat().st_size > LARGEST_LOG_BYTES:
        log.replace(log.with_name(log.name + ".1"))
    mark = uuid.uuid4().hex
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        process = Popen(
            [str(word) for word in command],
            env={**environment, MARK: mark},
            cwd="/",
            stdin=DEVNULL,
            stdout=descriptor,
            stderr=STDOUT,
            start_new_session=True,
            user=user,
            group=user,
            extra_groups=None if user is None else [],
        )
    finally:
        os.close(descriptor)
    # Where it has died by now, zero is the start of no process.
    ticks = _start_ticks(process.pid) or 0
    return ServiceProcess(pid=process.pid, start_ticks=ticks, boot=_boot(), mark=mark)


def last_lines(log: Path, count: int = 15) -> str:
    """Returns the end of a log, indented."""
    try:
        lines = log.read_text(errors="replace").splitlines()
    except OSError:
        return ""
    return "\n".join(f"    {line}" for line in lines[-count:])


def _boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _start_ticks(pid: int) -> int | None:
    """Returns when a process began; None where it is gone, be it that nobody has asked why."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()  # the name before it may hold anything
    state, ticks = fields[0], fields[19]
    return None if state in "ZX" else int(ticks)


def _marked(mark: str) -> Iterator[int]:
    wanted = f"{MARK}={mark}".encode()
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            with suppress(OSError):  # gone, or another user's
                if wanted in (folder / "environ").read_bytes().split(b"\0"):
                    yield int(folder.name)
