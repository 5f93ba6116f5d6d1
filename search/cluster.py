"""The Ray that a study runs on: a cluster where there is one, else this machine."""

import math
import os
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import ray
from ray._private.resource_and_label_spec import ResourceAndLabelSpec
from ray._private.utils import read_ray_address

from search.autoscaling import cpus_of_one_to_come, nodes_to_come
from search.job_address import tunnel
from search.ray_shield import shut_down, sigterm_blocked
from search.ray_token import (
    MODE_VARIABLE,
    asks_for_token,
    keep_own_token,
    own_mode_is_token,
    takes_own_token,
)

_HOST_AND_PORT = re.compile(r"\S+:\d+")
RESOURCE_UNIT = 1e-4  # Ray counts in it, to the nearest: a sixth of a GPU would be too much

_NO_TOKEN = (
    "the Ray cluster at {!r} asks for a token, and {}: set RAY_AUTH_MODE=token, with the "
    "cluster's token in RAY_AUTH_TOKEN or ~/.ray/auth_token"
)
_OPEN = (
    "the Ray cluster at {!r} asks nobody for a token, so that whoever reaches it can run code "
    "there; begin it again with RAY_AUTH_MODE=token and the token of `ray get-auth-token "
    "--generate` on every node, or give `--without-token` to use it as it is"
)
_NONE_WANTED = (
    "{}={}: a Ray without a token is refused, for whoever reaches it can run code here; unset "
    "the variable, or give `--without-token`"
)


_NO_WORKER = (
    "no machine of the cluster takes trials: its head has no processors for them, and no worker "
    "has joined (`ray status` says why); begin again when one has"
)


class ClusterError(ValueError):
    """No Ray that trials could run on."""


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


@contextmanager
def ray_running(address: str = "auto", *, without_token: bool = False) -> Iterator[None]:
    """Connects to Ray, or starts one, and shuts down or leaves only that.

    A Ray that this process is already connected to is used and left as it is.

    Args:
        address: `auto` (the cluster in `RAY_ADDRESS`, or begun by `ray start` on this host, else
            a local one), `local`, or `HOST:PORT`.
        without_token: Whether it may be a cluster that asks for no token.

    Raises:
        ClusterError: Nothing answers at the address, or whoever does asks for no token, or for
            another one.
    """
    if ray.is_initialized():
        _check_token(ray.get_runtime_context().gcs_address, without_token=without_token)
        yield
        return
    where = _resolve(address)
    if where == "local":
        _prepare_own_token(without_token=without_token)
    else:
        _check_token(where or str(_found()), without_token=without_token)
    try:
        with sigterm_blocked():
            ray.init(where, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    except (ConnectionError, ValueError) as error:
        raise ClusterError(_no_answer(where or "auto", str(error))) from None
    try:
        yield
    finally:
        if where == "local":
            shut_down()
        else:
            ray.shutdown()


def _resolve(address: str) -> str | None:
    """What `ray.init` is given: None is the cluster of the environment or of `ray start`."""
    named = _named(address)
    if not named:
        # Not `ray.init("auto")`: it joins any Ray on this host, also another search's own.
        return "local" if _begins_here(address) else None
    # Ray itself would try a dead address for minutes.
    if not _answers(named):
        raise ClusterError(_no_answer(named, "no connection"))
    return None if address == "auto" else address


def _named(address: str) -> str | None:
    return os.environ.get("RAY_ADDRESS") if address == "auto" else address


def _begins_here(address: str) -> bool:
    """Whether a Ray of this machine alone is to be started."""
    if named := _named(address):
        return named == "local"
    started_here = read_ray_address()
    return not (started_here and _answers(started_here))


def _found() -> str | None:
    """The address of the cluster that `ray.init(None)` joins."""
    address: str | None = os.environ.get("RAY_ADDRESS") or read_ray_address()
    return address


def _check_token(address: str, *, without_token: bool) -> None:
    if address.startswith("ray://"):
        raise ClusterError(
            f"{address}: Ray Client is not used here; start the study on the cluster's head"
        )
    if not _HOST_AND_PORT.fullmatch(address):
        return  # Ray knows what to make of it
    try:
        asked = asks_for_token(address)
    except ConnectionError as error:
        raise ClusterError(_no_answer(address, str(error))) from None
    if not (asked or without_token):
        raise ClusterError(_OPEN.format(address))
    if not takes_own_token(address):
        fault = "does not take this one" if own_mode_is_token() else "none is sent"
        raise ClusterError(_NO_TOKEN.format(address, fault))


def _prepare_own_token(*, without_token: bool) -> None:
    mode = os.environ.get(MODE_VARIABLE, "token")
    if mode.lower() != "token":
        if not without_token:
            raise ClusterError(_NONE_WANTED.format(MODE_VARIABLE, mode))
        return
    try:
        keep_own_token()
    except OSError as error:
        raise ClusterError(
            f"{error.filename}: a token for Ray cannot be kept there ({error.strerror}); set "
            "RAY_AUTH_TOKEN to 32 or more random characters"
        ) from None


def _answers(address: str) -> bool:
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not (host and port.isdigit()):
        return True  # a word such as "local": Ray knows what to make of it
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
    except OSError:
        return False
    return True


def _no_answer(address: str, cause: str) -> str:
    host, _, port = address.rpartition(":")
    near = host in ("127.0.0.1", "localhost")  # it may be that of a job server that is elsewhere
    forwarded = f"open the tunnel to its head again (`{tunnel(port)}`), " if near else ""
    return (
        f"no Ray cluster answers at {address!r} ({cause}); {forwarded}start one with `ray start "
        "--head`, or give `--address local`"
    )


def check_fits(wanted: TrialResources, address: str) -> None:
    """Tells before a Ray of this machine alone is started what it would have no room for.

    What another one has is known once it answers.

    Raises:
        ClusterError: There are fewer CPUs or GPUs than a trial, or a pack of them, needs.
    """
    if ray.is_initialized() or not _begins_here(address):
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


def is_of_this_host() -> bool:
    """Whether the Ray in use was begun by `ray start` here: what this host was told is of that."""
    begun_here: bool = ray.get_runtime_context().gcs_address == read_ray_address()
    return begun_here


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
