"""The sessions of a study, one each time that a driver took it up: what they spent and added."""

from dataclasses import dataclass, field
from datetime import datetime

from search.events import SessionClosed, SessionOpened


@dataclass
class Sessions:
    """Every driver's turn at a study.

    Attributes:
        opened: The opening of each, in order.
        is_open: Whether the last driver has not closed its session.
    """

    opened: list[SessionOpened] = field(default_factory=list)
    is_open: bool = False
    _seen: list[datetime] = field(default_factory=list)  # the last event of each

    def refusal(self, event: SessionOpened | SessionClosed) -> str | None:
        """Says why `event` cannot follow; None where it can."""
        if isinstance(event, SessionOpened):
            return None  # a driver that was killed has not closed the session before
        return None if self.is_open else "no session is open"

    def take(self, event: SessionOpened | SessionClosed) -> None:
        """Takes in an event that was not refused."""
        self.is_open = isinstance(event, SessionOpened)
        if isinstance(event, SessionOpened):
            self.opened.append(event)
            self._seen.append(event.at)

    def saw(self, at: datetime) -> None:
        """Something happened, of whatever kind; before the first session it is nobody's time."""
        if self._seen:
            self._seen[-1] = max(self._seen[-1], at)

    @property
    def spent_seconds(self) -> float:
        """Wall time of all of them, each from its opening to its last event."""
        ends = zip(self.opened, self._seen, strict=True)
        return sum((last - session.at).total_seconds() for session, last in ends)

    @property
    def extra_trials(self) -> int:
        """Trials that they added to the budget."""
        return sum(session.extra_trials for session in self.opened)

    @property
    def extra_seconds(self) -> float:
        """Seconds that they added to the time budget."""
        return sum(session.extra_seconds for session in self.opened)
