"""One driver's turn at a study of `benchmarks.orbits`: what the fault campaign kills.

python -m benchmarks.fault_driver DIR [--tracking-uri URI] [--resume] [--pack 2]

It does what `search.session` does, without data and nets: journal, record, MLflow, a private Ray.
"""

import argparse
import os
import select
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

from benchmarks.orbits import METRIC, OrbitRuns, orbit_study
from search.cluster import ray_running
from search.events import SessionClosed, SessionOpened, StudyOpened
from search.history import JOURNAL_NAME, History
from search.journal import JournalError
from search.lines import Lines
from search.phases import Phases
from search.prepared import painter
from search.record import RecordError, write_json_atomic, write_record
from search.room import TrialResources, packed
from search.shared_storage import check_shared
from search.study_file import STUDY_NAME
from search.tracking import Tracker
from search.tuner import run_trials

DELIVERY_SECONDS = 60.0  # what a server takes to come back may lie in it
CPUS_PER_TRIAL = 0.5
CONCURRENT = 2  # a process each, unless they share an engine
LINES = Lines(untrained=-1e9, real_data=1e9)
DATASET = {"name": "none", "digest": "none", "source": "none", "subset": False}


def main() -> None:
    """Runs the study, or goes on with it, to its end."""
    p = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    p.add_argument("folder", type=Path)
    p.add_argument("--tracking-uri", help="MLflow; default: that of the services")
    p.add_argument("--resume", action="store_true")
    p.add_argument("--pack", type=int, default=1)
    p.add_argument("--seconds", type=float, default=0.5, help="between measurements")
    options = p.parse_args()
    if "FAKETIME_TIMESTAMP_FILE" in os.environ:
        _live_with_faketime()
    with _opened(options.folder, resume=options.resume) as history, ray_running("local"):
        check_shared(options.folder)
        tracker = Tracker(options.tracking_uri, on_problem=print)
        with _session(history, tracker):
            resources = TrialResources(cpus=CPUS_PER_TRIAL)
            if options.pack > 1:
                resources = packed(resources, options.pack)
            run = partial(
                run_trials,
                orbit_study(),
                history,
                OrbitRuns(options.seconds),
                options.folder,
                max_concurrent=CONCURRENT,
                resources=resources,
            )
            Phases(
                orbit_study(),
                history,
                LINES,
                lambda stop, purpose: run(stop=stop, purpose=purpose),
                seconds_left=lambda: None,
                kept_back=lambda: 0.0,
                say=print,
            ).run()


def _live_with_faketime() -> None:
    """Keeps the false clock, which only the journal is written by, to this process.

    Under Debian's libfaketime 0.9.10, `time.sleep` of Python 3.11 and later raises: it sleeps
    until a moment of the monotonic clock, which is taken for one of the false clock.
    """
    os.environ.pop("LD_PRELOAD", None)
    time.sleep = lambda seconds: select.select([], [], [], float(seconds)) and None


def _opened(folder: Path, *, resume: bool) -> History:
    """The record; a start that was killed before its first line begins again."""
    journal = folder / JOURNAL_NAME
    begun = journal.exists() and journal.stat().st_size > 0
    return History.resume(folder) if resume and begun else History.create(folder)


@contextmanager
def _session(history: History, tracker: Tracker) -> Iterator[None]:
    if history.ledger.study is None:
        _open_study(history)
    opened = history.ledger.study
    assert opened is not None
    history.append(SessionOpened(pid=os.getpid()))
    history.listen(tracker.handle)
    tracker.open(history.ledger, painter(orbit_study(), history.folder, opened, DATASET, LINES))
    try:
        yield
        tracker.flush(DELIVERY_SECONDS)  # so that the record has every run's ID
        history.append(SessionClosed(reason="finished"))
    except BaseException:
        with suppress(JournalError, RecordError):
            history.append(SessionClosed(reason="failed"))
        raise
    finally:
        try:
            write_record(
                history.ledger, history.folder, "none", "none", tracker.run_ids, metric=METRIC
            )
        finally:
            tracker.close(DELIVERY_SECONDS)


def _open_study(history: History) -> None:
    spec = orbit_study()
    opened = StudyOpened(
        study=spec.study,
        study_id=uuid.uuid4().hex,
        spec=spec.model_dump(mode="json"),
        spec_digest=spec.digest,
        dataset_digest="none",
        protocol_digest="none",
    )
    content = opened.model_dump(mode="json", exclude={"event"}) | {
        "dataset": DATASET,
        "validation_lines": {"untrained": LINES.untrained, "real_data": LINES.real_data},
    }
    write_json_atomic(history.folder / STUDY_NAME, content)
    history.append(opened)


if __name__ == "__main__":
    main()
