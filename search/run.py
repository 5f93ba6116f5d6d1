"""The command line: `python -m search.run SPACE.yaml`."""

import argparse
import json
import shlex
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from search.command_line import (
    DONE,
    FAULT,
    INTERRUPTED,
    USER_ERROR,
    Parser,
    extra_trials,
    public_uri,
)
from search.failure_streak import StudyFailedError
from search.job_address import SubmitError, find_job_server
from search.journal import JournalError, JournalExists
from search.stop_request import RayLostError, StudyInterrupted
from search.study import SpecError, load_spec, parse_duration


def parser() -> Parser:
    """Creates the parser of the command line."""
    p = Parser(
        prog="python -m search.run",
        allow_abbrev=False,  # `resume_command` knows flags by their whole names
        description="Search the hyperparameters of a conditional adversarial net.",
    )
    p.add_argument("space", type=Path, metavar="SPACE.yaml", help="the search space")
    p.add_argument("--size", metavar="NAME", help="an overlay of the space, such as quick")
    p.add_argument(
        "--output",
        type=Path,
        metavar="DIR",
        help="default: [<storage>/]runs/<study>[-<size>]",
    )
    p.add_argument("--resume", action="store_true", help="go on with the study in the folder")
    p.add_argument(
        "--look-again",
        action="store_true",
        help="with --resume: score the winner on the test set though one was before; recorded",
    )
    p.add_argument("--dry-run", action="store_true", help="say plan and cost, then stop")
    p.add_argument("--trials", metavar="N", help="trials in all; with --resume, +N more")
    p.add_argument("--time-budget", metavar="15m", help="time in all; with --resume, +1h more")
    p.add_argument("--max-concurrent", type=int, metavar="N", help="trials at a time")
    p.add_argument("--seed", type=int, metavar="N", help="from which all others follow")
    p.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        dest="overrides",
        help="set a key of the space, such as budget.trials=12 (repeatable)",
    )
    p.add_argument(
        "--address",
        default="auto",
        help="auto, local, or HOST:PORT: of a Ray cluster, or of its job server to submit to",
    )
    p.add_argument(
        "--without-token",
        action="store_true",
        help="use a Ray cluster that asks nobody for a token: whoever reaches it can run code",
    )
    p.add_argument(
        "--tracking-uri",
        type=public_uri,
        metavar="URI",
        help="MLflow; default: this host's services, else runs/mlflow.db",
    )
    p.add_argument(
        "--json",
        action="store_true",
        help="print summary.json (with --dry-run the study, all choices made) on standard output",
    )
    return p


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        options = parser().parse_args(words)
    except SystemExit as end:
        return int(end.code or 0)
    return carry_out(options, resume_command(words), command(words), words)


def carry_out(
    options: argparse.Namespace, resume: str, start: str, words: Sequence[str] = ()
) -> int:
    """Does what was asked for; returns the exit code.

    Args:
        options: as `parser` gives them.
        resume: the command that goes on with the study.
        start: the command that starts it.
        words: what the options were read from, for where they are sent on.
    """
    try:
        signal.signal(signal.SIGTERM, _interrupt)
        return _run(options, resume, start, words)
    except JournalExists as error:
        sys.stderr.write(f"{error}:\n  {resume}\n")
        return USER_ERROR
    except SpecError as error:  # before the next, for which Ray and torch are imported
        sys.stderr.write(f"{error}\n")
        return USER_ERROR
    except _user_errors() as error:
        sys.stderr.write(f"{error}\n")
        return USER_ERROR
    except StudyInterrupted:
        sys.stderr.write(f"interrupted; all is saved. Go on with:\n  {resume}\n")
        return INTERRUPTED
    except KeyboardInterrupt:
        sys.stderr.write(f"interrupted before a trial began. Start with:\n  {start}\n")
        return INTERRUPTED
    except RayLostError as error:
        sys.stderr.write(f"{error}; all is saved. Go on with:\n  {resume}\n")
        return FAULT
    except StudyFailedError as error:
        sys.stderr.write(f"{error}\n")
        return FAULT


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


