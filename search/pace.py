"""How fast trials train where they do, by what was measured in this session."""

from search.events import Event, Measured, Paused, Retried, RunKey, Started


class Pace:
    """The wall time that a run takes for its training, measuring and saving beside its company.

    The driver's own processor, by which a study is planned, says nothing of a GPU elsewhere.
    """

    def __init__(self) -> None:
        self._begun: dict[RunKey, Started] = {}
        self._trained: dict[tuple[RunKey, int], tuple[float, float]] = {}  # of each attempt

    def take(self, event: Event) -> None:
        """Takes in any event of this session."""
        match event:
            case Started():
                self._begun[event.run] = event
            case Paused() | Retried():
                self._begun.pop(event.run, None)
            case Measured() if event.run in self._begun:
                began = self._begun[event.run]
                if event.session_seconds is not None and began.session_seconds is not None:
                    seconds = event.session_seconds - began.session_seconds
                    attempt = (event.run, began.attempt)
                    self._trained[attempt] = (seconds, event.kimg - began.from_kimg)

    @property
    def seconds_per_kimg(self) -> float | None:
        """The mean over all that was trained; None before the first measurement."""
        seconds = sum(seconds for seconds, _ in self._trained.values())
        kimg = sum(kimg for _, kimg in self._trained.values())
        return seconds / kimg if kimg else None
