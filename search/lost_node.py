"""Whether a machine is gone of which so far only a process is known to have died."""

import platform
import socket
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import ray

# All of Tune waits for it. A machine that is shut down ends its processes within seconds, in any
# order; Ray itself notices a machine that is gone after a quarter of a minute.
PATIENCE_SECONDS = 3.0
LOOK_SECONDS = 0.5
CONNECT_SECONDS = 1.0

Nodes = Callable[[], Iterable[Mapping[str, Any]]]


def is_lost(host: str | None, nodes: Nodes = ray.nodes) -> bool:
    """Looks for some seconds whether Ray has ended on a machine.

    It has where Ray says so, or where its process there, the raylet, lets nobody connect. The
    driver's own machine is never lost to it.

    Args:
        host: Name of the machine, None or an unknown one where nobody could say.
        nodes: What Ray knows of all machines.
    """
    if host == platform.node():
        return False
    until = time.monotonic() + PATIENCE_SECONDS
    while True:
        here = [node for node in nodes() if node["NodeManagerHostname"] == host]
        if not here:
            return False
        # A machine that was away and came back has a node that is dead, and one that lives.
        if not any(node["Alive"] and _answers(node) for node in here):
            return True
        if time.monotonic() >= until:
            return False
        time.sleep(LOOK_SECONDS)


def _answers(node: Mapping[str, Any]) -> bool:
    address = (node["NodeManagerAddress"], node["NodeManagerPort"])
    try:
        socket.create_connection(address, timeout=CONNECT_SECONDS).close()
    except OSError:
        return False
    return True
