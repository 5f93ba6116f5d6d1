"""A trial as its record has it: all that is needed to train it again and to compare."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from search.parquet import RecordError
from search.record import (
    RUNS_NAME,
    RunRecord,
    TrialRecord,
    read_measurements,
    read_runs,
    read_trials,
)
from search.study_file import STUDY_NAME, read_study

_AS_IN_THE_ROW = ("state", "reason", "seed", "device", "threads", "streams", "torch", "processor")


@dataclass(frozen=True, kw_only=True)
class RecordedTrial:
    """One run of one trial of one study.

    Attributes:
        place: Where the record is, for messages.
        study: The content of `study.json`.
        number: Of the trial in its study.
        replicate: Which of its runs.
        purpose: Of the run: `search`, `race`, `confirmation` or `shadow`.
        fold: The part of the training set that it left out, if any.
        noise_draw: The noise that it was evaluated with.
        state: As it ended, or RUNNING.
        reason: Why it is INFEASIBLE.
        params: `GANConfig` fields, in MLflow all of them.
        seed: Of its training.
        device: Where it was trained.
        pack: Trials that its process advanced together at most.
        threads: Of its process; None where the record is too old to say.
        streams: How chance was drawn; None as above.
        torch: Version; None as above.
        processor: Model; None as above.
        measurements: Metrics by name, by kimg in ascending order.
        donor: The trial from whose state it begins, None where it begins anew.
        donor_kimg: Where that trial stood.
    """

    place: str
    study: Mapping[str, Any]
    number: int
    replicate: int
    purpose: str
    fold: int | None
    noise_draw: int
    state: str
    reason: str | None
    params: Mapping[str, Any]
    seed: int
    device: str | None
    pack: int
    threads: int | None
    streams: str | None
    torch: str | None
    processor: str | None
    measurements: Mapping[float, Mapping[str, float]]
    donor: "RecordedTrial | None" = None
    donor_kimg: float = 0.0

    @property
    def lineage(self) -> str:
        """The trials from whose states it begins, in words; empty where it begins anew."""
        if self.donor is None:
            return ""
        return f", from trial {self.donor.number} at {self.donor_kimg:g} kimg{self.donor.lineage}"

    @property
    def infeasible(self) -> bool:
        """Whether it ended because it could not go on."""
        return self.state == "INFEASIBLE"


def read_trial(folder: Path, number: int, replicate: int = 0) -> RecordedTrial:
    """Reads a run of a trial from the Parquet files and `study.json` of a study's folder.

    Raises:
        RecordError: A file is missing or broken, or holds no such trial or run.
        StudyError: `study.json` is not as the search wrote it.
    """
    study = read_study(folder)
    trial = _row(folder, number, study)
    run = _run(folder, trial, replicate)
    measured = {
        m.kimg: m.metrics
        for m in read_measurements(folder)
        if (m.number, m.replicate) == (number, replicate)
    }
    return RecordedTrial(
        place=f"{folder}:{number}" + (f":{replicate}" if replicate else ""),
        study=study,
        number=number,
        replicate=replicate,
        purpose="search" if isinstance(run, TrialRecord) else run.purpose,
        fold=None if isinstance(run, TrialRecord) else run.fold,
        noise_draw=0 if isinstance(run, TrialRecord) else run.noise_draw,
        params=trial.params,
        pack=run.pack or 1,
        measurements=dict(sorted(measured.items())),
        donor=None if trial.donor is None else read_trial(folder, trial.donor),
        donor_kimg=trial.donor_kimg or 0.0,
        **{name: getattr(run, name) for name in _AS_IN_THE_ROW},
    )


def _run(folder: Path, trial: TrialRecord, replicate: int) -> RunRecord | TrialRecord:
    """The row of a run; that of its trial in a record that was written before runs had theirs."""
    if not (folder / RUNS_NAME).exists() and replicate == 0:
        return trial
    held = [run for run in read_runs(folder) if run.number == trial.number]
    run = next((run for run in held if run.replicate == replicate), None)
    if run is None:
        raise RecordError(
            f"{folder}: trial {trial.number} has no replicate {replicate}; its replicates are 0 "
            f"to {len(held) - 1}"
        )
    return run


def _row(folder: Path, number: int, study: Mapping[str, Any]) -> TrialRecord:
    rows = read_trials(folder)
    row = next((row for row in rows if row.number == number), None)
    if row is None:
        held = f"0 to {len(rows) - 1}" if rows else "none"
        raise RecordError(f"{folder}: holds no trial {number}; its trials are {held}")
    for name in ("dataset_digest", "protocol_digest"):
        old, new = getattr(row, name), str(study.get(name))
        if old != new:
            raise RecordError(
                f"{folder}: trial {number} was recorded under another {name} than {STUDY_NAME} "
                f"has ({old[:12]}, {new[:12]}); bring the unchanged files back"
            )
    if row.seed is None:
        run = f" {row.run_id}" if row.run_id else ""
        raise RecordError(
            f"{folder}: was recorded before trials.parquet had seeds; give the trial's MLflow "
            f"run{run} instead"
        )
    return row
