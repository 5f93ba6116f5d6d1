"""What `--dry-run` says: a study's plan and what it costs; nothing is begun."""

from pathlib import Path

from search.estimate import estimate
from search.ledger import Ledger
from search.machine import cores
from search.prepared import PreparedStudy
from search.preview import preview
from search.study import StudySpec
from search.study_folder import look_into, never_begun
from search.summary import read_summary
from search.winner_error import WinnerError


def dry_run(
    spec: StudySpec, output: Path, max_concurrent: int | None = None, *, resume: bool = False
) -> str:
    """Returns the plan of a study and what it costs on this machine.

    Raises:
        DataError: if the data cannot be had.
        StudyError, JournalError: if a real start would refuse the folder.
    """
    resume = resume and not never_begun(output)
    ledger = look_into(spec, output, resume=resume)
    notes: list[str] = []
    prepared = PreparedStudy(spec, output, resume=resume, say=notes.append)
    wanted = spec.resources
    pack = 1 if wanted.pack == "auto" else wanted.pack
    room = pack if pack > 1 else max(1, int(cores() / wanted.cpus_per_trial))
    calibration = prepared.calibrate()
    cost = estimate(spec, calibration, min(max_concurrent or room, spec.budget.trials), pack)
    error = WinnerError.expected(spec, prepared.evaluator)
    lines = [*notes, _folder(spec, output, ledger)]
    lines += preview(spec, cost, calibration, error)
    if wanted.pack == "auto" and 0 < wanted.gpus_per_trial < 1:
        most = int(1 / wanted.gpus_per_trial)
        lines.append(f"packs       on GPUs a probe settles how many share one, up to {most}")
    return "\n".join(lines)


def _folder(spec: StudySpec, output: Path, ledger: Ledger) -> str:
    if ledger.study is None:
        return f"folder      {output}, where the study would begin"
    if read_summary(output, ledger) is not None:
        return f"folder      {output}, where the study has ended: its result would be shown again"
    ended = sum(trial.state != "RUNNING" for trial in ledger.trials.values())
    return (
        f"folder      {output}, where the study would be resumed: {ended} of "
        f"{spec.budget.trials + ledger.extra_trials} trials have ended; below is the plan of all"
    )
