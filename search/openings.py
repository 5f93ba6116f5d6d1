"""What was opened once the stages were through: a race's rounds, the confirmation."""

from dataclasses import dataclass, field

from search.events import (
    ConfirmationOpened,
    Event,
    Extended,
    Proposed,
    RaceOpened,
    Replicated,
    RunKey,
    SessionOpened,
)


@dataclass
class Openings:
    """The race and the confirmation as they were opened last.

    Attributes:
        race: Which trials were to be told apart; None before the first time.
        raced: The runs that were claimed for that.
        confirmation: Which trials were to be confirmed; None before the first time.
        search_over: Whether search and race have ended: a confirmation was opened, and since then
            nothing was added to the study.
    """

    race: RaceOpened | None = None
    raced: list[RunKey] = field(default_factory=list)
    confirmation: ConfirmationOpened | None = None
    search_over: bool = False

    def take(self, event: Event) -> None:
        """Takes in any event of the study."""
        match event:
            case RaceOpened():
                self.race, self.raced = event, []
            case ConfirmationOpened():
                self.confirmation, self.search_over = event, True
            case Replicated(purpose="race"):
                self.raced.append(RunKey(event.number, event.replicate))
            case Proposed():
                self.search_over = False
            case SessionOpened() if event.extra_trials or event.extra_seconds:
                self.search_over = False
            case Extended():
                self.search_over = False
