"""What is known about one run, a training of one trial, and what may happen to it next."""

import math
from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal, Self

from search.cause import CauseKind
from search.events import (
    Checkpointed,
    Ended,
    Measured,
    Paused,
    Purpose,
    Replicated,
    Retried,
    RunEvent,
    RunKey,
    Started,
)

TrialStateName = Literal["RUNNING", "COMPLETED", "STOPPED", "INFEASIBLE", "FAILED"]
Direction = Literal["maximize", "minimize"]

THEN = " then "
# Fields that are told of a run: how it was claimed, and what its numbers depend on.
CLAIM = ("replicate", "purpose", "fold", "noise_draw", "continues")
CONDITIONS = ("seed", "node", "device", "pack", "threads", "streams", "torch", "processor")


@dataclass(kw_only=True)
class RunState:
    """All that is known about one run.

    `checkpoint` is the latest one on its course: at first that of the run which it `continues`, or
    of its trial's donor; `inherited_kimg` is what such a donor had trained.
    """

    number: int
    replicate: int
    purpose: Purpose
    seed: int
    fold: int | None
    noise_draw: int
    claimed_at: datetime
    continues: int | None = None
    state: TrialStateName = "RUNNING"
    measurements: list[Measured] = field(default_factory=list)
    checkpoint: Checkpointed | None = None
    inherited_kimg: float = 0.0
    active: bool = False  # an attempt of this session is on a machine
    attempts: int = 0
    # Attempts that others followed, by what they were lost to; and those since it got further.
    losses: Counter[CauseKind] = field(default_factory=Counter)
    fruitless: Counter[CauseKind] = field(default_factory=Counter)
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
    def key(self) -> RunKey:
        """Its number and replicate."""
        return RunKey(self.number, self.replicate)

    @property
    def ended(self) -> bool:
        """Whether it has its final state."""
        return self.state != "RUNNING"

    @property
    def cut_off(self) -> bool:
        """Whether the time budget ended it: of what was to be trained in full it is no part."""
        return self.state == "STOPPED" and self.reason == "time_budget"

    @property
    def total_kimg(self) -> float:
        """Training up to the last measurement in kimg."""
        return self.measurements[-1].kimg if self.measurements else 0.0

    @property
    def elapsed_seconds(self) -> float:
        """Training time up to the last measurement in seconds."""
        return self.measurements[-1].elapsed_seconds if self.measurements else 0.0

    @property
    def retries(self) -> int:
        """How many of its attempts were lost and followed by another."""
        return self.losses.total()

    def best(
        self, metric: str, direction: Direction = "maximize", up_to_kimg: float = math.inf
    ) -> Measured | None:
        """The best measurement of `metric`, of equals the first; None before there is one."""
        scored = [m for m in self.measurements if metric in m.metrics and m.kimg <= up_to_kimg]
        better = max if direction == "maximize" else min
        return better(scored, key=lambda m: m.metrics[metric], default=None)

    def copy(self) -> Self:
        """A copy that later events do not change."""
        # Made at each event of a study: shallow, for an event replaces what it changes, the list
        # of measurements too, but for these two; `copy.copy` would take five times as long.
        twin = object.__new__(type(self))
        twin.__dict__.update(self.__dict__)
        twin.losses, twin.fruitless = self.losses.copy(), self.fruitless.copy()
        return twin

    def continued(self, claim: Replicated) -> Self:
        """The shadow that goes on where this run was stopped, with the course up to there."""
        checkpoint, kimg = self.checkpoint, 0.0
        if checkpoint is not None:
            kimg = checkpoint.kimg
            checkpoint = checkpoint.model_copy(update={"replicate": claim.replicate})
        course = [m for m in self.measurements if m.kimg <= kimg]
        return type(self)(
            number=self.number,
            replicate=claim.replicate,
            purpose=claim.purpose,
            seed=claim.seed,
            fold=claim.fold,
            noise_draw=claim.noise_draw,
            claimed_at=claim.at,
            continues=self.replicate,
            inherited_kimg=self.inherited_kimg,
            measurements=[m.model_copy(update={"replicate": claim.replicate}) for m in course],
            checkpoint=checkpoint,
            streams=self.streams,
            torch=self.torch,
            processor=self.processor,
        )

    def refusal(self, event: RunEvent) -> str | None:
        """Says why `event` cannot happen to this run now; None where it can."""
        if self.ended:
            return f"it ended {self.state}"
        match event:
            case Started():
                return self._refusal_to_start(event)
            case Checkpointed() | Measured() | Paused() if not self.active:
                return "no attempt of this session is running it"
            case Checkpointed() if event.kimg < self.from_kimg:
                return f"its attempt began later, at {self.from_kimg} kimg"
            case Measured():
                return self._refusal_to_measure(event)
            case Ended(state="COMPLETED") if not self.attempts:
                return "it was never started"
        return None

    def take(self, event: RunEvent) -> None:
        """Takes in an event that was not refused."""
        match event:
            case Started():
                self._start(event)
            case Checkpointed():
                self.checkpoint = event
                if event.kimg > self.from_kimg:
                    self.fruitless.clear()
            case Measured():
                kept = [m for m in self.measurements if m.kimg != event.kimg]
                self.measurements = [*kept, event]
            case Paused():
                self.active = False
            case Retried():
                self.active = False
                for count in (self.losses, self.fruitless):
                    count[event.kind or "machine"] += 1
            case Ended():
                # It may have hung, or died, before a save; or it waited since it was killed.
                waited = event.state == "STOPPED" and not self.active
                if event.reason == "time_budget" or waited:
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
        known = {0.0} if not self.inherited_kimg else set()
        if self.checkpoint is not None:
            known.add(self.checkpoint.kimg)
        if event.from_kimg not in known:
            return (
                f"`from_kimg` must be that of a checkpoint, one of {sorted(known)}, "
                f"but got from_kimg={event.from_kimg}"
            )
        return None

    def _refusal_to_measure(self, event: Measured) -> str | None:
        # A checkpoint and the measurement at the same kimg come in either order, so an attempt
        # may measure once more exactly where it began.
        last = max((m.kimg for m in self.measurements), default=-1.0)
        if event.kimg > last or event.kimg == last == self.from_kimg:
            return None
        return f"`kimg > {last}` must hold, but got kimg={event.kimg}"


def _followed(before: str | None, now: str | None) -> str | None:
    """Adds what an attempt had to what the attempts before it had, where it is something new."""
    if before is None or now is None or before.split(THEN)[-1] == now:
        return before or now
    return f"{before}{THEN}{now}"
