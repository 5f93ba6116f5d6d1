"""The Ray that a study runs on: a cluster where there is one, else this machine."""

import os
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import ray
from ray._private.utils import read_ray_address

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


class ClusterError(ValueError):
    """No Ray that trials could run on."""


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
        return "local" if begins_here(address) else None
    # Ray itself would try a dead address for minutes.
    if not _answers(named):
        raise ClusterError(_no_answer(named, "no connection"))
    return None if address == "auto" else address


def _named(address: str) -> str | None:
    return os.environ.get("RAY_ADDRESS") if address == "auto" else address


def begins_here(address: str) -> bool:
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


def is_of_this_host() -> bool:
    """Whether the Ray in use was begun by `ray start` here: what this host was told is of that."""
    begun_here: bool = ray.get_runtime_context().gcs_address == read_ray_address()
    return begun_here
