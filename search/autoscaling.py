"""What a cluster may grow to, as its head was told."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

VARIABLE = "CGAN_NODES_TO_COME"
BOOTSTRAP_CONFIG = Path("~/ray_bootstrap_config.yaml")  # written by `ray up`; it holds JSON


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
        config = json.loads(path.expanduser().read_text())
        head, kinds = config["head_node_type"], config["available_node_types"]
        most = int(config["max_workers"])
        workers = [kind for name, kind in kinds.items() if name != head]
        names = {name for kind in workers for name in kind["resources"]}
        return {name: _largest(name, workers, most) for name in names}
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return {}  # no cluster that `ray up` made


def _largest(name: str, kinds: list[Mapping[str, Any]], most: int) -> float:
    """The most of a resource that `most` nodes of these kinds can have."""
    total, left = 0.0, most
    for kind in sorted(kinds, key=lambda kind: -kind["resources"].get(name, 0)):
        count = min(left, int(kind.get("max_workers", most)))
        total, left = total + count * kind["resources"].get(name, 0), left - count
    return total
