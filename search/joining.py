"""Waits for workers that a cluster file promises: what trials get is settled by what is there."""

import time
from collections.abc import Callable
from typing import NamedTuple

import ray

from search.autoscaling import Promise, promised_workers
from search.cluster import is_of_this_host
from search.estimate import duration

# After `ray up`: a fresh machine installs everything first. Later, whoever is not there is down.
JOIN_SECONDS, LATE_SECONDS = 900.0, 60.0
LOOK_SECONDS = 1.0
_HEAD = "node:__internal_head__"  # a resource that Ray gives to one node


class Joined(NamedTuple):
    """How many workers are in the cluster, and how many GPUs there are."""

    workers: int
    gpus: float


def wait_for_workers(say: Callable[[str], None], *, gpus: bool) -> None:
    """Waits until trials can be given what they will have, if machines are to join by themselves.

    Args:
        say: prints one line to the user.
        gpus: whether trials want GPUs.
    """
    promise = promised_workers()
    if promise.workers and is_of_this_host():
        await_promised(promise, _joined, say, gpus=gpus)


def await_promised(
    promise: Promise, look: Callable[[], Joined], say: Callable[[str], None], *, gpus: bool
) -> None:
    """Waits for one worker, with a GPU where those are wanted, or for all of them; not for ever.

    Whatever joins later is used too, but whether trials train on GPUs is settled when they begin.

    Args:
        promise: workers that are to join.
        look: tells who has.
        say: prints one line to the user.
        gpus: whether trials want GPUs.
    """
    if _enough(promise, look(), gpus=gpus):
        return
    age_seconds = max(0.0, time.time() - promise.since)
    patience_seconds = max(LATE_SECONDS, JOIN_SECONDS - age_seconds)
    what = " with a GPU" if gpus else ""
    say(
        f"waiting for a worker{what}: {_counted(promise, look())} that the cluster file promises "
        f"(at most {duration(patience_seconds)}; `ray status` says more)"
    )
    until = time.monotonic() + patience_seconds
    while not (enough := _enough(promise, look(), gpus=gpus)) and time.monotonic() < until:
        time.sleep(LOOK_SECONDS)
    if not enough:
        late = "; what joins later is used, but not its GPUs" if gpus else ""
        say(f"NOTE: goes on without what was waited for: {_counted(promise, look())}{late}")


def _enough(promise: Promise, joined: Joined, *, gpus: bool) -> bool:
    if joined.workers >= promise.workers:
        return True
    return joined.workers > 0 and (joined.gpus > 0 or not gpus)


def _counted(promise: Promise, joined: Joined) -> str:
    verb = "has" if joined.workers == 1 else "have"
    return f"{joined.workers} of {promise.workers} {verb} joined"


def _joined() -> Joined:
    alive = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    workers = sum(_HEAD not in resources for resources in alive)
    return Joined(workers, sum(resources.get("GPU", 0.0) for resources in alive))
