"""What can happen in a study: one frozen model an event, each one line of the journal."""

import json
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, NamedTuple, Self

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    StrictBool,
    StrictFloat,
    StrictStr,
    TypeAdapter,
    model_validator,
)

Finite = Annotated[float, Field(allow_inf_nan=False)]
Int64 = Annotated[int, Field(strict=True, ge=-(2**63), lt=2**63)]
ParamValue = StrictBool | Int64 | Annotated[StrictFloat, Field(allow_inf_nan=False)] | StrictStr
Params = dict[str, ParamValue]


def _plain(value: dict[str, JsonValue]) -> dict[str, JsonValue]:
    json.dumps(value, allow_nan=False)  # raises ValueError: JSON has no NaN and would say null
    return value


PlainJson = Annotated[dict[str, JsonValue], AfterValidator(_plain)]
Count = Annotated[int, Field(ge=0)]
Kimg = Annotated[Finite, Field(ge=0.0)]
Seconds = Annotated[Finite, Field(ge=0.0)]
Stage = Literal["manual", "random_grid", "full_grid", "model", "enqueued", "exploit"]
EndState = Literal["COMPLETED", "STOPPED", "INFEASIBLE", "FAILED"]
CloseReason = Literal["finished", "interrupted", "time_budget", "failed"]
# Why a run is made: for the search itself, to tell two trials apart, to confirm the best, or to
# see what a trial that was stopped would have come to.
Purpose = Literal["search", "race", "confirmation", "shadow"]


class RunKey(NamedTuple):
    """One training: a trial's number and which of its replicates."""

    number: int
    replicate: int = 0


def _now() -> datetime:
    return datetime.now(UTC)


class _Event(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    at: Annotated[AwareDatetime, AfterValidator(lambda at: at.astimezone(UTC))] = Field(
        default_factory=_now
    )


class StudyOpened(_Event):
    """First line of a journal: what is searched, on which data, by which protocol."""

    event: Literal["study_opened"] = "study_opened"
    schema_version: Literal[1] = 1
    study: str
    study_id: str
    spec: PlainJson
    spec_digest: str
    dataset_digest: str
    protocol_digest: str
    versions: PlainJson = {}
    hardware: PlainJson = {}


class SessionOpened(_Event):
    """A driver took up the study (the first start too), with what it may add to the budget."""

    event: Literal["session_opened"] = "session_opened"
    extra_trials: Count = 0
    extra_seconds: Seconds = 0.0
    pid: int


class SessionClosed(_Event):
    """A driver put the study down of its own accord."""

    event: Literal["session_closed"] = "session_closed"
    reason: CloseReason


class Donor(BaseModel):
    """The trial from whose state another one begins, and where that lies, as in `Checkpointed`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    number: Count
    kimg: Annotated[Finite, Field(gt=0.0)]
    path: str


class Proposed(_Event):
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


class Replicated(_Event):
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


class Promoted(_Event):
    """A trial whose runs wait at a rung is to train on."""

    event: Literal["promoted"] = "promoted"
    number: Count
    kimg: Kimg


class RaceOpened(_Event):
    """These trials cannot be told apart: each is to be trained on one more seed, in every fold."""

    event: Literal["race_opened"] = "race_opened"
    numbers: tuple[Count, ...]


class ConfirmationOpened(_Event):
    """The search has ended; these trials, the best first, are to be trained on fresh seeds."""

    event: Literal["confirmation_opened"] = "confirmation_opened"
    numbers: tuple[Count, ...]
    seeds: Annotated[int, Field(ge=1)]


class LookedAtTest(_Event):
    """A winner was scored on the test set, which is done once unless asked for `again`.

    `scores` are what `summary.json` says of it, so that no crash makes a second look necessary.
    """

    event: Literal["looked_at_test"] = "looked_at_test"
    number: Count
    replicates: tuple[Count, ...]
    again: bool = False
    scores: PlainJson


class _OfRun(_Event):
    number: Count
    replicate: Count = 0

    @property
    def run(self) -> RunKey:
        """The run that it happened to."""
        return RunKey(self.number, self.replicate)


class Started(_OfRun):
    """An attempt at a run began on a device, from scratch (0 kimg) or from a checkpoint.

    `pid` is the process that trains it, `pack` how many trials that advances together at most.
    `threads`, `streams`, `torch` and `processor` are what its numbers depend on beside seed and
    configuration (`search.seat.Place`); None in journals that were written before they were.
    """

    event: Literal["started"] = "started"
    attempt: Count
    from_kimg: Kimg = 0.0
    node: str
    device: str
    pid: int
    pack: Annotated[int, Field(ge=1)] = 1
    threads: Annotated[int, Field(ge=1)] | None = None
    streams: str | None = None
    torch: str | None = None
    processor: str | None = None


class Checkpointed(_OfRun):
    """The whole state of a run was saved; `path` is relative to the output folder."""

    event: Literal["checkpointed"] = "checkpointed"
    kimg: Kimg
    path: str


class Measured(_OfRun):
    """A run was scored; `elapsed_seconds` counts its own time since its first step."""

    event: Literal["measured"] = "measured"
    kimg: Kimg
    elapsed_seconds: Seconds
    metrics: dict[str, Finite]


class Paused(_OfRun):
    """A run was taken off its machine, to be gone on with from its checkpoint."""

    event: Literal["paused"] = "paused"


class Retried(_OfRun):
    """A machine failed under a run, which keeps its number and will be started again."""

    event: Literal["retried"] = "retried"
    cause: str


class Ended(_OfRun):
    """A run reached its final state; INFEASIBLE and FAILED say why."""

    event: Literal["ended"] = "ended"
    state: EndState
    reason: str | None = None

    @model_validator(mode="after")
    def _says_why(self) -> Self:
        if self.state in ("INFEASIBLE", "FAILED") and not self.reason:
            raise ValueError(f"a trial that ends {self.state} must have a reason")
        return self


class Extended(_Event):
    """A running study was given more trials or seconds, as `request` asked."""

    event: Literal["extended"] = "extended"
    trials: Count = 0
    seconds: Seconds = 0.0
    request: str


class StopAsked(_Event):
    """A trial is to end STOPPED for `reason` at its next result, at once if it waits."""

    event: Literal["stop_asked"] = "stop_asked"
    number: Count
    reason: str
    request: str


class RequestRefused(_Event):
    """What was asked could not be done when its turn came, and why."""

    event: Literal["request_refused"] = "request_refused"
    request: str
    why: str


RunEvent = Started | Checkpointed | Measured | Paused | Retried | Ended
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
