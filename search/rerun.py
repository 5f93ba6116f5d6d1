"""Trains a recorded trial, or a whole study, again and compares: `python -m search.rerun RUN`."""

import argparse
import json
import math
import re
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from cgan_core.config import ConfigError
from cgan_core.data import DataError
from search.command_line import DONE, INTERRUPTED, Parser, carry_out, public_uri
from search.comparison import Comparison, Difference
from search.journal import JournalError
from search.parquet import RecordError
from search.recorded_trial import RecordedTrial, read_trial
from search.repetition import STEP_SECONDS, differences_of_place, repeating
from search.replay import replay
from search.study import SpecError
from search.study_file import StudyError
from search.tracked_trial import read_tracked
from search.tracking_place import TrackingError

DIFFERENT = 1
TOLERANCE = 1e-3  # to which a score is the one its equation gives (docs/protocol.md)
LINE_SECONDS = 15.0  # between lines that only say how far it is


def parser() -> Parser:
    """Creates the parser of the command line."""
    p = Parser(
        prog="python -m search.rerun",
        allow_abbrev=False,
        description="Train a recorded trial again from its record alone, and compare every "
        "measurement; or a whole study with its proposals and decisions (--replay). Exit code 0: "
        "equal, 1: different, 2: a mistake in what was asked for.",
    )
    p.add_argument(
        "run",
        metavar="RUN",
        help="MLflow run ID, or STUDY_FOLDER:NUMBER[:REPLICATE]; STUDY_FOLDER with --replay",
    )
    p.add_argument(
        "--tracking-uri", type=public_uri, metavar="URI", help="MLflow; default: runs/mlflow.db"
    )
    p.add_argument(
        "--until-kimg", type=_positive, metavar="K", help="repeat only the beginning, to K kimg"
    )
    p.add_argument(
        "--tolerance",
        type=_positive,
        default=TOLERANCE,
        metavar="T",
        help="what still counts as equal, relative to the value or to 1 (default: %(default)g)",
    )
    p.add_argument("--json", action="store_true", help="print one object on standard output")
    _add_whole_study(p)
    return p


