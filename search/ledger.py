"""The state of a study: a pure fold of its events, in which every cell exists exactly once."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from statistics import fmean, stdev
from typing import Literal, Self

from search.events import (
    Checkpointed,
    Ended,
    Event,
    Measured,
    Params,
    ParamValue,
    Proposed,
    Retried,
    SessionClosed,
    SessionOpened,
    Stage,
    Started,
    StudyOpened,
)

TrialStateName = Literal["RUNNING", "COMPLETED", "STOPPED", "INFEASIBLE", "FAILED"]
Direction = Literal["maximize", "minimize"]

STATES: tuple[TrialStateName, ...] = ("RUNNING", "COMPLETED", "STOPPED", "INFEASIBLE", "FAILED")
_SIGNIFICANT_DIGITS = 12


class LedgerError(ValueError):
    """An event that the record so far does not allow."""


def _canonical(value: ParamValue) -> str:
    if isinstance(value, bool | str):
        return json.dumps(value)
    if isinstance(value, float):
        value = float(f"{value:.{_SIGNIFICANT_DIGITS}g}")
        if not value.is_integer() or abs(value) >= 10**_SIGNIFICANT_DIGITS:
            return repr(value)
    return str(int(value))


def cell_key(params: Mapping[str, ParamValue]) -> str:
    """Names the cell of a configuration: JSON with sorted keys and canonical numbers.

    Floats are rounded to 12 significant digits; 1, 1.0 and -0.0, 0 name the same cells, while
    `True`, `1` and `"1"` differ.
    """
    pairs = (f"{json.dumps(name)}:{_canonical(params[name])}" for name in sorted(params))
    return "{" + ",".join(pairs) + "}"


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

    @property
    def total_kimg(self) -> float:
        """Training so far in kimg, summed over replicates."""
        raise NotImplementedError

    @property
    def elapsed_seconds(self) -> float:
        """Training time so far in seconds, summed over replicates."""
        raise NotImplementedError

    def objective(self, metric: str, direction: Direction = "maximize") -> Objective | None:
        """Scores the trial by its best measurement of `metric`; None before the first one."""
        raise NotImplementedError


class Ledger:
    """Folds events into trials and refuses those that cannot follow.

    Attributes:
        study: The event that opened the study, None before it.
        trials: Every trial by its number 0, 1, 2, ... in order.
        cells: The number under which each cell was claimed.
    """

    def __init__(self, events: Iterable[Event] = ()) -> None:
        self.study: StudyOpened | None = None
        self.trials: dict[int, TrialState] = {}
        self.cells: dict[str, int] = {}
        self.sessions: list[SessionOpened] = []
        for event in events:
            self.apply(event)

    def check(self, event: Event) -> None:
        """Raises `LedgerError` where `event` cannot follow; changes nothing."""
        raise NotImplementedError

    def apply(self, event: Event) -> None:
        """Checks an event and takes it in.

        Raises:
            LedgerError: The event cannot follow; nothing was changed.
        """
        raise NotImplementedError

    def next_number(self) -> int:
        """The number that the next proposal must have."""
        return len(self.trials)

    def unfinished(self) -> list[TrialState]:
        """Trials without a final state, by number."""
        raise NotImplementedError

    def count_by_state(self) -> dict[TrialStateName, int]:
        """How many trials are in each state, zeros included."""
        raise NotImplementedError

    def count_by_stage(self) -> dict[Stage, int]:
        """How many trials each stage has proposed, zeros included."""
        raise NotImplementedError

    def incumbent(
        self, metric: str, direction: Direction = "maximize", floor: float | None = None
    ) -> TrialState | None:
        """The best trial so far that is neither INFEASIBLE nor FAILED.

        A running trial may be it. One that is not better than `floor` (the `untrained` line)
        never is. Of equals the lowest number.
        """
        raise NotImplementedError

    @property
    def extra_trials(self) -> int:
        """Trials added to the budget by later sessions (`--trials +N`)."""
        raise NotImplementedError

    @property
    def extra_seconds(self) -> float:
        """Seconds added to the time budget by later sessions (`--time-budget +1h`)."""
        raise NotImplementedError

    @property
    def spent_seconds(self) -> float:
        """Wall time of all sessions, each from its opening to its last event."""
        raise NotImplementedError
