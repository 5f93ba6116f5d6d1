"""The sessions of a study, one each time that a driver took it up: what they spent and added."""

from dataclasses import dataclass, field

from search.events import Event, SessionClosed, SessionOpened, Started


@dataclass
class _Turn:
    """One session's clock, in seconds since its opening."""

    opened: SessionOpened
    began: float | None = None  # when its first attempt at a run did
    last: float = 0.0

    def saw(self, event: Event) -> None:
        seconds = event.session_seconds
        if seconds is None:  # written before events had it: a clock that may have been set
            seconds = (event.at - self.opened.at).total_seconds()
        self.last = max(self.last, seconds)
        if self.began is None and isinstance(event, Started):
            self.began = self.last

    @property
    def spent_seconds(self) -> float:
        return 0.0 if self.began is None else self.last - self.began


@dataclass
class Sessions:
    """Every driver's turn at a study.

    Attributes:
        opened: The opening of each, in order.
        is_open: Whether the last driver has not closed its session.
    """

    opened: list[SessionOpened] = field(default_factory=list)
    is_open: bool = False
    _turns: list[_Turn] = field(default_factory=list)

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
            self._turns.append(_Turn(event))

    def saw(self, event: Event) -> None:
        """Something happened, of whatever kind; before the first session it is nobody's time."""
        if self._turns:
            self._turns[-1].saw(event)

    @property
    def training(self) -> bool:
        """Whether a run was begun in the last session, so that its clock runs."""
        return bool(self._turns) and self._turns[-1].began is not None

    @property
    def spent_seconds(self) -> float:
        """Time of all of them, each from its first attempt at a run to its last event.

        Machines may be long in coming, which is no use of the time budget.
        """
        return sum(turn.spent_seconds for turn in self._turns)

    @property
    def extra_trials(self) -> int:
        """Trials that they added to the budget."""
        return sum(session.extra_trials for session in self.opened)

    @property
    def extra_seconds(self) -> float:
        """Seconds that they added to the time budget."""
        return sum(session.extra_seconds for session in self.opened)
