"""What the platform asks of a training run: the one seam between Ray and what is searched."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Where a run stands after a call of `advance`.

    Attributes:
        kimg: Thousands of real images shown to the discriminator since the run's first step.
        elapsed_seconds: Its own training time, carried over checkpoints.
        metrics: Scores, given in the call that made a measurement at exactly `kimg`.
        done: Whether the full budget is trained and measured.
        infeasible: Why the run cannot go on (a quantity that is not finite), None where it can.
    """

    kimg: float
    elapsed_seconds: float
    metrics: Mapping[str, float] | None = None
    done: bool = False
    infeasible: str | None = None


class TrialRun(Protocol):
    """One trial in training on a worker."""

    def advance(self, seconds: float) -> Progress:
        """Trains until a measurement is made or about `seconds` have passed."""
        ...

    def save(self, folder: Path) -> None:
        """Writes the whole state into an empty folder, so that `load` goes on bit for bit."""
        ...

    def load(self, folder: Path) -> None:
        """Takes up the state that `save` wrote."""
        ...

    def close(self) -> None:
        """Releases what the run holds."""
        ...


# The mapping has "number", "replicate", "seed", "params" and "threads".
MakeRun = Callable[[Mapping[str, Any]], TrialRun]
