"""What a cluster may grow to, and what is to join it by itself, as its head was told."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

VARIABLE = "CGAN_NODES_TO_COME"
BOOTSTRAP_CONFIG = Path("~/ray_bootstrap_config.yaml")  # written by `ray up`; it holds JSON
_STRANGE = (OSError, ValueError, LookupError, TypeError, AttributeError)  # not made by `ray up`


class Promise(NamedTuple):
    """Workers that are to be there unasked, and since when, in seconds since 1970."""

    workers: int
    since: float


def promised_workers(path: Path = BOOTSTRAP_CONFIG) -> Promise:
    """Counts the workers that an autoscaler keeps at all times (`min_workers`).

    With the provider `local` those are all machines of the file.

    Args:
        path: The configuration that `ray up` left for the autoscaler of the head.

    Returns:
        Their number, 0 where no autoscaler was configured, and when `ray up` said so.
    """
    try:
        kinds = _read(path)["available_node_types"].values()
        count = sum(int(kind.get("min_workers", 0)) for kind in kinds)
        return Promise(count, path.expanduser().stat().st_ctime)
    except _STRANGE:
        return Promise(0, 0.0)


def nodes_to_come(path: Path = BOOTSTRAP_CONFIG) -> dict[str, float]:
    """Adds up the resources of the workers that an autoscaler may start, at most.

    Machines whose resources Ray finds out for itself (provider `local`) are not counted: they
    join without being asked for.

    Args:
        path: The configuration that `ray up` left for the autoscaler of the head. The variable
            `CGAN_NODES_TO_COME`, such as `{"CPU": 32, "GPU": 4}`, is for heads without one.

    Returns:
        Amounts by the names that Ray has for them (`CPU`, `GPU`), each as if all nodes were of
        the kind that has most of it; empty where no autoscaler was configured.
    """
    try:
        if told := os.environ.get(VARIABLE):
            return {name: float(amount) for name, amount in json.loads(told).items()}
        config = _read(path)
        workers, most = _workers(config), int(config["max_workers"])
        names = {name for kind in workers for name in kind["resources"]}
        return {name: _largest(name, workers, most) for name in names}
    except _STRANGE:
        return {}


def cpus_of_one_to_come(path: Path = BOOTSTRAP_CONFIG) -> float:
    """Returns the CPUs of the smallest worker that an autoscaler may start; 0 where none is known.

    The smallest, for a pack that fits there fits on every one.
    """
    try:
        cpus = [float(kind["resources"].get("CPU", 0.0)) for kind in _workers(_read(path))]
        return min((count for count in cpus if count), default=0.0)
    except _STRANGE:
        return 0.0


def _read(path: Path) -> Any:
    return json.loads(path.expanduser().read_text())


def _workers(config: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The kinds of machines that are no head, where more than none of them may be started."""
    head, most = config["head_node_type"], int(config["max_workers"])
    kinds = config["available_node_types"].items()
    return [
        kind for name, kind in kinds if name != head and int(kind.get("max_workers", most)) > 0
    ]


def _largest(name: str, kinds: list[Mapping[str, Any]], most: int) -> float:
    """The most of a resource that `most` nodes of these kinds can have."""
    total, left = 0.0, most
    for kind in sorted(kinds, key=lambda kind: -kind["resources"].get(name, 0)):
        count = min(left, int(kind.get("max_workers", most)))
        total, left = total + count * kind["resources"].get(name, 0), left - count
    return total
