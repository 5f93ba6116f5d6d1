"""Whether the Ray that a driver works with is still there; by itself Tune would wait for ever."""

import time

import ray

from search.stop_request import RayLostError

CHECK_SECONDS = 5.0


class RayWatch:
    """Looks every few seconds whether the node of this process is alive."""

    def __init__(self) -> None:
        self._node = ray.get_runtime_context().get_node_id()
        self._next = 0.0

    def check(self) -> None:
        """Does nothing between two looks.

        Raises:
            RayLostError: Ray has noticed that the node is dead.
        """
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + CHECK_SECONDS
        if not any(node["NodeID"] == self._node and node["Alive"] for node in ray.nodes()):
            raise RayLostError("Ray on this machine died")
