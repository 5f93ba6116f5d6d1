"""The state of a study: a pure fold of its events, in which every cell exists exactly once."""

from collections.abc import Iterable, Sequence

from search.answers import Answers
from search.claims import Claims
from search.constraints import Constraint
from search.events import (
    ConfirmationOpened,
    Event,
    Extended,
    LookedAtTest,
    Promoted,
    Proposed,
    RaceOpened,
    Replicated,
    RequestRefused,
    RunKey,
    SessionClosed,
    SessionOpened,
    Stage,
    Started,
    StopAsked,
    StudyOpened,
    TrialEvent,
)
from search.openings import Openings
from search.run_state import RunState
from search.sessions import Sessions
from search.trial import Direction, TrialState, TrialStateName

STATES: tuple[TrialStateName, ...] = ("RUNNING", "COMPLETED", "STOPPED", "INFEASIBLE", "FAILED")
# Those that a study has; only that of a population has exploits too.
STAGES: tuple[Stage, ...] = ("manual", "random_grid", "full_grid", "model", "enqueued")


class LedgerError(ValueError):
    """An event that the record so far does not allow."""


class Ledger:
    """Folds events into trials and refuses those that cannot follow.

    Attributes:
        study: The event that opened the study, None before it.
        trials: Every trial by its number 0, 1, 2, ... in order.
        cells: The number under which each cell was claimed.
        sessions: The opening of each driver, in order.
        looks: What was seen of the test set.
        pack: How many trials shared an engine when one last began; None before.
        answers: What was asked of the running study, and what came of it.
    """

    def __init__(self, events: Iterable[Event] = ()) -> None:
        self.study: StudyOpened | None = None
        self._claims, self._sessions = Claims(), Sessions()
        self.trials, self.cells = self._claims.trials, self._claims.cells
        self.sessions = self._sessions.opened
        self._openings = Openings()
        self.looks: list[LookedAtTest] = []
        self.pack: int | None = None
        self.answers = Answers()
        for event in events:
            self.apply(event)

    def check(self, event: Event) -> None:
        """Changes nothing.

        Raises:
            LedgerError: The event cannot follow.
        """
        match event:
            case StudyOpened():
                refusal = "a study is opened once, before all else" if self._begun() else None
            case SessionOpened() | SessionClosed():
                refusal = self._sessions.refusal(event)
            case RaceOpened() | ConfirmationOpened():
                unknown = [n for n in event.numbers if n not in self.trials]
                refusal = f"trials {unknown} were never proposed" if unknown else None
            case LookedAtTest():
                refusal = self._refusal_to_look(event)
            case Proposed():
                refusal = self._claims.refusal(event) or self.answers.refusal(event, self.trials)
            case Extended() | StopAsked() | RequestRefused():
                refusal = self.answers.refusal(event, self.trials)
            case _ if event.number not in self.trials:
                refusal = f"trial {event.number} was never proposed"
            case Replicated():
                refusal = self._claims.refusal(event)
            case Promoted():
                refusal = self._refusal_to_promote(event)
            case _ if event.replicate not in self.trials[event.number].runs:
                refusal = f"its replicate {event.replicate} was never claimed"
            case _:
                refusal = self.run(event.run).refusal(event)
        if refusal is not None:
            number = f" of trial {event.number}" if isinstance(event, TrialEvent) else ""
            raise LedgerError(f"`{event.event}`{number} cannot follow: {refusal}")

    def apply(self, event: Event) -> None:
        """Checks an event and takes it in.

        Raises:
            LedgerError: The event cannot follow; nothing was changed.
        """
        self.check(event)
        match event:
            case StudyOpened():
                self.study = event
            case SessionOpened() | SessionClosed():
                self._sessions.take(event)
                if self.session_open:  # the machines of the session before are gone
                    for run in self.runs:
                        run.active = False
            case LookedAtTest():
                self.looks.append(event)
            case Proposed():
                self._claims.take(event)
                self.answers.take(event)
            case Replicated():
                self._claims.take(event)
            case Promoted():
                self.trials[event.number].promoted_kimg = event.kimg
            case StopAsked():
                self.answers.take(event)
                self.trials[event.number].stop_asked = event.reason
            case Extended() | RequestRefused():
                self.answers.take(event)
            case RaceOpened() | ConfirmationOpened():
                pass  # `_openings` takes them, and more
            case _:
                self.run(event.run).take(event)
                if isinstance(event, Started):
                    self.pack = event.pack
        self._openings.take(event)
        self._sessions.saw(event)

    @property
    def race(self) -> RaceOpened | None:
        """Which trials were to be told apart last; None before the first time."""
        return self._openings.race

    @property
    def raced(self) -> Sequence[RunKey]:
        """The runs that were claimed for that."""
        return self._openings.raced

    @property
    def confirmation(self) -> ConfirmationOpened | None:
        """Which trials were to be confirmed last; None before the first time."""
        return self._openings.confirmation

    @property
    def search_over(self) -> bool:
        """Whether a confirmation was opened, and nothing added to the study since."""
        return self._openings.search_over

    def next_number(self) -> int:
        """The number that the next proposal must have."""
        return len(self.trials)

    def run(self, key: RunKey) -> RunState:
        """A run of a trial."""
        return self.trials[key.number].runs[key.replicate]

    @property
    def runs(self) -> list[RunState]:
        """All runs, by number and replicate."""
        return [run for trial in self.trials.values() for run in trial.runs.values()]

    def unfinished(self) -> list[RunState]:
        """Runs without a final state, by number and replicate."""
        return [run for run in self.runs if not run.ended]

    def count_by_state(self) -> dict[TrialStateName, int]:
        """How many trials are in each state, zeros included."""
        states = [trial.state for trial in self.trials.values()]
        return {state: states.count(state) for state in STATES}

    def count_by_stage(self) -> dict[Stage, int]:
        """How many trials each kind of stage has proposed, zeros included."""
        stages = [trial.stage for trial in self.trials.values()]
        kinds: tuple[Stage, ...] = (*STAGES, "exploit") if "exploit" in stages else STAGES
        return {stage: stages.count(stage) for stage in kinds}

    def incumbent(
        self,
        metric: str,
        direction: Direction = "maximize",
        untrained: float | None = None,
        constraints: Sequence[Constraint] = (),
    ) -> TrialState | None:
        """The best trial so far, running ones included (see `ranking`)."""
        return next(iter(self.ranking(metric, direction, untrained, constraints)), None)

    def ranking(
        self,
        metric: str,
        direction: Direction = "maximize",
        untrained: float | None = None,
        constraints: Sequence[Constraint] = (),
    ) -> list[TrialState]:
        """The trials that may win, the best first: none of their runs diverged or failed.

        Whatever the metric, a trial whose pooled log-likelihood at its best is not above
        `untrained` is not among them, nor one that breaks a constraint there. Of equals the
        lowest number comes first.
        """
        sign = 1.0 if direction == "maximize" else -1.0
        merits: dict[int, float] = {}
        for trial in self.trials.values():
            objective = trial.objective(metric, direction)
            if objective is None or not trial.eligible:
                continue
            if any(constraint.violation(objective.metrics) for constraint in constraints):
                continue
            pooled = objective.metrics.get("validation_log_likelihood")
            if untrained is None or pooled is None or pooled > untrained:
                merits[trial.number] = sign * objective.value
        order = sorted(merits, key=lambda number: (-merits[number], number))
        return [self.trials[number] for number in order]

    @property
    def extra_trials(self) -> int:
        """Trials added to the budget by later sessions (`--trials +N`) and by request."""
        return self._sessions.extra_trials + self.answers.extra_trials

    @property
    def extra_seconds(self) -> float:
        """Seconds added to the time budget by later sessions (`+1h`) and by request."""
        return self._sessions.extra_seconds + self.answers.extra_seconds

    @property
    def added_trials(self) -> int:
        """Trials beyond the spec's budget: those added to it, and the enqueued ones."""
        return self.extra_trials + self.count_by_stage()["enqueued"]

    @property
    def spent_seconds(self) -> float:
        """Time of all sessions, each from its first attempt at a run to its last event."""
        return self._sessions.spent_seconds

    @property
    def session_training(self) -> bool:
        """Whether the last session has begun a run, so that its time is being spent."""
        return self._sessions.training

    @property
    def session_open(self) -> bool:
        """Whether the last driver has not closed its session."""
        return self._sessions.is_open

    def _begun(self) -> bool:
        return self.study is not None or bool(self.trials) or bool(self.sessions)

    def _refusal_to_look(self, event: LookedAtTest) -> str | None:
        if self.looks and not event.again:
            return f"the test set was looked at already, for trial {self.looks[-1].number}"
        return None

    def _refusal_to_promote(self, event: Promoted) -> str | None:
        trial = self.trials[event.number]
        if trial.state != "RUNNING":
            return f"it ended {trial.state}"
        if event.kimg <= trial.promoted_kimg:
            return f"it was promoted from {trial.promoted_kimg} kimg already"
        return None
