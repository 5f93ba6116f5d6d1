"""PostgreSQL and MLflow on this host: `python -m search.services up|status|down`."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from search.command_line import DONE, FAULT, INTERRUPTED, USER_ERROR, Parser
from search.service_pair import down, status, up
from search.services_file import ServicesError, read_services, services_path
from search.services_keeper import ray_head_is_here
from search.services_state import Settings, StateFolder, default_state

_FILES = ("storage", "tls_cert", "tls_key", "tls_ca")


def parser() -> Parser:
    """Creates the parser of the command line."""
    p = Parser(
        prog="python -m search.services",
        allow_abbrev=False,
        description="Run an MLflow server on PostgreSQL here, for all studies of this user.",
    )
    actions = p.add_subparsers(dest="action", required=True, parser_class=Parser)
    start = actions.add_parser(
        "up", help="start what does not run; a flag that is left out stays as it was"
    )
    start.add_argument("--storage", metavar="DIR", help="the folder that all machines share")
    start.add_argument(
        "--artifacts", metavar="PLACE", help="a folder or s3://...; default: <storage>/artifacts"
    )
    start.add_argument("--host", help="the address to listen at; default: 127.0.0.1")
    start.add_argument("--port", type=int, help="the port to listen at; default: 5000")
    start.add_argument(
        "--allowed-hosts", metavar="A,B", help="names by which other machines call the server"
    )
    start.add_argument("--tls-cert", metavar="FILE", help="certificate of the server, PEM")
    start.add_argument("--tls-key", metavar="FILE", help="its key, PEM")
    start.add_argument(
        "--tls-ca", metavar="FILE", help="by which clients check it; default: their system's"
    )
    start.add_argument(
        "--with-ray",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="on the head of a Ray cluster: restart what dies, and end when Ray ends",
    )
    looking = actions.add_parser("status", help="how they are; exits with 1 where one is not well")
    end = actions.add_parser("down", help="stop them; their data stay")
    for action in (start, looking, end):
        action.add_argument(
            "--state", type=Path, metavar="DIR", help="their folder, on a disk of this machine"
        )
    return p


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    try:
        options = parser().parse_args(arguments)
    except SystemExit as end:
        return int(end.code or 0)
    try:
        folder = StateFolder(_state(options.state, started=options.action == "up"))
        match options.action:
            case "up":
                return _up(folder, options)
            case "status":
                return _status(folder)
            case _:
                down(folder, _tell)
                return DONE
    except ServicesError as error:
        sys.stderr.write(f"{error}\n")
        return USER_ERROR
    except KeyboardInterrupt:
        sys.stderr.write("interrupted; `python -m search.services down` stops what was started\n")
        return INTERRUPTED


def _state(given: Path | None, *, started: bool) -> Path:
    """Returns the folder that was named, else that of this user's services, else the usual one."""
    if given is not None:
        return given
    try:
        services = read_services()
    except ServicesError:
        if not started:
            raise
        services = None  # about to be written anew
    return default_state() if services is None else Path(services.state)


def _up(folder: StateFolder, options: argparse.Namespace) -> int:
    if options.with_ray and not ray_head_is_here():
        raise ServicesError(
            "--with-ray: needs the head of a Ray cluster on this machine, but none runs here; "
            "`ray start --head` begins one, or leave the flag out"
        )
    state = folder.read()
    settings = _changed(Settings() if state is None else state.settings, options)
    services = up(folder, settings, _tell)
    sys.stdout.write(
        f"MLflow: {services.tracking_uri} as {services.username}, whose password is in "
        f"{services.password_file}\n"
        f"studies started here go there by themselves ({services_path()})\n"
    )
    return DONE


def _changed(settings: Settings, options: argparse.Namespace) -> Settings:
    """Returns the settings with the flags that were given."""
    changes: dict[str, Any] = {}
    for name in Settings.model_fields:
        value = getattr(options, name)
        if value is None:
            continue
        if name == "allowed_hosts":
            value = [host.strip() for host in value.split(",") if host.strip()]
        elif name in _FILES or (name == "artifacts" and "://" not in value):
            value = str(Path(value).absolute())
        changes[name] = value
    port = changes.get("port", settings.port)
    if not 1 <= port <= 65535:
        raise ServicesError(f"--port: must be from 1 to 65535, but got {port}")
    return settings.model_copy(update=changes)


def _status(folder: StateFolder) -> int:
    found = status(folder)
    for health in found:
        told = "well" if health.problem is None else f"NOT WELL: {health.problem}"
        sys.stdout.write(f"{health.name:<11} {told}\n            {health.facts}\n")
    if all(health.problem is None for health in found):
        return DONE
    sys.stdout.write("`python -m search.services up` restarts what does not run\n")
    return FAULT


def _tell(line: str) -> None:
    sys.stderr.write(line + "\n")


if __name__ == "__main__":
    sys.exit(main())
