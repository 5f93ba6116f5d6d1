"""The state of a study: a pure fold of its events, in which every cell exists exactly once."""

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

from search.answers import Answers
from search.constraints import Constraint
from search.events import (
    Checkpointed,
    ConfirmationOpened,
    Donor,
    Event,
    Extended,
    LookedAtTest,
    ParamValue,
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
from search.run_state import RunState
from search.trial import Direction, Objective, TrialState, TrialStateName

__all__ = ["STATES", "Direction", "Ledger", "LedgerError", "Objective", "TrialState", "cell_key"]

STATES: tuple[TrialStateName, ...] = ("RUNNING", "COMPLETED", "STOPPED", "INFEASIBLE", "FAILED")
# Those that a study has; only that of a population has exploits too.
STAGES: tuple[Stage, ...] = ("manual", "random_grid", "full_grid", "model", "enqueued")
_SIGNIFICANT_DIGITS = 12


class LedgerError(ValueError):
    """An event that the record so far does not allow."""


def cell_key(params: Mapping[str, ParamValue]) -> str:
    """Names the cell of a configuration: JSON with sorted keys and canonical numbers.

    Floats are rounded to 12 significant digits; 1 and 1.0 name the same cell, and so do 0 and
    -0.0, while `True`, `1` and `"1"` differ.
    """
    pairs = (f"{json.dumps(name)}:{_canonical(params[name])}" for name in sorted(params))
    return "{" + ",".join(pairs) + "}"


def _canonical(value: ParamValue) -> str:
    if isinstance(value, bool | str):
        return json.dumps(value)
    if isinstance(value, float):
        value = float(f"{value:.{_SIGNIFICANT_DIGITS}g}")
        if not value.is_integer() or abs(value) >= 10**_SIGNIFICANT_DIGITS:
            return repr(value)
    return str(int(value))


class Ledger:
    """Folds events into trials and refuses those that cannot follow.

    Attributes:
        study: The event that opened the study, None before it.
        trials: Every trial by its number 0, 1, 2, ... in order.
        cells: The number under which each cell was claimed.
        sessions: The opening of each driver, in order.
        session_open: Whether the last driver has not closed its session.
        race: Which trials were to be told apart last; None before the first time.
        raced: The number of each run that was claimed for that.
        confirmation: Which trials were to be confirmed last; None before the first time.
        looks: What was seen of the test set.
        pack: How many trials shared an engine when one last began; None before.
        answers: What was asked of the running study, and what came of it.
    """

    def __init__(self, events: Iterable[Event] = ()) -> None:
        self.study: StudyOpened | None = None
        self.trials: dict[int, TrialState] = {}
        self.cells: dict[str, int] = {}
        self.sessions: list[SessionOpened] = []
        self.session_open = False
        self.race: RaceOpened | None = None
        self.raced: list[int] = []
        self.confirmation: ConfirmationOpened | None = None
        self.looks: list[LookedAtTest] = []
        self.pack: int | None = None
        self.answers = Answers()
        self._seen: list[datetime] = []  # the last event of each session
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
            case SessionOpened():
                refusal = None  # a driver that was killed has not closed the session before
            case SessionClosed():
                refusal = None if self.session_open else "no session is open"
            case RaceOpened() | ConfirmationOpened():
                unknown = [n for n in event.numbers if n not in self.trials]
                refusal = f"trials {unknown} were never proposed" if unknown else None
            case LookedAtTest():
                refusal = self._refusal_to_look(event)
            case Proposed():
                refusal = self._refusal_to_propose(event)
            case Extended() | StopAsked() | RequestRefused():
                refusal = self.answers.refusal(event, self.trials)
            case _ if event.number not in self.trials:
                refusal = f"trial {event.number} was never proposed"
            case Replicated():
                refusal = self._refusal_to_replicate(event)
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
            case SessionOpened():
                self._open_session(event)
            case SessionClosed():
                self.session_open = False
            case RaceOpened():
                self.race, self.raced = event, []
            case ConfirmationOpened():
                self.confirmation = event
            case LookedAtTest():
                self.looks.append(event)
            case Proposed():
                self._propose(event)
            case Replicated():
                self._claim_further(event)
            case Promoted():
                self.trials[event.number].promoted_kimg = event.kimg
            case StopAsked():
                self.answers.take(event)
                self.trials[event.number].stop_asked = event.reason
            case Extended() | RequestRefused():
                self.answers.take(event)
            case _:
                self.run(event.run).take(event)
                if isinstance(event, Started):
                    self.pack = event.pack
        if self._seen:
            self._seen[-1] = max(self._seen[-1], event.at)

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
        later = sum(session.extra_trials for session in self.sessions)
        return later + self.answers.extra_trials

    @property
    def extra_seconds(self) -> float:
        """Seconds added to the time budget by later sessions (`+1h`) and by request."""
        later = sum(session.extra_seconds for session in self.sessions)
        return later + self.answers.extra_seconds

    @property
    def added_trials(self) -> int:
        """Trials beyond the spec's budget: those added to it, and the enqueued ones."""
        return self.extra_trials + self.count_by_stage()["enqueued"]

    @property
    def spent_seconds(self) -> float:
        """Wall time of all sessions, each from its opening to its last event."""
        ends = zip(self.sessions, self._seen, strict=True)
        return sum((last - session.at).total_seconds() for session, last in ends)

    def _begun(self) -> bool:
        return self.study is not None or bool(self.trials) or bool(self.sessions)

    def _refusal_to_look(self, event: LookedAtTest) -> str | None:
        if self.looks and not event.again:
            return f"the test set was looked at already, for trial {self.looks[-1].number}"
        return None

    def _refusal_to_propose(self, event: Proposed) -> str | None:
        if event.number != self.next_number():
            return f"`number == {self.next_number()}` must hold, but got number={event.number}"
        key = cell_key(event.params)
        if event.cell != key:
            return f"`cell` must be {key}, but got cell={event.cell}"
        if key in self.cells:
            return f"its cell {key} is trial {self.cells[key]} already"
        if event.donor is not None:
            return self._refusal_to_exploit(event, event.donor)
        return self.answers.refusal(event, self.trials)

    def _refusal_to_exploit(self, event: Proposed, donor: Donor) -> str | None:
        if any(number not in self.trials for number in (donor.number, event.replaces)):
            return "its donor and the trial that it replaces must be trials"
        saved = self.trials[donor.number].first.checkpoint
        if saved is None or (saved.kimg, saved.path) != (donor.kimg, donor.path):
            return f"its donor {donor.number} has no such checkpoint at {donor.kimg} kimg"
        if any(trial.replaces == event.replaces for trial in self.trials.values()):
            return f"trial {event.replaces} is replaced already"
        return None

    def _propose(self, event: Proposed) -> None:
        self.trials[event.number] = TrialState(
            number=event.number,
            stage=event.stage,
            stage_index=event.stage_index,
            params=event.params,
            cell=event.cell,
            seed=event.seed,
            proposed_at=event.at,
            donor=event.donor,
            replaces=event.replaces,
        )
        self.cells[event.cell] = event.number
        self.answers.take(event)
        self._claim_runs(event)

    def _refusal_to_replicate(self, event: Replicated) -> str | None:
        trial = self.trials[event.number]
        if event.replicate != len(trial.runs):
            return (
                f"`replicate == {len(trial.runs)}` must hold, but got replicate={event.replicate}"
            )
        if event.continues is None:
            return None
        stopped = trial.runs.get(event.continues)
        if stopped is None or stopped.purpose != "search" or stopped.state != "STOPPED":
            return f"its replicate {event.continues} is no run of the search that was stopped"
        if (event.seed, event.fold) != (stopped.seed, stopped.fold):
            return f"it must have seed and fold of replicate {event.continues}, which it continues"
        if any(run.continues == event.continues for run in trial.runs.values()):
            return f"its replicate {event.continues} is continued already"
        return None

    def _refusal_to_promote(self, event: Promoted) -> str | None:
        trial = self.trials[event.number]
        if trial.state != "RUNNING":
            return f"it ended {trial.state}"
        if event.kimg <= trial.promoted_kimg:
            return f"it was promoted from {trial.promoted_kimg} kimg already"
        return None

    def _claim_runs(self, event: Proposed) -> None:
        runs = self.trials[event.number].runs
        for replicate, seed in enumerate((event.seed, *event.further_seeds)):
            runs[replicate] = RunState(
                number=event.number,
                replicate=replicate,
                purpose="search",
                seed=seed,
                fold=event.fold(replicate),
                noise_draw=0,
                claimed_at=event.at,
            )
        if event.donor is not None:
            self._inherit(runs[0], event.donor)

    def _inherit(self, run: RunState, donor: Donor) -> None:
        before = self.trials[donor.number].first
        run.checkpoint = Checkpointed(number=run.number, kimg=donor.kimg, path=donor.path)
        run.inherited_kimg = donor.kimg
        run.streams, run.torch, run.processor = before.streams, before.torch, before.processor

    def _claim_further(self, event: Replicated) -> None:
        if event.purpose == "race":
            self.raced.append(event.number)
        runs = self.trials[event.number].runs
        if event.continues is not None:
            runs[event.replicate] = runs[event.continues].continued(event)
            return
        runs[event.replicate] = RunState(
            number=event.number,
            replicate=event.replicate,
            purpose=event.purpose,
            seed=event.seed,
            fold=event.fold,
            noise_draw=event.noise_draw,
            claimed_at=event.at,
        )

    def _open_session(self, event: SessionOpened) -> None:
        self.sessions.append(event)
        self._seen.append(event.at)
        self.session_open = True
        for run in self.runs:  # the machines of the session before are gone
            run.active = False
