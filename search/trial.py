"""What is known about one trial of a study, and what may happen to it next."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from statistics import fmean, stdev
from typing import Literal

from search.events import Checkpointed, Ended, Measured, Params, Retried, Stage, Started

TrialStateName = Literal["RUNNING", "COMPLETED", "STOPPED", "INFEASIBLE", "FAILED"]
Direction = Literal["maximize", "minimize"]
# Of the metrics that are means over points: where their standard error is measured.
STANDARD_ERRORS: Mapping[str, str] = {
    "validation_log_likelihood": "standard_error",
    "conditional_log_likelihood": "conditional_standard_error",
}

THEN = " then "


@dataclass(frozen=True, kw_only=True)
class Objective:
    """A trial's score so far: the best measurement, averaged over its replicates.

    With one replicate `standard_error` is that of the measurement (None where it has none);
    with n it is the standard deviation of their bests over sqrt(n). `kimg` is where the best
    measurement of the first replicate was made.
    """

    value: float
    standard_error: float | None
    kimg: float
    replicates: int


@dataclass(kw_only=True)
class TrialState:
    """All that is known about one trial; `checkpoint` is the latest one on its course."""

    number: int
    stage: Stage
    stage_index: int
    params: Params
    cell: str
    seed: int
    proposed_at: datetime
    state: TrialStateName = "RUNNING"
    measurements: list[Measured] = field(default_factory=list)
    checkpoint: Checkpointed | None = None
    active: bool = False  # an attempt of this session is on a machine
    attempts: int = 0
    retries: int = 0
    from_kimg: float = 0.0
    reason: str | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None
    node: str | None = None
    device: str | None = None
    pack: int | None = None
    threads: int | None = None
    # Of all attempts on this course: `A then B` where it was gone on with on another machine.
    streams: str | None = None
    torch: str | None = None
    processor: str | None = None

    @property
    def total_kimg(self) -> float:
        """Training up to the last measurement in kimg, summed over replicates."""
        return sum(course[-1].kimg for course in self._courses())

    @property
    def elapsed_seconds(self) -> float:
        """Training time up to the last measurement in seconds, summed over replicates."""
        return sum(course[-1].elapsed_seconds for course in self._courses())

    def objective(self, metric: str, direction: Direction = "maximize") -> Objective | None:
        """Scores the trial by its best measurement of `metric`; None before the first one."""
        best = max if direction == "maximize" else min
        scored = [[m for m in course if metric in m.metrics] for course in self._courses()]
        bests = [best(course, key=lambda m: m.metrics[metric]) for course in scored if course]
        if not bests:
            return None
        values = [m.metrics[metric] for m in bests]
        single = len(values) == 1
        return Objective(
            value=fmean(values),
            standard_error=bests[0].metrics.get(STANDARD_ERRORS.get(metric, ""))
            if single
            else stdev(values) / len(values) ** 0.5,
            kimg=bests[0].kimg,
            replicates=len(values),
        )

    def metrics_at(self, kimg: float) -> Mapping[str, float]:
        """The first replicate's scores at one of its measurements; empty where it has none."""
        return next((m.metrics for m in self.measurements if m.kimg == kimg), {})

    def refusal(self, event: Started | Checkpointed | Measured | Retried | Ended) -> str | None:
        """Says why `event` cannot happen to this trial now; None where it can."""
        if self.state != "RUNNING":
            return f"it ended {self.state}"
        match event:
            case Started():
                return self._refusal_to_start(event)
            case Checkpointed() | Measured() if not self.active:
                return "no attempt of this session is running it"
            case Checkpointed() if event.kimg < self.from_kimg:
                return f"its attempt began later, at {self.from_kimg} kimg"
            case Measured():
                return self._refusal_to_measure(event)
            case Ended(state="COMPLETED") if not self.attempts:
                return "it was never started"
        return None

    def take(self, event: Started | Checkpointed | Measured | Retried | Ended) -> None:
        """Takes in an event that was not refused."""
        match event:
            case Started():
                self._start(event)
            case Checkpointed():
                self.checkpoint = event
            case Measured():
                again = (event.replicate, event.kimg)
                kept = [m for m in self.measurements if (m.replicate, m.kimg) != again]
                self.measurements = [*kept, event]
            case Retried():
                self.active = False
                self.retries += 1
            case Ended():
                if event.reason == "time_budget":  # it may have hung, or died, before a save
                    self._forget_unsaved()
                self.active = False
                self.state, self.reason, self.ended_at = event.state, event.reason, event.at

    def _start(self, event: Started) -> None:
        # What a lost attempt measured past its last checkpoint is not on this course: the state
        # that scored it is gone, so the record must not promise it.
        self.measurements = [m for m in self.measurements if m.kimg <= event.from_kimg]
        if event.from_kimg == 0.0:
            self.checkpoint = self.streams = self.torch = self.processor = None
        self.active = True
        self.attempts += 1
        self.from_kimg = event.from_kimg
        self.started_at = self.started_at or event.at
        self.node, self.device, self.pack = event.node, event.device, event.pack
        self.threads = event.threads
        self.streams = _followed(self.streams, event.streams)
        self.torch = _followed(self.torch, event.torch)
        self.processor = _followed(self.processor, event.processor)

    def _forget_unsaved(self) -> None:
        """Drops measurements of a state that no checkpoint holds: nobody could have it again."""
        saved = -1.0 if self.checkpoint is None else self.checkpoint.kimg
        self.measurements = [m for m in self.measurements if m.kimg <= saved]

    def _refusal_to_start(self, event: Started) -> str | None:
        if self.active:
            return "an attempt of this session is running it already"
        if event.attempt != self.attempts:
            return f"`attempt == {self.attempts}` must hold, but got attempt={event.attempt}"
        known = {0.0} if self.checkpoint is None else {0.0, self.checkpoint.kimg}
        if event.from_kimg not in known:
            return (
                f"`from_kimg` must be that of a checkpoint, one of {sorted(known)}, "
                f"but got from_kimg={event.from_kimg}"
            )
        return None

    def _refusal_to_measure(self, event: Measured) -> str | None:
        # A checkpoint and the measurement at the same kimg come in either order, so an attempt
        # may measure once more exactly where it began.
        last = max(
            (m.kimg for m in self.measurements if m.replicate == event.replicate), default=-1.0
        )
        if event.kimg > last or event.kimg == last == self.from_kimg:
            return None
        return f"`kimg > {last}` must hold, but got kimg={event.kimg}"

    def _courses(self) -> list[list[Measured]]:
        replicates = sorted({m.replicate for m in self.measurements})
        return [[m for m in self.measurements if m.replicate == r] for r in replicates]


def _followed(before: str | None, now: str | None) -> str | None:
    """Adds what an attempt had to what the attempts before it had, where it is something new."""
    if before is None or now is None or before.split(THEN)[-1] == now:
        return before or now
    return f"{before}{THEN}{now}"
