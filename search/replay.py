"""A whole study again, from its journal: its runs, its proposals, its decisions."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from search.comparison import Verdict
from search.judgement import Judgement, Kind
from search.machine import cores, version
from search.recorded_trial import RecordedTrial
from search.refold import Refold, Remeasured
from search.repeatable_study import RepeatableStudy
from search.repeated_run import RepeatedRun, repeat_runs
from search.repetition import check_repeatable, differences_of_place

Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Replay:
    """What came of it.

    Attributes:
        study: The record.
        runs: Those that were trained again, by number and replicate; None where none was to be.
        judgements: Of all proposals and decisions, in the order of the journal.
        given: How often something was taken as given, by what it was.
        note: What is not as it was recorded on.
    """

    study: RepeatableStudy
    runs: Sequence[RepeatedRun] | None
    judgements: Sequence[Judgement]
    given: Counter[str]
    note: str | None

    @property
    def first_difference(self) -> Judgement | None:
        """The first proposal or decision that is another one now."""
        return next((one for one in self.judgements if not one.equal), None)

    @property
    def verdict(self) -> Verdict:
        """The worst of all: a proposal or a decision is equal or different."""
        found = {run.comparison.verdict for run in self.runs or ()}
        if self.first_difference is not None or "different" in found:
            return "different"
        return "within_tolerance" if "within_tolerance" in found else "equal"

    def count(self, verdict: Verdict) -> int:
        """How many runs compare so."""
        return sum(run.comparison.verdict == verdict for run in self.runs or ())

    def equal(self, kind: Kind) -> tuple[int, int]:
        """How many proposals or decisions are equal, and how many there are."""
        asked = [one for one in self.judgements if one.kind == kind]
        return sum(one.equal for one in asked), len(asked)

    def to_mapping(self) -> dict[str, Any]:
        """Returns the verdict and what it rests on, as JSON has it."""
        first = self.first_difference
        return {
            "record": str(self.study.folder),
            "study": self.study.opened.study,
            "verdict": self.verdict,
            "recorded_elsewhere": self.note,
            "runs": None if self.runs is None else self._runs(),
            "proposals": dict(zip(("equal", "of"), self.equal("proposal"), strict=True)),
            "decisions": dict(zip(("equal", "of"), self.equal("decision"), strict=True)),
            "taken_as_given": dict(self.given),
            "first_difference": None if first is None else first.to_mapping(),
        }

    def _runs(self) -> dict[str, Any]:
        assert self.runs is not None
        unequal = [run for run in self.runs if run.comparison.verdict == "different"]
        first = None
        if unequal:
            found = unequal[0].comparison.beyond()[0]
            first = {**unequal[0].key._asdict(), **vars(found)}
        return {
            "equal": self.count("equal"),
            "within_tolerance": self.count("within_tolerance"),
            "different": self.count("different"),
            "of": len(self.runs),
            "first_difference": first,
        }

    def __str__(self) -> str:
        lines = [f"runs       {self._told_runs()}"]
        for kind in ("proposal", "decision"):
            count, asked = self.equal(kind)
            lines.append(f"{kind + 's':10} {count} of {asked} equal")
        if self.given:
            given = ", ".join(f"{count} {what}" for what, count in sorted(self.given.items()))
            lines.append(f"as given   {given}")
        if self.first_difference is not None:
            lines.append(f"the first that differs: {self.first_difference}")
        return "\n".join(lines)

    def _told_runs(self) -> str:
        if self.runs is None:
            return "as recorded: nothing was trained"
        told = f"{self.count('equal')} of {len(self.runs)} equal bit for bit"
        if within := self.count("within_tolerance"):
            told += f", {within} equal within {self.runs[0].comparison.tolerance:g}"
        if different := self.count("different"):
            unequal = next(r for r in self.runs if r.comparison.verdict == "different")
            first = unequal.comparison.beyond()[0]
            told += f", {different} different, first {_name(unequal)}: {first}"
        return told


def replay(
    folder: Path, *, train: bool, tolerance: float, jobs: int | None = None, say: Say
) -> Replay:
    """Replays the study in `folder`, which is only read.

    Args:
        folder: The study's.
        train: Whether its runs are trained again; else what was measured is taken from the
            journal, and with a paired rule the points of rungs from the folder.
        tolerance: Of the comparison of runs.
        jobs: Runs at a time; by default as many as the cores have threads for.
        say: Hears lines on how far it is.

    Raises:
        RecordError: The folder holds no study, or what it holds does not fit together.
        JournalError: A line of the journal is broken.
        StudyError, DataError, SpecError: As by `search.repetition.repeating`.
    """
    study = RepeatableStudy.read(folder)
    others = _other_optuna(study)
    if others is not None:
        say(others)
    if not train:
        return _replay(study, None, _refolded(study, folder, {}), others)
    trials = study.runs()
    for trial in trials:
        check_repeatable(trial)
    with TemporaryDirectory() as scratch:
        runs, note = _repeated(trials, tolerance, Path(scratch), jobs, say)
        remeasured = {
            (run.key, kimg): metrics for run in runs for kimg, metrics in run.metrics.items()
        }
        refold = _refolded(study, Path(scratch), remeasured)
    return _replay(study, runs, refold, "; ".join(filter(None, (others, note))) or None)


def _other_optuna(study: RepeatableStudy) -> str | None:
    """Says where the package that proposes is of another version."""
    then, now = study.opened.versions.get("optuna"), version("optuna")
    if then in (None, now):
        return None
    return f"recorded with optuna {then}, here {now}: its samplers may propose otherwise"


def _refolded(study: RepeatableStudy, folder: Path, remeasured: Remeasured) -> Refold:
    refold = Refold(study.spec, folder, remeasured, study.lines(), study.earlier())
    for line, event in enumerate(study.events, start=1):
        refold.take(line, event)
    return refold


def _replay(
    study: RepeatableStudy, runs: Sequence[RepeatedRun] | None, refold: Refold, note: str | None
) -> Replay:
    judgements = sorted(refold.judgements, key=lambda one: one.line)
    given = +refold.given  # without what never was
    return Replay(study=study, runs=runs, judgements=judgements, given=given, note=note)


def _repeated(
    trials: Sequence[RecordedTrial], tolerance: float, scratch: Path, jobs: int | None, say: Say
) -> tuple[list[RepeatedRun], str | None]:
    if jobs is None:
        threads = max((trial.threads or 1 for trial in trials), default=1)
        jobs = max(1, cores() // threads)
    jobs = min(jobs, max(1, len(trials)))
    say(f"training {len(trials)} runs again, {jobs} at a time")
    runs: list[RepeatedRun] = []
    note = None
    for run in repeat_runs(trials, tolerance, scratch, jobs):
        note = note or differences_of_place(run.comparison.trial, run.place)
        if note and not runs:
            say(note)
        runs.append(run)
        told = run.comparison.verdict.replace("_", " ")
        measured = f"{run.comparison.num_measurements} measurements"
        say(f"{len(runs):4} of {len(trials)}  {_name(run)}: {told}, {measured}")
    return sorted(runs, key=lambda run: run.key), note


def _name(run: RepeatedRun) -> str:
    number, replicate = run.key
    return f"trial {number}" + (f", replicate {replicate}" if replicate else "")
