"""What can happen to a run, from its start to its end."""

from typing import Annotated, Literal, NamedTuple, Self

from pydantic import Field, model_validator

from search.cause import CauseKind
from search.event_fields import Count, Dated, Finite, Kimg, RelativePath, Seconds

EndState = Literal["COMPLETED", "STOPPED", "INFEASIBLE", "FAILED"]
# Why a run is made: for the search itself, to tell two trials apart, to confirm the best, or to
# see what a trial that was stopped would have come to.
Purpose = Literal["search", "race", "confirmation", "shadow"]


class RunKey(NamedTuple):
    """One training: a trial's number and which of its replicates."""

    number: int
    replicate: int = 0


class _OfRun(Dated):
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
    path: RelativePath


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
    """An attempt was lost; the run keeps its number and will be started again.

    `kind` is None in journals that were written before it was.
    """

    event: Literal["retried"] = "retried"
    cause: str
    kind: CauseKind | None = None


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


RunEvent = Started | Checkpointed | Measured | Paused | Retried | Ended