def _add_whole_study(p: Parser) -> None:
    whole = p.add_argument_group("a whole study")
    whole.add_argument(
        "--replay",
        action="store_true",
        help="train all its runs again, and ask for each proposal and decision on what was known",
    )
    whole.add_argument(
        "--jobs", type=_count, metavar="N", help="runs at a time (default: as many as cores)"
    )
    whole.add_argument(
        "--proposals-only",
        action="store_true",
        help="train nothing: proposals and decisions by what the record says was measured",
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    of_core = (ConfigError, DataError)
    errors = (*of_core, SpecError, StudyError, RecordError, JournalError, TrackingError)
    return carry_out(_repeat, parser(), arguments, errors)


def _repeat(options: argparse.Namespace) -> int:
    try:
        return _replay(options) if _whole_study(options) else _rerun(options)
    except KeyboardInterrupt:
        sys.stderr.write("interrupted: nothing is said of what was not repeated\n")
        return INTERRUPTED


def _whole_study(options: argparse.Namespace) -> bool:
    """Whether it is one that is asked for; refuses what goes with the other case only."""
    if options.replay:
        named = {"--until-kimg": options.until_kimg, "--tracking-uri": options.tracking_uri}
        where = "without --replay, of one trial"
    else:
        named = {"--jobs": options.jobs, "--proposals-only": options.proposals_only or None}
        where = "with --replay"
    unfit = [name for name, value in named.items() if value is not None]
    if unfit:
        raise RecordError(f"{', '.join(unfit)}: only {where}")
    return bool(options.replay)


def _replay(options: argparse.Namespace) -> int:
    started = time.monotonic()
    found = replay(
        Path(options.run),
        train=not options.proposals_only,
        tolerance=options.tolerance,
        jobs=options.jobs,
        say=_say,
    )
    if options.json:
        took = {"elapsed_seconds": time.monotonic() - started}
        sys.stdout.write(json.dumps(found.to_mapping() | took) + "\n")
    else:
        sys.stdout.write(f"{found}\n")
    return DIFFERENT if found.verdict == "different" else DONE


def _rerun(options: argparse.Namespace) -> int:
    trial = _read(options.run, options.tracking_uri)
    comparison = Comparison(trial, options.tolerance, options.until_kimg)
    if comparison.empty:
        limit = "" if options.until_kimg is None else f" up to {options.until_kimg:g} kimg"
        raise RecordError(f"{trial.place}: {trial.state}, with no measurement{limit} to repeat")
    started = time.monotonic()
    note = _train(trial, comparison)
    if options.json:
        found = _identity(trial) | {"until_kimg": options.until_kimg, "recorded_elsewhere": note}
        found |= comparison.to_mapping() | {"elapsed_seconds": time.monotonic() - started}
        sys.stdout.write(json.dumps(found) + "\n")
    else:
        sys.stdout.write(describe(comparison) + "\n")
    return DIFFERENT if comparison.verdict == "different" else DONE


def _read(run: str, tracking_uri: str | None) -> RecordedTrial:
    named = re.fullmatch(r"(.+?):(\d+)(?::(\d+))?", run)
    if named:
        return read_trial(Path(named[1]), int(named[2]), int(named[3] or 0))
    folder, colon, _ = run.rpartition(":")
    if colon and Path(folder).is_dir():
        raise RecordError(f"{run}: a trial must be named by its number, as in {folder}:0")
    if Path(run).is_dir():
        raise RecordError(f"{run}: is a folder; say which of its trials, as in {run}:0")
    return read_tracked(run, tracking_uri)


def _train(trial: RecordedTrial, comparison: Comparison) -> str | None:
    """Trains and compares to the end; returns what is not as it was recorded on, if anything."""
    with TemporaryDirectory() as scratch, repeating(trial, Path(scratch)) as seat:
        note = differences_of_place(trial, seat.place())
        if note is not None:
            _say(note)
        _say(_title(trial, comparison))
        said = time.monotonic()
        while not comparison.finished:
            progress = seat.step(STEP_SECONDS)
            found = comparison.take(progress)
            measured = progress.metrics is not None or comparison.finished
            if measured or time.monotonic() - said > LINE_SECONDS:
                said = time.monotonic()
                _say(f"{progress.kimg:8g} kimg  {_told(found) if measured else ''}".rstrip())
    return note


def _title(trial: RecordedTrial, comparison: Comparison) -> str:
    until = f"measured to {comparison.last_kimg:g} kimg"
    if trial.infeasible and comparison.until_kimg is None:
        until += f", then: {trial.reason}"
    study = trial.study["study"]
    which = f"{trial.number}, replicate {trial.replicate}," if trial.replicate else trial.number
    return f"repeating trial {which} of study {study}, {trial.state}, {until}{trial.lineage}"


def _told(found: Sequence[Difference]) -> str:
    return f"{len(found)} not equal, first {found[0]}" if found else "equal bit for bit"


def describe(comparison: Comparison) -> str:
    """Returns the verdict in words."""
    told = comparison.to_mapping()
    what = f"{told['measurements']} measurements, {told['values']} values"
    if told["infeasible_again"]:
        what += f", and infeasible again ({comparison.trial.reason})"
    if comparison.verdict == "equal":
        return f"equal bit for bit: {what}"
    sized = [one for one in comparison.unequal if math.isfinite(one.size)]
    lines = []
    if comparison.verdict == "within_tolerance":
        lines.append(f"equal within {comparison.tolerance:g}, not bit for bit: {what}")
    else:
        beyond = comparison.beyond()
        lines.append(f"different: first {beyond[0]}")
        lines.append(f"  {len(beyond)} differ by more than {comparison.tolerance:g}, of {what}")
    if sized:
        lines.append(f"  the largest difference: {max(sized, key=lambda one: one.size)}")
    return "\n".join(lines)


def _identity(trial: RecordedTrial) -> dict[str, Any]:
    return {
        "record": trial.place,
        "study": trial.study["study"],
        "number": trial.number,
        "replicate": trial.replicate,
        "state": trial.state,
        "seed": trial.seed,
    }


def _positive(text: str) -> float:
    value = float(text)
    if not (math.isfinite(value) and value > 0):
        raise argparse.ArgumentTypeError(f"must be a number above zero, but got {text}")
    return value


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, but got {text}")
    return value


def _say(line: str) -> None:
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
