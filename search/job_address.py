"""Which addresses are those of a cluster's job server, told without Ray."""

import http.client
import ipaddress
import json
import os
from typing import NamedTuple
from urllib.parse import urlsplit

PROBE_SECONDS = 3.0
DEFAULT_PORT = 8265


class SubmitError(ValueError):
    """A study that cannot be submitted or followed; the message says why and what to do."""


class JobAddress(NamedTuple):
    """Where a job server answers, and whether it asks for a token."""

    url: str
    asks_for_token: bool


def find_job_server(address: str) -> JobAddress | None:
    """Tells the address of a job server from one of a Ray cluster to join.

    `HOST:PORT` may be either; the one that answers to HTTP is a job server. Nothing secret is
    sent to find out.

    Args:
        address: as `--address` has it; `auto` is `RAY_ADDRESS` where that is an `http://` one.

    Raises:
        SubmitError: It is said to be a job server, and none answers; or a token would go through
            the network in the clear.
    """
    named = os.environ.get("RAY_ADDRESS", "") if address == "auto" else address
    url = urlsplit(named if "://" in named else f"http://{named}")
    explicit = named.startswith(("http://", "https://"))
    if not explicit and ("://" in named or address == "auto" or not _port(url.netloc)):
        return None
    host, port = url.hostname or "", _port(url.netloc) or DEFAULT_PORT
    mode = _authentication_mode(url.scheme, host, port)
    if mode is None:
        if explicit:
            raise SubmitError(
                f"no job server of a Ray cluster answers at {named}; is the tunnel to its head "
                f"open? It is opened by `{tunnel(port)}`"
            )
        return None
    if url.scheme == "http" and not _is_this_machine(host):
        raise SubmitError(
            f"--address {named}: the token would go through the network in the clear; open a "
            f"tunnel by `{tunnel(port, host)}` and give `--address 127.0.0.1:{port}`"
        )
    shown = f"[{host}]" if ":" in host else host
    return JobAddress(f"{url.scheme}://{shown}:{port}", mode != "disabled")


def tunnel(port: int | str, host: str = "HEAD") -> str:
    """Returns the command that brings a port of a machine here."""
    return f"ssh -N -L {port}:127.0.0.1:{port} {host}"


def _port(netloc: str) -> int | None:
    digits = netloc.rpartition(":")[2]
    return int(digits) if digits.isdigit() and ":" in netloc else None


def _is_this_machine(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _authentication_mode(scheme: str, host: str, port: int) -> str | None:
    """Returns what a job server says of itself to anyone; None where there is none."""
    kind = http.client.HTTPSConnection if scheme == "https" else http.client.HTTPConnection
    connection = kind(host, port, timeout=PROBE_SECONDS)
    try:
        connection.request("GET", "/api/authentication_mode")
        answer = json.loads(connection.getresponse().read(2**16))
        return str(answer["authentication_mode"])
    except (OSError, http.client.HTTPException, ValueError, TypeError, KeyError):
        return None
    finally:
        connection.close()
