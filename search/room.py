"""What a trial is given of a cluster, and for how many trials there is room."""

import math
from typing import NamedTuple

import ray
from ray._private.resource_and_label_spec import ResourceAndLabelSpec

from search.autoscaling import cpus_of_one_to_come, nodes_to_come
from search.cluster import ClusterError, begins_here, is_of_this_host

RESOURCE_UNIT = 1e-4  # Ray counts in it, to the nearest: a sixth of a GPU would be too much

_NO_WORKER = (
    "no machine of the cluster takes trials: its head has no processors for them, and no worker "
    "has joined (`ray status` says why); begin again when one has"
)


class TrialResources(NamedTuple):
    """What one trial holds while it runs, and how many trials share its process."""

    cpus: float = 1.0
    gpus: float = 0.0
    pack: int = 1

    @property
    def bundle(self) -> dict[str, float]:
        """The same as Ray has it."""
        wanted = {"CPU": self.cpus, "GPU": self.gpus}
        return {name: count for name, count in wanted.items() if count}


def check_fits(wanted: TrialResources, address: str) -> None:
    """Tells before a Ray of this machine alone is started what it would have no room for.

    What another one has is known once it answers.

    Raises:
        ClusterError: There are fewer CPUs or GPUs than a trial, or a pack of them, needs.
    """
    if ray.is_initialized() or not begins_here(address):
        return
    here = ResourceAndLabelSpec().resolve(is_head=True)
    fitting, _ = _fitted(wanted, here.num_cpus, here.num_gpus)
    _packed(fitting, wanted.pack, here.num_cpus)


def fit_resources(wanted: TrialResources) -> tuple[TrialResources, str | None]:
    """What a trial can be given here, and a notice where that is less than was wanted.

    Raises:
        ClusterError: There are fewer CPUs or GPUs than one trial needs.
    """
    here = _resources()
    return _fitted(wanted, here.get("CPU", 0.0), here.get("GPU", 0.0))


def _resources() -> dict[str, float]:
    """What the cluster has, and more where its autoscaler may still start nodes."""
    here: dict[str, float] = ray.cluster_resources()
    to_come = nodes_to_come()
    if not to_come or not is_of_this_host():
        return here
    return here | {name: max(here.get(name, 0.0), count) for name, count in to_come.items()}


def _fitted(wanted: TrialResources, cpus: float, gpus: float) -> tuple[TrialResources, str | None]:
    notice = None
    if wanted.gpus and not gpus:
        notice = f"no GPU here: `gpus_per_trial` is 0 instead of {wanted.gpus:g}"
        wanted = wanted._replace(gpus=0.0)
    for name, need, have in (("cpus", wanted.cpus, cpus), ("gpus", wanted.gpus, gpus)):
        if need > have == 0:
            raise ClusterError(_NO_WORKER)
        if need > have:
            raise ClusterError(
                f"resources.{name}_per_trial: `{name}_per_trial <= {have:g}`, all there are, "
                f"must hold, but got {name}_per_trial={need:g}"
            )
    return wanted, notice


def packed(resources: TrialResources, pack: int) -> TrialResources:
    """What a trial holds that shares an engine: an Nth of its device, so that no more come there.

    Before a node with CPUs is there, the smallest is meant that the autoscaler may start.

    Raises:
        ClusterError: No node has the CPUs for so many, or nobody knows how many one will have.
    """
    cpus = max(node["Resources"].get("CPU", 0.0) for node in ray.nodes() if node["Alive"])
    if not cpus and is_of_this_host():
        cpus = cpus_of_one_to_come()
    if not cpus and pack > 1 and not resources.gpus:
        raise ClusterError(
            f"resources.pack: the CPUs of a node must be known, but got pack={pack} before any "
            "worker has joined; begin again when `ray status` shows one, or set resources.pack=1"
        )
    return _packed(resources, pack, cpus)


def _packed(resources: TrialResources, pack: int, cpus: float) -> TrialResources:
    if pack == 1:
        return resources
    if resources.gpus:
        return resources._replace(gpus=_share(1.0, pack), pack=pack)
    if pack * resources.cpus > cpus:
        raise ClusterError(
            f"resources.pack: `pack * cpus_per_trial <= {cpus:g}`, the CPUs of a node, must "
            f"hold, but got pack={pack}, cpus_per_trial={resources.cpus:g}"
        )
    return resources._replace(cpus=_share(cpus, pack), pack=pack)


def _share(whole: float, parts: int) -> float:
    return math.floor(whole / parts / RESOURCE_UNIT) * RESOURCE_UNIT


def room_for_trials(resources: TrialResources) -> int:
    """How many trials fit on the cluster at a time, as it is now or may grow to."""
    here = _resources()
    shares = [(here.get("CPU", 0.0), resources.cpus), (here.get("GPU", 0.0), resources.gpus)]
    # A sum of thirds must not fall short of one: 3 x 0.333... fit on a device.
    return max(1, min(math.floor(have / need + 1e-9) for have, need in shares if need))
