"""Whether every machine sees the study's folder: else checkpoints are lost with their node."""

import os
import platform
import secrets
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from search.cluster import ClusterError
from search.history import JOURNAL_NAME

PATIENCE_SECONDS = 120.0  # a node's first worker is slow to start
_REMEDY = (
    "give an --output on storage that all nodes mount at the same path "
    "(docs/cluster.md, Shared storage)"
)


def check_shared(folder: Path, patience_seconds: float = PATIENCE_SECONDS) -> None:
    """Writes a file here and has every node read it and write one back.

    Nodes that join later are checked by the actor of their first trial (`check_seen`).

    Args:
        folder: The study's folder; it exists.
        patience_seconds: For all nodes to answer.

    Raises:
        ClusterError: A node reads something else there, cannot write, or does not answer.
    """
    here = ray.get_runtime_context().get_node_id()
    others = [node for node in ray.nodes() if node["Alive"] and node["NodeID"] != here]
    if not others:
        return
    nonce = secrets.token_hex(8)
    probe = folder / f".probe-{nonce}"
    probe.mkdir()
    try:
        (probe / "driver").write_text(nonce)
        problems = _ask(others, probe, nonce, patience_seconds)
    finally:
        shutil.rmtree(probe, ignore_errors=True)
    if problems:
        told = "; ".join(problems)
        raise ClusterError(
            f"the study's folder {folder} must be shared by all nodes, but {told}; {_REMEDY}"
        )


def check_seen(folder: Path) -> None:
    """Tells on a worker whether the study's folder is the one that the driver writes.

    Raises:
        ClusterError: This machine has no study there.
    """
    if not (folder / JOURNAL_NAME).is_file():
        raise ClusterError(
            f"the study's folder {folder} must be shared by all nodes, but {platform.node()} has "
            f"no study there; {_REMEDY}"
        )


def _ask(
    nodes: Sequence[Mapping[str, Any]], probe: Path, nonce: str, patience_seconds: float
) -> list[str]:
    """What is wrong, node by node; one that is lost meanwhile is no longer asked."""
    answer = ray.remote(num_cpus=0, max_retries=0)(_answer)
    asked = [
        answer.options(
            scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        ).remote(str(probe), nonce, node["NodeID"])
        for node in nodes
    ]
    ray.wait(asked, num_returns=len(asked), timeout=patience_seconds)
    told = [_told(one) for one in asked]
    alive = {node["NodeID"] for node in ray.nodes() if node["Alive"]}
    problems = []
    for node, problem in zip(nodes, told, strict=True):
        written = probe / node["NodeID"]
        if problem is None and not (written.is_file() and written.read_text() == nonce):
            problem = "what it wrote there is not seen here"
        if problem is not None and node["NodeID"] in alive:
            problems.append(f"{node['NodeName']}: {problem}")
    return problems


def _told(answer: "ray.ObjectRef[str | None]") -> str | None:
    try:
        problem: str | None = ray.get(answer, timeout=0.1)
    except GetTimeoutError:
        return "it did not answer"
    except RayError as error:
        last = str(error).strip().splitlines()[-1]
        return f"it could not be asked ({last})"
    return problem


def _answer(probe: str, nonce: str, node: str) -> str | None:
    folder = Path(probe)
    try:
        if (folder / "driver").read_text() != nonce:
            return "it reads another file there"
        with (folder / node).open("w") as file:
            file.write(nonce)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        return f"{type(error).__name__}: {error.strerror}"
    return None
