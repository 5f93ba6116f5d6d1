"""The rows of a study's record: of a trial, of a run, of a measurement."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Self

from search.event_fields import ParamValue
from search.events import Measured
from search.lost_attempt import by_cause
from search.run_state import CLAIM, CONDITIONS, RunState
from search.trial import Direction, Objective, TrialState

_COURSE = (
    *("number", "state", "reason", "started_at", "ended_at"),
    *("elapsed_seconds", "total_kimg", "retries"),
)
_ERRORS = ("standard_error", "points_error", "redraw_error", "replicates_error", "replicates")


@dataclass(frozen=True, kw_only=True)
class TrialRecord:
    """One trial, a row of `trials.parquet`.

    `objective` and its errors are in the units of the objective (nats), None before all runs of
    the search were measured and for a trial that is INFEASIBLE or FAILED: what it measured is in
    the measurements. `replicates` counts the runs averaged in `objective`; `points_error`,
    `redraw_error` and `replicates_error` are its standard errors from the evaluated points, from
    the generator's samples and from seeds and folds, `standard_error` the one that counts
    (`search.trial.Objective`). `run_id` is the tracking run. An exploit of a population has the
    place of the trial that it `replaces`, and began from the state of trial `donor` at
    `donor_kimg`. What can differ from run to run (`seed`, `node`, `device`, ...) is that of the
    first; the others are in `runs.parquet`.
    """

    number: int
    stage: str
    state: str
    params: dict[str, ParamValue] = field(default_factory=dict)
    donor: int | None = None
    donor_kimg: float | None = None
    replaces: int | None = None
    seed: int | None = None
    objective: float | None = None
    standard_error: float | None = None
    points_error: float | None = None
    redraw_error: float | None = None
    replicates_error: float | None = None
    replicates: int = 0
    elapsed_seconds: float = 0.0
    total_kimg: float = 0.0
    run_id: str | None = None
    reason: str | None = None
    flags: tuple[str, ...] = ()
    started_at: datetime | None = None
    ended_at: datetime | None = None
    node: str | None = None
    device: str | None = None
    pack: int | None = None
    threads: int | None = None
    streams: str | None = None
    torch: str | None = None
    processor: str | None = None
    retries: int = 0
    retries_preempted: int = 0
    retries_machine: int = 0
    retries_out_of_memory: int = 0
    retries_storage: int = 0
    retries_code: int = 0
    dataset_digest: str
    protocol_digest: str

    @classmethod
    def of(cls, trial: TrialState, metric: str, direction: Direction, **others: Any) -> Self:
        """Writes a trial down; `others` are the columns that no trial knows."""
        scored = trial.objective(metric, direction)
        if trial.state in ("INFEASIBLE", "FAILED"):
            scored = None
        return cls(
            stage=trial.stage,
            params=dict(trial.params),
            donor=trial.donor.number if trial.donor else None,
            donor_kimg=trial.donor.kimg if trial.donor else None,
            replaces=trial.replaces,
            **({"objective": scored.value, **_same(scored, _ERRORS)} if scored else {}),
            **_same(trial, _COURSE),
            **_same(trial.first, CONDITIONS),
            **by_cause(trial.losses),
            **others,
        )


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """One run, a training of a trial, a row of `runs.parquet`.

    `purpose` is `search`, `race`, `confirmation` or `shadow`, which has the course of the run that
    it `continues` up to where that was stopped; `fold` the part of the training set that it
    left out and was scored on, `noise_draw` the noise it was scored with. `objective` is its
    best measurement in the units of the objective (nats), at `kimg`. `pack` is how many runs its
    process advanced together at most. `seed`, `fold`, `threads`, `streams`, `torch` and
    `processor` are what `search.rerun` needs beside the trial's parameters
    (`search.seat.Place`); None in records that were written before they were.
    """

    number: int
    replicate: int
    purpose: str
    state: str
    seed: int
    fold: int | None = None
    noise_draw: int = 0
    continues: int | None = None
    objective: float | None = None
    kimg: float | None = None
    elapsed_seconds: float = 0.0
    total_kimg: float = 0.0
    run_id: str | None = None
    reason: str | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None
    node: str | None = None
    device: str | None = None
    pack: int | None = None
    threads: int | None = None
    streams: str | None = None
    torch: str | None = None
    processor: str | None = None
    retries: int = 0
    retries_preempted: int = 0
    retries_machine: int = 0
    retries_out_of_memory: int = 0
    retries_storage: int = 0
    retries_code: int = 0

    @classmethod
    def of(cls, run: RunState, metric: str, direction: Direction, run_id: str | None) -> Self:
        """Writes a run down."""
        best = run.best(metric, direction)
        return cls(
            objective=best.metrics[metric] if best else None,
            kimg=best.kimg if best else None,
            run_id=run_id,
            **_same(run, CLAIM + _COURSE + CONDITIONS),
            **by_cause(run.losses),
        )


@dataclass(frozen=True, kw_only=True)
class MeasurementRecord:
    """One measurement, a row of `measurements.parquet`; `elapsed_seconds` is the run's own."""

    number: int
    replicate: int
    kimg: float
    elapsed_seconds: float
    metrics: dict[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, measured: Measured) -> Self:
        """Writes a measurement down."""
        return cls(
            number=measured.number,
            replicate=measured.replicate,
            kimg=measured.kimg,
            elapsed_seconds=measured.elapsed_seconds,
            metrics=measured.metrics,
        )


def _same(of: TrialState | Objective | RunState, names: tuple[str, ...]) -> dict[str, Any]:
    """The columns that have the name and value of what they are the record of."""
    return {name: getattr(of, name) for name in names}
