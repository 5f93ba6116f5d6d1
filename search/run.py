"""The command line: `python -m search.run SPACE.yaml`."""

import argparse
import json
import signal
import sys
from collections.abc import Sequence
from types import FrameType
from typing import NoReturn

from search.command_line import DONE, FAULT, INTERRUPTED, USER_ERROR
from search.failure_streak import StudyFailedError
from search.job_address import SubmitError, find_job_server
from search.journal import JournalError, JournalExists
from search.run_options import assignments, command, extension, parser, resume_command
from search.stop_request import RayLostError, StudyInterrupted
from search.study import SpecError, load_spec


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
    spec = load_spec(options.space, options.size, options.overrides, assignments(options))
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


if __name__ == "__main__":
    sys.exit(main())
