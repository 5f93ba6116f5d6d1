"""What the platform adds to trials that sleep, beside stock Ray Tune with its MLflow callback.

`python -m benchmarks.overhead` runs 200 trials of 10 s and 1,000 of 1 s by both, which takes half
an hour; `--trials 16 --seconds 2` a minute or two.
"""

import argparse
import json
import math
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ray

from benchmarks.sleeping import METRICS, SleepingRuns, sleeping_study
from benchmarks.spans import read_spans, seconds_after_start
from benchmarks.stock_tune import run_stock
from search.events import SessionClosed, SessionOpened, StudyOpened
from search.history import History
from search.record import write_record
from search.room import TrialResources
from search.run_painter import RunPainter
from search.run_picture import Dataset
from search.session import RECORD_SECONDS
from search.stop_request import StopRequest
from search.tracking import Tracker
from search.tuner import run_trials

SIZES = ((200, 10.0), (1000, 1.0))  # trials, seconds


def run_ours(
    folder: Path, trials: int, seconds: float, measurements: int, concurrent: int
) -> None:
    """Runs the study as a driver does: with journal, record and MLflow."""
    spec = sleeping_study(trials, measurements)
    with History.create(folder) as history:
        opened = StudyOpened(
            study=spec.study,
            study_id=os.urandom(16).hex(),
            spec=spec.model_dump(mode="json"),
            spec_digest=spec.digest,
            dataset_digest="none",
            protocol_digest="none",
        )
        history.append(opened)
        history.append(SessionOpened(pid=os.getpid()))
        tracker = Tracker(f"sqlite:///{folder}/mlflow.db", on_problem=print)
        history.listen(tracker.handle)
        history.listen(_recorder(history, tracker))
        tracker.open(history.ledger, sleeping_painter(opened, folder))
        run_trials(
            spec,
            history,
            SleepingRuns(folder, seconds, measurements),
            folder,
            max_concurrent=concurrent,
            stop=StopRequest(),
            resources=TrialResources(cpus=1.0),
        )
        history.append(SessionClosed(reason="finished"))
        left = tracker.close(60.0)
        assert not left, left


def sleeping_painter(opened: StudyOpened, folder: Path) -> RunPainter:
    """Returns what draws the study's MLflow runs."""
    return RunPainter(
        study=opened,
        dataset=Dataset(name="none", digest="none", source="none", subset=False),
        metric=METRICS[0],
        direction="maximize",
        flags=lambda trial: (),
        fixed_params={"momentum": 0.5},
        output=folder,
    )


def _recorder(history: History, tracker: Tracker) -> Callable[[object], None]:
    last = time.monotonic()

    def record(event: object) -> None:
        nonlocal last
        if time.monotonic() - last >= RECORD_SECONDS:
            last = time.monotonic()
            write_record(history.ledger, history.folder, "none", "none", tracker.run_ids)

    return record


RUNS: dict[str, Callable[..., None]] = {"ours": run_ours, "stock": run_stock}


def measured(
    which: str, options: argparse.Namespace, trials: int, seconds: float
) -> dict[str, Any]:
    """Runs one study in a folder and a Ray of its own, and returns its times."""
    with tempfile.TemporaryDirectory(prefix="overhead-") as name:
        ray.init(
            "local",
            num_cpus=options.concurrent,
            include_dashboard=False,
            log_to_driver=False,
            logging_level="ERROR",
        )
        began = time.perf_counter()
        try:
            RUNS[which](Path(name), trials, seconds, options.measurements, options.concurrent)
        finally:
            ray.shutdown()
        whole = time.perf_counter() - began
        spans = read_spans(Path(name))
    if len(spans) != trials:
        raise RuntimeError(f"{trials} trials were to sleep, but {len(spans)} did")
    floor = math.ceil(trials / options.concurrent) * seconds
    taken = seconds_after_start(spans, options.concurrent)
    return {
        "which": which,
        "trials": trials,
        "seconds_a_trial": seconds,
        "concurrent": options.concurrent,
        "measurements": options.measurements,
        "floor_seconds": floor,
        "seconds_after_start": taken,
        "overhead": taken / floor - 1,
        "seconds_with_start_and_end": whole,
    }


def main() -> None:
    """Prints a table, or one JSON object a line."""
    p = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    p.add_argument("--trials", type=int, help="instead of 200 and 1,000")
    p.add_argument("--seconds", type=float, default=10.0, help="of each, with --trials")
    p.add_argument("--concurrent", type=int, default=8, help="trials at a time")
    p.add_argument("--measurements", type=int, default=5, help="of each trial")
    p.add_argument("--which", choices=("both", *RUNS), default="both")
    p.add_argument("--json", action="store_true", help="one object a study on standard output")
    options = p.parse_args()
    sizes = SIZES if options.trials is None else ((options.trials, options.seconds),)
    wanted = list(RUNS) if options.which == "both" else [options.which]
    for trials, seconds in sizes:
        for which in wanted:
            result = measured(which, options, trials, seconds)
            if options.json:
                print(json.dumps(result), flush=True)
            else:
                print(
                    f"{result['which']:5s} {trials:5d} x {seconds:g} s: "
                    f"{result['seconds_after_start']:7.1f} s over a floor of "
                    f"{result['floor_seconds']:g} s, {100 * result['overhead']:+.1f} %",
                    flush=True,
                )


if __name__ == "__main__":
    main()
