"""A study as an Optuna journal, for optuna-dashboard: `python -m search.export OUTPUT`."""

import argparse
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial

from search.command_line import DONE, Parser, carry_out
from search.journal import JournalError
from search.lines import Lines
from search.parquet import RecordError, replacing
from search.proposer import Proposer
from search.record import TRIALS_NAME, read_trials
from search.recorded_study import RecordedStudy
from search.study import SpecError
from search.study_file import StudyError, read_study
from search.trial import TrialState


def parser() -> Parser:
    """Creates the parser of the command line."""
    p = Parser(
        prog="python -m search.export",
        allow_abbrev=False,
        description="Write a running or finished study as an Optuna journal, which "
        "optuna-dashboard FILE opens.",
    )
    p.add_argument("output", type=Path, metavar="OUTPUT", help="the study's folder")
    p.add_argument(
        "--optuna", type=Path, required=True, metavar="FILE.journal", help="what to write"
    )
    p.add_argument("--force", action="store_true", help="replace FILE.journal where it exists")
    return p


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    errors = (SpecError, RecordError, StudyError, JournalError)
    return carry_out(_export, parser(), arguments, errors)


def _export(options: argparse.Namespace) -> int:
    written = export(options.output, options.optuna, force=options.force)
    sys.stdout.write(f"{written} trials in {options.optuna}: optuna-dashboard {options.optuna}\n")
    return DONE


def export(output: Path, file: Path, *, force: bool = False) -> int:
    """Writes a study as the journal of one Optuna study of the same name.

    Trials keep their numbers, and states are as the proposer tells them to a sampler: STOPPED is
    PRUNED with its course, INFEASIBLE breaks the constraint `diverged`, FAILED is FAIL. Our own
    words (state, stage, seed, reason, flags, MLflow run) are user attributes.

    Args:
        output: The study's folder; a driver may be writing there.
        file: Replaced as a whole, in one step.
        force: Whether it may exist.

    Returns:
        The number of trials.

    Raises:
        RecordError: The folder holds no study, or the file exists or cannot be written.
        StudyError: `study.json` is missing or broken.
        JournalError: The study's journal is broken.
    """
    if file.exists() and not force:
        raise RecordError(f"{file}: exists already; give --force to replace it")
    study = RecordedStudy.read(output)
    trials = list(_trials(study))
    with replacing(file) as temporary:
        storage = JournalStorage(JournalFileBackend(str(temporary)))
        _write(study, trials, storage)
    return len(trials)


def _write(
    study: RecordedStudy, trials: Sequence[FrozenTrial], storage: optuna.storages.BaseStorage
) -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)  # else it announces the study
    opened, aim = study.ledger.study, study.spec.objective
    assert opened is not None
    made = optuna.create_study(
        study_name=opened.study, directions=[a.direction for a in aim.aims], storage=storage
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        made.set_metric_names([a.metric for a in aim.aims])
    best = study.ledger.incumbent(aim.metric, aim.direction, constraints=aim.bounds)
    facts = {
        "study_id": opened.study_id,
        "spec_digest": opened.spec_digest,
        "dataset_digest": opened.dataset_digest,
        "protocol_digest": opened.protocol_digest,
        "best_number": best and best.number,
    }
    for name, value in facts.items():
        made.set_user_attr(name, value)
    made.add_trials(trials)


def _trials(study: RecordedStudy) -> Iterator[FrozenTrial]:
    """Yields the study's trials as Optuna's, in the order of their numbers."""
    lines = Lines.from_mapping(read_study(study.folder)["validation_lines"])
    run_ids = _run_ids(study.folder)
    ours = list(study.ledger.trials.values())
    for trial, told in zip(ours, Proposer(study.spec).told(ours), strict=True):
        flags = lines.flags_of(study.spec, trial)
        # optuna-dashboard (0.21) reads them as Optuna wrote them before they had names.
        told.system_attrs["constraints"] = list(told.constraints.values())
        told.user_attrs = _attributes(trial, flags, run_ids.get(trial.number), study)
        # Optuna's own times are naive and local.
        told.datetime_start = _local(trial.started_at or trial.proposed_at)
        told.datetime_complete = None if trial.ended_at is None else _local(trial.ended_at)
        yield told


def _attributes(
    trial: TrialState, flags: Sequence[str], run_id: str | None, study: RecordedStudy
) -> dict[str, Any]:
    aim = study.spec.objective
    scored = trial.objective(aim.metric, aim.direction)
    facts: Mapping[str, Any] = {
        "state": trial.state,
        "stage": trial.stage,
        "seed": trial.seed,
        "reason": trial.reason,
        "flags": list(flags),
        "run_id": run_id,
        "objective": scored and scored.value,
        "standard_error": scored and scored.standard_error,
        "best_kimg": scored and scored.kimg,
        "replicates": len(trial.search_runs),
        "total_kimg": trial.total_kimg,
        "elapsed_seconds": trial.elapsed_seconds,
        "node": trial.first.node,
        "device": trial.first.device,
    }
    return {name: value for name, value in facts.items() if value is not None}


def _run_ids(folder: Path) -> dict[int, str]:
    """The MLflow runs that the last compacted record knows; it may be some seconds old."""
    if not (folder / TRIALS_NAME).exists():
        return {}
    return {row.number: row.run_id for row in read_trials(folder) if row.run_id is not None}


def _local(at: datetime) -> datetime:
    return at.astimezone().replace(tzinfo=None)


if __name__ == "__main__":
    sys.exit(main())
