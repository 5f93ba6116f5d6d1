"""What models are told of earlier studies, which becomes part of this study's own record."""

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Self, TypeVar, cast

from search.cell import cell_key
from search.events import Measured, Purpose, Stage
from search.objective import ObjectiveSection
from search.parquet import RecordError
from search.record import (
    MEASUREMENTS_NAME,
    RUNS_NAME,
    TRIALS_NAME,
    read_measurements,
    read_runs,
    read_trials,
    write_measurements,
    write_runs,
    write_trials,
)
from search.record_rows import MeasurementRecord, RunRecord, TrialRecord
from search.run_state import RunState, TrialStateName
from search.seen_trial import SeenTrial, seen
from search.space import Space, canonical_point
from search.spec_errors import ProblemsError
from search.trial import TrialState

FOLDER = "warm_start"
EARLIER_STAGE = -1
_TOLD = ("COMPLETED", "STOPPED", "INFEASIBLE")
_UNKNOWN = datetime(1970, 1, 1, tzinfo=UTC)  # no sampler looks at times

Row = TypeVar("Row", TrialRecord, RunRecord, MeasurementRecord)


@dataclass(frozen=True, kw_only=True)
class WarmStart:
    """Trials of earlier studies, numbered 0, 1, 2, ... in the order in which they are told.

    They are copied when a study begins, into Parquet files of the same columns as its own: what
    becomes of the earlier folders cannot change a proposal, and whoever reads records reads them.

    Attributes:
        trials: A row a trial, its parameters as the present space has them.
        runs: A row a training of theirs.
        measurements: What those measured.
    """

    trials: tuple[TrialRecord, ...] = ()
    runs: tuple[RunRecord, ...] = ()
    measurements: tuple[MeasurementRecord, ...] = ()

    @classmethod
    def gather(cls, folders: Iterable[Path], space: Space, say: Callable[[str], None]) -> Self:
        """Reads the records of earlier studies; says how many trials are left out.

        Those that have not ended or ended FAILED have nothing to tell; those outside the present
        domains are points that the present space does not have.

        Raises:
            RecordError: A record is missing or broken.
        """
        trials: list[TrialRecord] = []
        runs: list[RunRecord] = []
        measurements: list[MeasurementRecord] = []
        for folder in folders:
            rows = read_trials(folder)
            ended = [row for row in rows if row.state in _TOLD]
            inside = [row for each in ended if (row := _inside(space, each)) is not None]
            numbers = {row.number: len(trials) + place for place, row in enumerate(inside)}
            trials += _renumbered(inside, numbers)
            runs += _renumbered(read_runs(folder), numbers)
            measurements += _renumbered(read_measurements(folder), numbers)
            say(_told(folder, len(inside), len(ended) - len(inside), len(rows) - len(ended)))
        return cls(trials=tuple(trials), runs=tuple(runs), measurements=tuple(measurements))

    @classmethod
    def thaw(cls, output: Path, digest: str) -> Self:
        """Reads what `freeze` wrote into a study's folder.

        Raises:
            RecordError: It is missing, or not as it was written.
        """
        folder = output / FOLDER
        trials, runs = tuple(read_trials(folder)), tuple(read_runs(folder))
        measurements = tuple(read_measurements(folder))
        found = _digest(folder)
        if found != digest:
            raise RecordError(
                f"{folder}: must be as this study wrote it (digest {digest[:12]}), but has digest "
                f"{found[:12]}; bring the unchanged files back"
            )
        return cls(trials=trials, runs=runs, measurements=measurements)

    def freeze(self, output: Path) -> str:
        """Writes it into a study's folder, and returns the SHA-256 of its files.

        Raises:
            RecordError: It cannot be written.
        """
        folder = output / FOLDER
        write_trials(folder, self.trials)
        write_runs(folder, self.runs)
        write_measurements(folder, self.measurements)
        return _digest(folder)

    def seen(self, objective: ObjectiveSection) -> tuple[SeenTrial, ...]:
        """Returns the trials as samplers are told of them: as if they were on the ledger."""
        courses: dict[tuple[int, int], list[MeasurementRecord]] = {}
        for measured in self.measurements:
            courses.setdefault((measured.number, measured.replicate), []).append(measured)
        runs: dict[int, dict[int, RunState]] = {row.number: {} for row in self.trials}
        for run in self.runs:
            course = courses.get((run.number, run.replicate), [])
            runs[run.number][run.replicate] = _run_state(run, course)
        states = (_trial_state(row, runs[row.number]) for row in self.trials)
        return tuple(seen(state, objective) for state in states)


def _inside(space: Space, row: TrialRecord) -> TrialRecord | None:
    try:
        return replace(row, params=canonical_point(space, row.params))
    except ProblemsError:
        return None


def _renumbered(rows: Iterable[Row], numbers: Mapping[int, int]) -> list[Row]:
    return [replace(row, number=numbers[row.number]) for row in rows if row.number in numbers]


def _told(folder: Path, told: int, outside: int, unsettled: int) -> str:
    left_out = [f"{outside} outside the present domains"] if outside else []
    left_out += [f"{unsettled} not ended, or FAILED"] if unsettled else []
    rest = f"; left out: {', '.join(left_out)}" if left_out else ""
    return f"warm start: models are told {told} trials of {folder}{rest}"


def _digest(folder: Path) -> str:
    names = (TRIALS_NAME, RUNS_NAME, MEASUREMENTS_NAME)
    return hashlib.sha256(b"".join((folder / name).read_bytes() for name in names)).hexdigest()


def _trial_state(row: TrialRecord, runs: dict[int, RunState]) -> TrialState:
    return TrialState(
        number=row.number,
        stage=cast(Stage, row.stage),
        stage_index=EARLIER_STAGE,
        params=row.params,
        cell=cell_key(row.params),
        seed=runs[0].seed,
        proposed_at=row.started_at or _UNKNOWN,
        runs=runs,
    )


def _run_state(row: RunRecord, course: Iterable[MeasurementRecord]) -> RunState:
    return RunState(
        number=row.number,
        replicate=row.replicate,
        purpose=cast(Purpose, row.purpose),
        seed=row.seed,
        fold=row.fold,
        noise_draw=row.noise_draw,
        claimed_at=row.started_at or _UNKNOWN,
        state=cast(TrialStateName, row.state),
        measurements=[Measured(at=_UNKNOWN, **asdict(measured)) for measured in course],
    )
