"""Why a running study stops: a wish, by a signal or by the clock, or a Ray that is gone."""

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Literal

StopReason = Literal["interrupted", "time_budget"]


class StudyInterrupted(KeyboardInterrupt):
    """The study was stopped by a signal; all is recorded, and to resume it goes on."""


class RayLostError(RuntimeError):
    """The Ray of this very machine died; what trials had saved is on record."""


class StopRequest:
    """Whether and why a study should stop.

    Args:
        seconds: The time budget that is left, None for no limit.
        begun: Whether the clock runs from now on; else from `begin` on.
    """

    def __init__(self, seconds: float | None = None, *, begun: bool = True) -> None:
        self._seconds = seconds
        self._kept_back_seconds = 0.0
        self._began = time.monotonic() if begun else None
        self._reason: StopReason | None = None

    def begin(self) -> None:
        """Lets the clock run from now on, if it does not yet."""
        if self._began is None:
            self._began = time.monotonic()

    def ask(self, reason: StopReason) -> None:
        """Asks for a stop; a user's interrupt counts for more than the clock."""
        if self._reason != "interrupted":
            self._reason = reason

    def keep_back(self, seconds: float) -> None:
        """Leaves so much of what is left of the time budget to what follows."""
        self._kept_back_seconds = seconds

    def extend(self, seconds: float) -> None:
        """Moves the end of the time budget, where there is one."""
        if self._seconds is not None:
            self._seconds += seconds

    @property
    def reason(self) -> StopReason | None:
        """Why to stop; None while the study may go on."""
        if self._reason is None and self.remaining_seconds == 0:
            self._reason = "time_budget"
        return self._reason

    @property
    def remaining_seconds(self) -> float | None:
        """Seconds of the time budget that are left; None without one."""
        if self._seconds is None:
            return None
        passed = 0.0 if self._began is None else time.monotonic() - self._began
        return max(0.0, self._seconds - self._kept_back_seconds - passed)

    @contextmanager
    def on_signals(self) -> Iterator[None]:
        """Asks for a stop at SIGINT or SIGTERM; a second signal raises `KeyboardInterrupt`.

        Only the main thread can take signals; elsewhere this does nothing.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {kind: signal.getsignal(kind) for kind in (signal.SIGINT, signal.SIGTERM)}
        try:
            for kind in before:
                signal.signal(kind, self._on_signal)
            yield
        finally:
            for kind, handler in before.items():
                signal.signal(kind, handler)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self._reason == "interrupted":
            raise KeyboardInterrupt
        self.ask("interrupted")


@contextmanager
def signals_held_back() -> Iterator[None]:
    """Lets SIGINT and SIGTERM act only after the block, which must not be torn apart.

    An exception that a signal raises while processes are forked is lost, and with it the locks
    that a fork holds.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    held: list[int] = []
    kinds = (signal.SIGINT, signal.SIGTERM)
    before = {kind: signal.signal(kind, lambda number, _: held.append(number)) for kind in kinds}
    try:
        yield
    finally:
        for kind, handler in before.items():
            signal.signal(kind, handler)
    if held:
        signal.raise_signal(held[0])
