"""A submitted study, on the cluster's head: `python -m search.submitted`, in the shipped code.

It is the same search as `python -m search.run` there. Its folder is the one that the head would
take by itself: on the services' storage, or below the home of who runs Ray. What is recorded there
is gone on with, so that a study may be submitted again. At its end, however it ends, the record
is packed for who follows it.
"""

import argparse
import json
import os
import shutil
import sys
from contextlib import redirect_stdout, suppress
from pathlib import Path

from search.code_package import ORDER_NAME, SPACE_NAME
from search.extension import refusal_of_trials
from search.fetch import job_prefix, parcel_name
from search.history import JOURNAL_NAME
from search.journal import Journal
from search.ledger import Ledger
from search.parcel import pack
from search.requests import Extend, ask
from search.run import carry_out
from search.run_options import extension, parser
from search.study import StudySpec, load_spec
from search.study_file import STUDY_NAME
from search.study_folder import default_output

_LOG = "job-driver-"  # how Ray names the file that a driver prints into


def main() -> int:
    """Runs what `order.json` says; returns its exit code."""
    code = Path.cwd()
    order = json.loads((code / ORDER_NAME).read_text())
    log = Path("/proc/self/fd/1").readlink()
    # Paths in a space are relative to where a search is started; the code's folder is Ray's own.
    os.chdir(Path.home())
    options = parser().parse_args([*order["words"]])
    options.space, options.address = code / SPACE_NAME, "auto"
    if options.dry_run:
        return carry_out(options, order["resume"], order["start"])
    spec = load_spec(options.space, options.size, options.overrides)
    folder = (default_output(spec).parent / order["name"]).resolve()
    options.output = folder
    options.resume = options.resume or (folder / JOURNAL_NAME).exists()
    extend_once(options, spec, order["request"])
    with Path(os.devnull).open("w") as nowhere, redirect_stdout(nowhere):
        # The summary is printed where the record comes to.
        try:
            return carry_out(options, order["resume"], order["start"])
        finally:  # also after what is a fault of ours
            if (folder / JOURNAL_NAME).exists() and log.name.startswith(_LOG):
                _pack(folder, order["name"], log)


def extend_once(options: argparse.Namespace, spec: StudySpec, request: str) -> None:
    """Turns what extends a study into a request, which a driver answers once.

    An order that is submitted again, since a job of it failed, may find it answered already.
    """
    folder: Path = options.output
    added = extension(options)
    trials, seconds = added.get("extra_trials", 0), added.get("extra_seconds", 0.0)
    if not added or refusal_of_trials(spec, trials) or not (folder / STUDY_NAME).exists():
        return  # it goes its usual way, also to be refused
    if request not in Ledger(Journal.read(folder / JOURNAL_NAME)).answers.by_request:
        ask(folder, Extend(trials=trials, seconds=seconds), request)
    for flag in ("trials", "time_budget"):
        if (getattr(options, flag) or "").startswith("+"):
            setattr(options, flag, None)


def _pack(folder: Path, name: str, log: Path) -> None:
    """Packs the record beside the driver's log; earlier ones of the study are of no more use."""
    job = log.stem.removeprefix(_LOG)
    for earlier in log.parent.glob(f"{parcel_name(job_prefix(name))}*"):
        with suppress(OSError):
            shutil.rmtree(earlier)
    pack(folder, log.parent / parcel_name(job))


if __name__ == "__main__":
    sys.exit(main())
