"""Keeps the services of a head up as long as its Ray: `python -m search.services_keeper DIR`."""

import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from search.service_pair import down, revive
from search.services_state import StateFolder

LOOK_SECONDS = 5.0
GRACE_SECONDS = 60.0  # a head that is restarted should find them as they were
_HEAD_PROCESS = "gcs_server"


def keep(
    folder: StateFolder,
    say: Callable[[str], None],
    *,
    is_head: Callable[[], bool],
    look_seconds: float = LOOK_SECONDS,
    grace_seconds: float = GRACE_SECONDS,
) -> None:
    """Restarts what dies; takes all down and returns when this is no head of Ray's any more.

    `ray down` ends Ray on a machine of one's own and nothing else there.
    """
    last_seen = time.monotonic()
    while True:
        time.sleep(look_seconds)
        if is_head():
            last_seen = time.monotonic()
        try:
            if time.monotonic() - last_seen > grace_seconds:
                say("Ray has ended here")
                down(folder, say)
                return
            if not revive(folder, say):
                return
        except Exception as problem:  # a full disk, say: it must outlive that
            say(f"{type(problem).__name__}: {problem}\ntrying again")


def ray_head_is_here() -> bool:
    """Whether this machine runs the control store of a Ray cluster."""
    return any(process.info["name"] == _HEAD_PROCESS for process in psutil.process_iter(["name"]))


def _tell(line: str) -> None:
    sys.stdout.write(f"{time.strftime('%F %T')} {line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    keep(StateFolder(Path(sys.argv[1])), _tell, is_head=ray_head_is_here)
