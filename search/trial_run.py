"""What the platform asks of training runs: the one seam between Ray and what is searched."""

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

CHUNK_STEPS = 10  # updates between looks at the clock and at who else wants something


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Where a run stands.

    Attributes:
        kimg: Thousands of real images shown to the discriminator since the run's first step.
        elapsed_seconds: Its own training time, carried over checkpoints.
        metrics: Scores, given where a measurement was made at exactly `kimg`.
        done: Whether the full budget is trained and measured.
        infeasible: Why the run cannot go on (a quantity that is not finite), None where it can.
    """

    kimg: float
    elapsed_seconds: float
    metrics: Mapping[str, float] | None = None
    done: bool = False
    infeasible: str | None = None


class Snapshot(Protocol):
    """A copy of the whole state of a run, which training no longer changes."""

    def save(self, folder: Path) -> None:
        """Writes it into an empty folder, so that `TrialRun.load` goes on bit for bit."""
        ...


class TrialRun(Protocol):
    """One trial in training."""

    @property
    def signature(self) -> Hashable:
        """What runs that can be fused have in common."""
        ...

    @property
    def steps_left(self) -> int:
        """Updates to the next measurement; 0 where it is due, or the run cannot go on."""
        ...

    def measure(self) -> Progress:
        """Scores a run with no steps left, or says why it cannot go on; may write to disk.

        Raises:
            Exception: whatever its training raised.
        """
        ...

    def progress(self) -> Progress:
        """Tells where the run stands, without a measurement."""
        ...

    def snapshot(self) -> Snapshot:
        """Copies the state."""
        ...

    def load(self, folder: Path) -> None:
        """Takes up the state that a snapshot wrote."""
        ...

    def inherit(self, folder: Path) -> None:
        """Begins from the state that a snapshot of another trial wrote, with the own values."""
        ...

    def close(self) -> None:
        """Releases what the run holds."""
        ...


Run = TypeVar("Run", bound=TrialRun)


class Lanes(Protocol[Run]):
    """The runs on one device in one process; used by one thread.

    Attributes:
        device: Where the runs are trained, such as `cpu`.
        fused: Whether runs of one signature advance together at the cost of one.
        streams: How chance is drawn, by a name: other streams give other numbers.
        processor: Model of what computes, by which results differ in rounding.
    """

    device: str
    fused: bool
    streams: str
    processor: str

    def open(self, trial: Mapping[str, Any]) -> Run:
        """Begins a trial.

        It has "number", "replicate", "seed", "params", "threads", "fold" (which part of the
        training split is left out and scored on; None trains on all and scores on validation)
        and "noise_draw" (0 for the evaluation noise of the search, others for confirmations).
        """
        ...

    def advance(self, runs: Sequence[Run], num_steps: int) -> None:
        """Trains runs of one signature by `num_steps`, at most what the nearest has left.

        What one run raises is kept for its `measure`, and its neighbours go on.

        Raises:
            Exception: if no run can be trusted any more.
        """
        ...


# Called in the process that trains, with the device and the most runs at a time.
MakeLanes = Callable[[str, int], Lanes[Any]]
