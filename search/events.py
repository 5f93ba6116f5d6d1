"""What can happen in a study: one frozen model an event, each one line of the journal.

What can happen to a run is in `search.run_events`; it is exported here too, for whoever reads a
journal takes events as they come, of studies and of runs alike.
"""

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, model_validator

from search.event_fields import (
    Count,
    Dated,
    Finite,
    Int64,
    Kimg,
    Params,
    PlainJson,
    RelativePath,
    Seconds,
)
from search.run_events import (
    Checkpointed,
    Ended,
    EndState,
    Measured,
    Paused,
    Purpose,
    Retried,
    RunEvent,
    RunKey,
    Started,
)

__all__ = [
    "Answer",
    "Checkpointed",
    "CloseReason",
    "ConfirmationOpened",
    "Donor",
    "EndState",
    "Ended",
    "Event",
    "Extended",
    "LookedAtTest",
    "Measured",
    "Paused",
    "PhaseEvent",
    "Promoted",
    "Proposed",
    "Purpose",
    "RaceOpened",
    "Replicated",
    "RequestRefused",
    "Retried",
    "RunEvent",
    "RunKey",
    "SessionClosed",
    "SessionEvent",
    "SessionOpened",
    "Stage",
    "Started",
    "StopAsked",
    "StudyOpened",
    "TrialEvent",
    "from_line",
    "to_line",
]

Stage = Literal["manual", "random_grid", "full_grid", "model", "enqueued", "exploit"]
CloseReason = Literal["finished", "interrupted", "time_budget", "failed"]


class StudyOpened(Dated):
    """First line of a journal: what is searched, on which data, by which protocol."""

    event: Literal["study_opened"] = "study_opened"
    schema_version: Literal[1] = 1
    study: str
    study_id: str
    spec: PlainJson
    spec_digest: str
    dataset_digest: str
    protocol_digest: str
    versions: PlainJson = Field(default_factory=dict)
    hardware: PlainJson = Field(default_factory=dict)


class SessionOpened(Dated):
    """A driver took up the study (the first start too), with what it may add to the budget."""

    event: Literal["session_opened"] = "session_opened"
    extra_trials: Count = 0
    extra_seconds: Seconds = 0.0
    pid: int


class SessionClosed(Dated):
    """A driver put the study down of its own accord."""

    event: Literal["session_closed"] = "session_closed"
    reason: CloseReason


class Donor(BaseModel):
    """The trial from whose state another one begins, and where that lies, as in `Checkpointed`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    number: Count
    kimg: Annotated[Finite, Field(gt=0.0)]
    path: RelativePath


class Proposed(Dated):
    """A cell was claimed under the next number, and with it the trial's runs.

    `seed` is that of the first run, `further_seeds` are those of its other replicates. With
    `folds` above 1, replicate r leaves fold r mod `folds` out of its training set. `request` is
    the one that asked for it, if any.

    An exploit `replaces` a trial of a population, and begins from the state of its `donor`.
    """

    event: Literal["proposed"] = "proposed"
    number: Count
    stage: Stage
    stage_index: Count
    params: Params
    cell: str
    seed: Int64
    further_seeds: tuple[Int64, ...] = ()
    folds: Annotated[int, Field(ge=1)] = 1
    request: str | None = None
    donor: Donor | None = None
    replaces: Count | None = None

    @model_validator(mode="after")
    def _exploits_whole(self) -> Self:
        if {self.stage == "exploit", self.donor is not None, self.replaces is not None} == {
            True,
            False,
        }:
            raise ValueError("an exploit, and no other trial, has a donor and replaces a trial")
        if self.donor is not None and self.further_seeds:
            raise ValueError("an exploit has one run")
        return self

    def fold(self, replicate: int) -> int | None:
        """The fold that a replicate leaves out, None where there are none."""
        return replicate % self.folds if self.folds > 1 else None


class Replicated(Dated):
    """A further run of a trial was claimed, under the next replicate.

    `noise_draw` says which noise it is evaluated with: 0 for that of the search.
    A shadow `continues` a stopped run of its trial: it has that run's seed, fold and course, and
    goes on from its checkpoint.
    """

    event: Literal["replicated"] = "replicated"
    number: Count
    replicate: Annotated[int, Field(ge=1)]
    purpose: Literal["race", "confirmation", "shadow"]
    seed: Int64
    fold: Count | None = None
    noise_draw: Count = 0
    continues: Count | None = None

    @model_validator(mode="after")
    def _continues_as_a_shadow(self) -> Self:
        if (self.purpose == "shadow") != (self.continues is not None):
            raise ValueError("a shadow, and no other run, must say which run it continues")
        return self


class Promoted(Dated):
    """A trial whose runs wait at a rung is to train on."""

    event: Literal["promoted"] = "promoted"
    number: Count
    kimg: Kimg


class RaceOpened(Dated):
    """These trials cannot be told apart: each is to be trained on one more seed, in every fold."""

    event: Literal["race_opened"] = "race_opened"
    numbers: tuple[Count, ...]


class ConfirmationOpened(Dated):
    """The search has ended; these trials, the best first, are to be trained on fresh seeds.

    `out_of_time` says whether the time budget ended it.
    """

    event: Literal["confirmation_opened"] = "confirmation_opened"
    numbers: tuple[Count, ...]
    seeds: Annotated[int, Field(ge=1)]
    out_of_time: bool = False


class LookedAtTest(Dated):
    """A winner was scored on the test set, which is done once unless asked for `again`.

    `scores` are what `summary.json` says of it, so that no crash makes a second look necessary.
    """

    event: Literal["looked_at_test"] = "looked_at_test"
    number: Count
    replicates: tuple[Count, ...]
    again: bool = False
    scores: PlainJson


class Extended(Dated):
    """A running study was given more trials or seconds, as `request` asked."""

    event: Literal["extended"] = "extended"
    trials: Count = 0
    seconds: Seconds = 0.0
    request: str


class StopAsked(Dated):
    """A trial is to end STOPPED for `reason` at its next result, at once if it waits."""

    event: Literal["stop_asked"] = "stop_asked"
    number: Count
    reason: str
    request: str


class RequestRefused(Dated):
    """What was asked could not be done when its turn came, and why."""

    event: Literal["request_refused"] = "request_refused"
    request: str
    why: str


TrialEvent = Proposed | Replicated | Promoted | RunEvent
SessionEvent = StudyOpened | SessionOpened | SessionClosed
PhaseEvent = RaceOpened | ConfirmationOpened | LookedAtTest
Answer = Extended | StopAsked | RequestRefused
Event = SessionEvent | PhaseEvent | TrialEvent | Answer

_EVENT: TypeAdapter[Any] = TypeAdapter(Annotated[Event, Field(discriminator="event")])


def to_line(event: Event) -> bytes:
    """Writes an event as one line of JSON, newline included."""
    return event.model_dump_json().encode() + b"\n"


def from_line(line: bytes) -> Event:
    """Reads one line of JSON.

    Raises:
        pydantic.ValidationError: The line is no event (a `ValueError`).
    """
    event: Event = _EVENT.validate_json(line)
    return event
