"""Delivers what MLflow has not got of recorded studies: `python -m search.sync [DIR ...]`."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from search.command_line import (
    DONE,
    FAULT,
    INTERRUPTED,
    USER_ERROR,
    Parser,
    carry_out,
    public_uri,
)
from search.history import JOURNAL_NAME, History, HistoryError
from search.journal import Journal, JournalError, JournalLocked
from search.ledger import LedgerError
from search.services_file import ServicesError, read_services
from search.study import SpecError
from search.study_file import StudyError, read_study
from search.study_folder import never_begun, out_of_order
from search.tracking_place import DEFAULT_FOLDER, TrackingError

PATIENCE_SECONDS = 60.0  # without a run that arrives


def parser() -> Parser:
    """Creates the parser of the command line."""
    p = Parser(
        prog="python -m search.sync",
        allow_abbrev=False,
        description="Deliver to MLflow what it has not got of recorded studies, from their "
        "folders alone: of one that ended, was interrupted, or whose driver is gone. What is "
        "there already is left as it is. Ends with 0 when MLflow's runs equal the record, with "
        "1 and what is left when it does not answer.",
    )
    p.add_argument(
        "folders",
        nargs="*",
        type=Path,
        metavar="DIR",
        help="the folder of a study (default: every study in runs/, here and on the storage of "
        "this host's services)",
    )
    p.add_argument(
        "--tracking-uri",
        type=public_uri,
        metavar="URI",
        help="MLflow; default: as search.run has it",
    )
    return p


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    return carry_out(_run, parser(), arguments, (TrackingError, ServicesError, StudyError))


def _run(options: argparse.Namespace) -> int:
    folders = options.folders or _at_rest(_studies())
    try:
        ends = [_sync_and_tell(folder, options.tracking_uri) for folder in folders]
    except KeyboardInterrupt:
        _say("interrupted; nothing is lost: the same command goes on with it")
        return INTERRUPTED
    return max(ends, default=DONE)


def sync(folder: Path, uri: str | None = None) -> list[str]:
    """Makes MLflow's runs of a study equal to its record; returns the names of those left.

    Args:
        folder: The study's. Nobody else may write it meanwhile; nothing is written to it.
        uri: Tracking URI; None for the default.

    Raises:
        ValueError: There is no study in the folder, it is broken, or a driver runs it (which
            delivers by itself); no run can be kept at `uri`.
    """
    # Imported late: a mistake is told at once, not after torch.
    from search.redelivery import open_record
    from search.tracking import Tracker

    folder = folder.resolve()
    tracker = Tracker(uri, on_problem=_say, sample_seconds=None)
    if never_begun(folder):
        raise StudyError(
            f"{folder}: a start was cut short here before anything was recorded, so there is "
            "nothing to deliver; begin the study, or remove the folder"
        )
    read_study(folder)  # says best what is missing
    try:
        history = History.resume(folder)
    except LedgerError as error:
        raise out_of_order(folder, error) from None
    except JournalLocked as error:
        raise StudyError(f"{error}; it delivers by itself, so sync when it has ended") from None
    with history:
        open_record(history, tracker)
        tracker.flush_patiently(PATIENCE_SECONDS)
        left = tracker.close(0.0 if tracker.left else PATIENCE_SECONDS)
    if not left:
        runs = len(tracker.run_ids)
        _say(f"{folder}: MLflow at {tracker.uri} has the study's run and all {runs} below it")
    return left


def _sync_and_tell(folder: Path, uri: str | None) -> int:
    try:
        return FAULT if sync(folder, uri) else DONE
    except (StudyError, HistoryError, JournalError, SpecError) as error:
        _say(str(error))  # the others may be delivered
        return USER_ERROR


def _at_rest(folders: Sequence[Path]) -> list[Path]:
    """Those that nobody runs just now; whoever runs one delivers it."""
    at_rest = []
    for folder in folders:
        if driver := Journal.writer(folder / JOURNAL_NAME):
            _say(f"{folder}: left to {driver}, which runs it and delivers by itself")
        else:
            at_rest.append(folder)
    return at_rest


def _studies() -> list[Path]:
    """Every study where studies go by default, each in a folder of its own."""
    services = read_services()
    roots = [Path(DEFAULT_FOLDER)]
    if services is not None and services.storage is not None:
        roots.append(Path(services.storage) / DEFAULT_FOLDER)
    folders = [path.parent for root in roots for path in sorted(root.glob(f"*/{JOURNAL_NAME}"))]
    found = [folder for folder in folders if not never_begun(folder)]
    if not found:
        shown = " and ".join(f"{root}/" for root in roots)
        raise StudyError(f"{shown}: must hold a study, but there is none; name the folder of one")
    return found


def _say(line: str) -> None:
    sys.stderr.write(line + "\n")


if __name__ == "__main__":
    sys.exit(main())
