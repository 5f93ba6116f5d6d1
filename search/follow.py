"""Follows a job's log, over as many connections as it takes."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable

from search.job_server import ConnectionLost, Job, JobServer

QUIET_SECONDS = 20.0  # of silence, after which the connection is tried
WAIT_SECONDS = 1.0, 15.0  # between tries: at first, and at most


class ShownLog:
    """What was shown of a log, which each connection repeats from its first character."""

    def __init__(self, show: Callable[[str], object]) -> None:
        self._show = show
        self._shown = self._heard = 0

    def begin(self) -> None:
        """Begins to hear it from its first character."""
        self._heard = 0

    def hear(self, text: str) -> None:
        """Shows what is new of the text that comes next."""
        self._show(text[max(0, self._shown - self._heard) :])
        self._heard += len(text)
        self._shown = max(self._shown, self._heard)


class Patience:
    """Waits longer at each failure in a row, and says only of the first and the last."""

    def __init__(self, say: Callable[[str], object]) -> None:
        self._say = say
        self._wait = 0.0

    def lost(self, error: Exception) -> None:
        """Waits for a better time."""
        if not self._wait:
            self._say(
                f"connection lost ({_short(error)}); the study goes on; trying again (is the "
                "tunnel still open?)"
            )
        self._wait = min(max(WAIT_SECONDS[0], 2 * self._wait), WAIT_SECONDS[1])
        time.sleep(self._wait)

    def found(self) -> None:
        """All is well again."""
        if self._wait:
            self._say("connected again")
        self._wait = 0.0


def _short(error: Exception) -> str:
    lines = str(error).splitlines() or [type(error).__name__]
    return lines[0][:100]


def follow(server: JobServer, job: str, log: ShownLog, patience: Patience) -> Job:
    """Shows a job's log until the job has ended; returns how it ended.

    Raises:
        JobForgotten: The head was started anew meanwhile.
    """
    while True:
        try:
            server.job(job)
            patience.found()
            log.begin()
            asyncio.run(_tail(server, job, log))
            state = server.job(job)
            if state.ended:
                log.begin()
                log.hear(server.log(job))  # the end of it may have been missed
                return state
            time.sleep(WAIT_SECONDS[0])
        except ConnectionLost as error:
            patience.lost(error)


async def _tail(server: JobServer, job: str, log: ShownLog) -> None:
    lines = server.tail(job)
    following = _next(lines)
    try:
        while True:
            done, _ = await asyncio.wait({following}, timeout=QUIET_SECONDS)
            if not done:
                # A tunnel may be gone without a word.
                if (await asyncio.to_thread(server.job, job)).ended:
                    return
                continue
            text = following.result()
            if text is None:
                return
            log.hear(text)
            following = _next(lines)
    finally:
        following.cancel()


def _next(lines: AsyncIterator[str]) -> asyncio.Task[str | None]:
    async def following() -> str | None:
        return await anext(lines, None)

    return asyncio.ensure_future(following())
