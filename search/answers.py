"""What was asked of a running study, and what came of it: a fold of the journal's answers."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from search.events import Answer, Extended, Proposed, RequestRefused, StopAsked
from search.trial import TrialState


@dataclass
class Answers:
    """Every request that was answered, each once.

    Attributes:
        by_request: The answer to each request, by its id.
        extra_trials: Trials added to the budget.
        extra_seconds: Seconds added to the time budget.
    """

    by_request: dict[str, Answer | Proposed] = field(default_factory=dict)
    extra_trials: int = 0
    extra_seconds: float = 0.0

    def refusal(self, event: Answer | Proposed, trials: Mapping[int, TrialState]) -> str | None:
        """Says why `event` cannot follow; None where it can."""
        if event.request is not None and event.request in self.by_request:
            return f"request {event.request} was answered already"
        return refusal_to_stop(event.number, trials) if isinstance(event, StopAsked) else None

    def take(self, event: Answer | Proposed) -> None:
        """Takes in an event that was not refused."""
        if event.request is not None:
            self.by_request[event.request] = event
        if isinstance(event, Extended):
            self.extra_trials += event.trials
            self.extra_seconds += event.seconds


def refusal_to_stop(number: int, trials: Mapping[int, TrialState]) -> str | None:
    """Says why a trial cannot be asked to stop; None where it can."""
    trial = trials.get(number)
    if trial is None:
        held = f"its trials are 0 to {len(trials) - 1}" if trials else "it has none yet"
        return f"there is no trial {number}; {held}"
    if trial.state != "RUNNING":
        why = f" ({trial.reason})" if trial.reason else ""
        return f"trial {number} ended {trial.state}{why} already"
    if trial.stop_asked is not None:
        return f"trial {number} was asked to stop already, {trial.stop_asked}"
    return None


def told(answer: Answer | Proposed) -> str:
    """Returns an answer in words, for the user who asked and for who watches the study."""
    match answer:
        case Proposed():
            return f"enqueued as trial {answer.number}"
        case StopAsked():
            return f"trial {answer.number} stops at its next result, {answer.reason}"
        case Extended():
            plural = "" if answer.trials == 1 else "s"
            trials = [f"{answer.trials} trial{plural}"] if answer.trials else []
            seconds = [f"{answer.seconds:g} s"] if answer.seconds else []
            return f"extended by {' and '.join(trials + seconds)}"
        case RequestRefused():
            return f"refused: {answer.why}"
