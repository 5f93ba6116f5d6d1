"""What a user does in the lab: commands on a laptop, and by ssh on the cluster's head."""

import shlex
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import yaml
from cluster_file import lab_cluster
from lab import REPOSITORY, Lab

HEAD, WORKERS, LAPTOP = "head", ("worker1", "worker2"), "laptop"
CLUSTER_FILE = "cluster.yaml"


class CommandError(AssertionError):
    """A command that was to succeed did not."""


class User:
    """Someone at a laptop in a lab, with the repository and a cluster file there."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        for name in (HEAD, *WORKERS, LAPTOP):
            lab.start(name)
        spec = lab_cluster(lab.addresses[HEAD], [lab.addresses[name] for name in WORKERS])
        spec["file_mounts"]["~/cgan-search"] = str(REPOSITORY)
        self.write(LAPTOP, CLUSTER_FILE, spec)

    def write(self, host: str, path: str, content: Any) -> None:
        """Writes a YAML file on a host; `path` begins at the user's home."""
        text = yaml.safe_dump(content, sort_keys=False)
        command = self.lab.inside(host, "sh", "-c", f"cat > ~/{path}")
        subprocess.run(command, input=text, text=True, check=True)

    def on_laptop(self, command: str, *, seconds: float = 300.0) -> str:
        """Runs a shell command on the laptop; returns what it printed.

        Raises:
            CommandError: It failed, or took longer than `seconds`.
        """
        prepared = (
            f"export PATH={shlex.quote(str(_bin()))}:$PATH RAY_USAGE_STATS_ENABLED=0 "
            f"RAY_AUTH_MODE=token; {command}"
        )
        return _output(self.lab.inside(LAPTOP, "bash", "-c", prepared), command, seconds)

    def on(self, host: str, command: str, *, seconds: float = 180.0) -> str:
        """Gives a host a command by ssh from the laptop; returns what it printed.

        Raises:
            CommandError: It failed, or took longer than `seconds`.
        """
        return _output(self.lab.ssh(LAPTOP, host, command), command, seconds)

    def begin(self, host: str, command: str, log: str) -> "subprocess.Popen[bytes]":
        """Begins a command by ssh; what it prints goes to a file beside the lab's."""
        with (self.lab.folder / log).open("wb") as file:
            return subprocess.Popen(
                self.lab.ssh(LAPTOP, host, command),
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
            )

    def has_ray(self, host: str) -> bool:
        """Whether Ray's process of a node runs on a host; to ask Ray costs seconds of a core."""
        return any("/raylet/raylet " in args for _, args in self.lab.hosts[host].processes())


def wait_until(what: str, holds: Callable[[], bool], seconds: float) -> float:
    """Waits until something holds; returns for how long.

    Raises:
        CommandError: It does not within `seconds`.
    """
    begun = time.monotonic()
    while not holds():
        if time.monotonic() - begun > seconds:
            raise CommandError(f"not within {seconds:g} s: {what}")
        time.sleep(0.5)
    return time.monotonic() - begun


def _bin() -> str:
    return sys.executable.rpartition("/")[0]


def _output(words: list[str], command: str, seconds: float) -> str:
    done = subprocess.run(
        words,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=seconds,
    )
    if done.returncode:
        raise CommandError(f"{command}: exit {done.returncode}\n{done.stdout[-4000:]}")
    return done.stdout  # the line ends of a terminal are read as any others
