"""A wish that a running study stop: by a signal, or by the clock."""

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Literal

StopReason = Literal["interrupted", "time_budget"]


class StopRequest:
    """Whether, why and since when a study should stop; the first reason holds.

    Args:
        seconds: The time budget from now on, None for no limit.
    """

    def __init__(self, seconds: float | None = None) -> None:
        self._deadline = None if seconds is None else time.monotonic() + seconds
        self._asked: tuple[StopReason, float] | None = None

    def ask(self, reason: StopReason) -> None:
        """Asks for a stop; later reasons change nothing."""
        if self.reason is None:
            self._asked = (reason, time.monotonic())

    @property
    def reason(self) -> StopReason | None:
        """Why to stop; None while the study may go on."""
        late = self._deadline is not None and time.monotonic() >= self._deadline
        if self._asked is None and self._deadline is not None and late:
            self._asked = ("time_budget", self._deadline)
        return None if self._asked is None else self._asked[0]

    @property
    def waited_seconds(self) -> float:
        """Seconds since the stop was asked for; 0 before."""
        return 0.0 if self._asked is None else time.monotonic() - self._asked[1]

    @property
    def remaining_seconds(self) -> float | None:
        """Seconds of the time budget that are left; None without one."""
        return None if self._deadline is None else max(0.0, self._deadline - time.monotonic())

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
        if self.reason == "interrupted":
            raise KeyboardInterrupt
        self._asked = ("interrupted", time.monotonic())