def _user_errors() -> tuple[type[Exception], ...]:
    """Returns the errors that are the user's to mend; anything else is a fault of ours."""
    from cgan_core.config import ConfigError
    from cgan_core.data import DataError
    from search.cluster import ClusterError
    from search.history import HistoryError
    from search.parquet import RecordError
    from search.services_file import ServicesError
    from search.study_file import StudyError
    from search.tracking_place import TrackingError

    return (
        SubmitError,
        ConfigError,
        DataError,
        StudyError,
        ClusterError,
        HistoryError,
        JournalError,
        RecordError,
        ServicesError,
        TrackingError,
    )


def _run(options: argparse.Namespace, resume: str, start: str, words: Sequence[str]) -> int:
    added = extension(options)
    spec = load_spec(options.space, options.size, options.overrides, _assignments(options))
    if options.max_concurrent is not None and options.max_concurrent < 1:
        raise SpecError(f"--max-concurrent: must be at least 1, but got {options.max_concurrent}")
    # Imported late: a mistake in the space file is told at once, not after Ray and torch.
    from search.driver import default_output, run_study
    from search.dry_run import dry_run
    from search.summary import describe_summary

    output = options.output or default_output(spec, resume=options.resume)
    if options.dry_run and options.json:
        sys.stdout.write(json.dumps(spec.model_dump(mode="json"), indent=2) + "\n")
    if (server := find_job_server(options.address)) is not None:
        from search.submit import Submission

        return Submission(server, output, spec, options, words, start=start, resume=resume).run()
    if options.dry_run:
        told = dry_run(spec, output, options.max_concurrent, resume=options.resume)
        (sys.stderr if options.json else sys.stdout).write(told + "\n")
        return DONE
    sys.stderr.write(f"study {spec.study}, folder {output}\n")
    summary = run_study(
        spec,
        output,
        resume=options.resume,
        address=options.address,
        without_token=options.without_token,
        tracking_uri=options.tracking_uri,
        max_concurrent=options.max_concurrent,
        look_again=options.look_again,
        hint=f"if it is cut short: {resume}",
        **added,
    )
    shown = sys.stderr if options.json else sys.stdout
    shown.write(describe_summary(summary, output) + "\n")
    if options.json:
        sys.stdout.write(json.dumps(summary) + "\n")
    return DONE


def _assignments(options: argparse.Namespace) -> list[tuple[str, str]]:
    """Returns the flags that stand for a key of the space, and what they set."""
    given = (
        ("--seed", "seed", options.seed),
        ("--trials", "budget.trials", options.trials),
        ("--time-budget", "budget.time", options.time_budget),
    )
    return [
        (f"{flag} {value}", f"{key}={value}")
        for flag, key, value in given
        if value is not None and not str(value).startswith("+")
    ]


def extension(options: argparse.Namespace) -> dict[str, Any]:
    """Returns what --trials +N and --time-budget +T add.

    Raises:
        SpecError: if they are not what they should be.
    """
    found: dict[str, Any] = {}
    if options.look_again and not options.resume:
        raise SpecError("--look-again: looks at the test set once more and needs --resume")
    for flag, name in (("trials", "extra_trials"), ("time_budget", "extra_seconds")):
        value = getattr(options, flag)
        if value is None or not value.startswith("+"):
            continue
        shown = f"--{flag.replace('_', '-')}"
        if not options.resume:
            raise SpecError(f"{shown}: {value} extends a study and needs --resume")
        try:
            found[name] = extra_trials(value) if flag == "trials" else parse_duration(value[1:])
        except ValueError as error:
            raise SpecError(f"{shown}: {error}") from None
    return found


_ONCE = ("--resume", "--look-again", "--dry-run")  # not repeated by a command that goes on


def resume_command(words: Sequence[str]) -> str:
    """Returns the command that goes on with the study that `words` started."""
    kept, skip = [], False
    for position, word in enumerate(words):
        following = words[position + 1] if position + 1 < len(words) else ""
        if skip:
            skip = False
        elif word in ("--trials", "--time-budget") and following.startswith("+"):
            skip = True
        elif word not in _ONCE and not word.startswith(("--trials=+", "--time-budget=+")):
            kept.append(word)
    return command([*kept, "--resume"])


def command(words: Sequence[str]) -> str:
    """Returns the command with these words, as it can be typed here."""
    python = Path(sys.executable)
    here = Path.cwd()
    shown = python.relative_to(here) if python.is_relative_to(here) else python
    return shlex.join([str(shown), "-m", "search.run", *words])


if __name__ == "__main__":
    sys.exit(main())
