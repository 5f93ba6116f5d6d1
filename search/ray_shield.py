"""Keeps a SIGTERM to a whole group of processes from the Ray that its driver has begun."""

import functools
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import psutil
import ray


@contextmanager
def sigterm_blocked() -> Iterator[None]:
    """Has a Ray that is begun in the block hear no SIGTERM, as Ray itself has it hear no SIGINT.

    By `timeout` or systemd Ray would end before its driver has saved what runs, and a driver
    whose Ray is gone is aborted by Ray's own code.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def shut_down() -> None:
    """Ends a Ray that hears no SIGTERM: `ray.shutdown` would wait a second for each process."""
    node = ray._private.worker._global_node
    if node is None:  # it was ended already
        return
    servers = [info.process.pid for infos in node.all_processes.values() for info in infos]
    below = []  # those of a node manager that is killed would look for it for a minute
    for pid in servers:
        with suppress(psutil.NoSuchProcess):
            below += psutil.Process(pid).children(recursive=True)
    node.kill_all_processes = functools.partial(_kill, node.kill_all_processes)
    ray.shutdown()
    for process in below:
        with suppress(psutil.NoSuchProcess):
            process.kill()


def _kill(kill_all_processes: Callable[..., None], **options: Any) -> None:
    kill_all_processes(**{**options, "allow_graceful": False})
