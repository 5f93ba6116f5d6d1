"""What a user sees while a study runs: one line now and then, on standard error."""

import sys
import time

from search.answers import told
from search.estimate import duration
from search.events import (
    Ended,
    Event,
    Extended,
    Paused,
    Proposed,
    RequestRefused,
    Retried,
    RunKey,
    Started,
    StopAsked,
)
from search.ledger import Ledger
from search.lines import TrialFlags
from search.run_state import RunState
from search.study import StudySpec
from search.time_left import TimeLeft
from search.trial_run import Progress

LINE_SECONDS = 15.0  # between lines that only say how far it is
WAIT_SECONDS = 60.0  # between lines that only say that nothing runs yet


class Screen:
    """Prints progress: every trial's end, and how the study stands every 15 seconds.

    Args:
        silent: print nothing.
        hint: what to say once there is something to resume.
    """

    def __init__(self, *, silent: bool = False, hint: str | None = None) -> None:
        self._silent = silent
        self._hint = hint
        self._spec: StudySpec | None = None
        self._ledger = Ledger()
        self._time_left: TimeLeft | None = None
        self._flags: TrialFlags | None = None
        self._started = self._printed = time.monotonic()
        self._training_since: float | None = None
        self._kimg: dict[RunKey, float] = {}

    def say(self, line: str) -> None:
        """Prints one line on standard error."""
        if not self._silent:
            sys.stderr.write(line + "\n")
            sys.stderr.flush()

    def watch(
        self, spec: StudySpec, ledger: Ledger, time_left: TimeLeft, flags: TrialFlags
    ) -> None:
        """Begins to follow a study; `flags` names what to beware of in a trial."""
        self._spec, self._ledger, self._time_left = spec, ledger, time_left
        self._flags = flags
        self._started = self._printed = time.monotonic()
        if self._hint is not None:
            self.say(self._hint)

    def event(self, event: Event) -> None:
        """Prints what an event means to a user, if anything."""
        if isinstance(event, Started):
            self._training_since = self._training_since or time.monotonic()
        elif isinstance(event, Retried):
            self.say(
                f"{self._clock()} trial {self._named(event.run)} is tried again: {event.cause}"
            )
        elif isinstance(event, Paused):
            self._kimg.pop(event.run, None)
        elif isinstance(event, Proposed | Extended | StopAsked | RequestRefused):
            if event.request is not None:
                self.say(f"{self._clock()} {told(event)}")
        elif isinstance(event, Ended):
            self._kimg.pop(event.run, None)
            said = self._ended(event)
            if said is not None:
                self.say(f"{self._clock()} {said}")
                self.status()

    def progress(self, key: RunKey, progress: Progress) -> None:
        """Notes how far a run is; prints the whole now and then."""
        self._kimg[key] = progress.kimg
        if time.monotonic() - self._printed >= LINE_SECONDS:
            self.status()

    def waiting(self) -> None:
        """Says now and then that no run has begun; nothing once one has."""
        waited_seconds = time.monotonic() - self._printed
        if self._training_since is None and waited_seconds >= WAIT_SECONDS:
            self._printed = time.monotonic()
            self.say(
                f"{self._clock()} no run has begun yet, for no machine or engine is ready (`ray "
                "status` says more); the time budget counts from the first one"
            )

    def status(self) -> None:
        """Prints trials by state, those that run, the best so far and the time left."""
        assert self._spec is not None
        self._printed = time.monotonic()
        counts = self._ledger.count_by_state()
        planned = self._spec.budget.trials + self._ledger.added_trials
        ended = [
            f"{counts[state]} {state.lower()}"
            for state in ("COMPLETED", "STOPPED", "INFEASIBLE", "FAILED")
            if counts[state]
        ]
        running = ", ".join(
            f"trial {self._named(key)} at {kimg:.0f} kimg"
            for key, kimg in sorted(self._kimg.items())
        )
        parts = [
            ", ".join(ended) or "none ended",
            f"of {planned}",
            running,
            self._best(),
            self._left(),
        ]
        self.say(f"{self._clock()} {' | '.join(part for part in parts if part)}")

    def _best(self) -> str:
        assert self._spec is not None
        objective = self._spec.objective
        trial = self._ledger.incumbent(
            objective.metric, objective.direction, constraints=objective.bounds
        )
        if trial is None:
            return "no score yet"
        scored = trial.objective(objective.metric, objective.direction)
        assert scored is not None
        error = "" if scored.standard_error is None else f" ± {scored.standard_error:.1f}"
        return f"best {scored.value:.1f}{error} (trial {trial.number})"

    def _left(self) -> str:
        assert self._time_left is not None
        since = self._training_since
        trained_seconds = 0.0 if since is None else time.monotonic() - since
        left = self._time_left.seconds(trained_seconds, self._kimg)
        return f"about {duration(left)} left"

    def _clock(self) -> str:
        minutes, seconds = divmod(int(time.monotonic() - self._started), 60)
        return f"[{minutes:3d}:{seconds:02d}]"

    def _named(self, key: RunKey) -> str:
        several = len(self._ledger.trials[key.number].runs) > 1
        return f"{key.number}.{key.replicate}" if several else f"{key.number}"

    def _ended(self, event: Ended) -> str | None:
        """What the end of a run says of its trial, or of itself; nothing while siblings train."""
        trial, run = self._ledger.trials[event.number], self._ledger.run(event.run)
        if run.purpose != "search":
            return self._run_ended(run)
        if trial.state == "RUNNING":
            return None
        assert self._spec is not None
        assert self._flags is not None
        objective = self._spec.objective
        scored = trial.objective(objective.metric, objective.direction)
        value = "no score" if scored is None else f"{scored.value:.1f} at {scored.kimg:g} kimg"
        why = f" ({trial.reason})" if trial.reason else ""
        flags = self._flags(trial)
        beware = f" BEWARE: {', '.join(flags)}" if flags else ""
        params = " ".join(f"{k}={_short(v)}" for k, v in trial.params.items())
        return (
            f"trial {event.number:<3d} {trial.stage:11s} {trial.state}{why} after "
            f"{trial.total_kimg:g} kimg: {value}{beware}   {params}"
        )

    def _run_ended(self, run: RunState) -> str:
        assert self._spec is not None
        metric = self._spec.objective.metric
        best = run.best(metric, self._spec.objective.direction)
        value = "no score" if best is None else f"{best.metrics[metric]:.1f} at {best.kimg:g} kimg"
        why = f" ({run.reason})" if run.reason else ""
        return f"trial {self._named(run.key)} {run.purpose} {run.state}{why}: {value}"


def _short(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
