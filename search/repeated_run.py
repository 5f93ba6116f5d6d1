"""Recorded runs trained again, several at a time, each in a process that ends with this one."""

import math
import os
import shutil
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory

from search.comparison import Comparison
from search.early_stopping import early_stopping
from search.events import RunKey
from search.paired import POINTS_FOLDER, RUNGS_FOLDER
from search.recorded_trial import RecordedTrial
from search.referee import infeasibility
from search.repetition import repeating
from search.seat import Place
from search.study import StudySpec


@dataclass(frozen=True, kw_only=True)
class RepeatedRun:
    """One run, trained again as far as its record goes.

    Attributes:
        comparison: With the record.
        metrics: What was measured, by kimg.
        place: Where it was trained this time.
    """

    comparison: Comparison
    metrics: Mapping[float, Mapping[str, float]]
    place: Place

    @property
    def key(self) -> RunKey:
        """Its number and replicate."""
        return RunKey(self.comparison.trial.number, self.comparison.trial.replicate)


def repeat_runs(
    trials: Sequence[RecordedTrial], tolerance: float, output: Path, jobs: int
) -> Iterator[RepeatedRun]:
    """Trains runs again in `jobs` processes; yields each when it is done, the longest begun first.

    Args:
        trials: The runs.
        tolerance: Of their comparison.
        output: An empty folder, in which the points of rungs are kept under a paired rule.
        jobs: At least 1.

    Raises:
        StudyError, DataError: As by `repeating`.
    """
    longest_first = sorted(trials, key=lambda trial: -max(trial.measurements, default=0.0))
    with _processes(jobs) as pool:
        futures = [pool.submit(repeat_run, trial, tolerance, output) for trial in longest_first]
        for future in as_completed(futures):
            yield future.result()


def repeat_run(trial: RecordedTrial, tolerance: float, output: Path) -> RepeatedRun:
    """Trains one run again in this process."""
    comparison = Comparison(trial, tolerance)
    metrics: dict[float, Mapping[str, float]] = {}
    with TemporaryDirectory(dir=output) as scratch:
        rules = early_stopping(StudySpec.from_mapping(trial.study["spec"]), Path(scratch))
        points = None if rules is None else rules.points
        with repeating(trial, Path(scratch)) as seat:
            place = seat.place()
            while not comparison.finished:
                progress = seat.step(math.inf)
                comparison.take(progress)
                if progress.metrics is not None and infeasibility(progress) is None:
                    metrics[progress.kimg] = dict(progress.metrics)
                    if points is not None:
                        points.keep(RunKey(trial.number, trial.replicate), progress.kimg)
        _take_over(Path(scratch), output)
    return RepeatedRun(comparison=comparison, metrics=metrics, place=place)


def _take_over(scratch: Path, output: Path) -> None:
    """Moves the points of rungs, whose names are the run's own, to where all runs have them."""
    common = output / POINTS_FOLDER / RUNGS_FOLDER
    common.mkdir(parents=True, exist_ok=True)
    for file in (scratch / POINTS_FOLDER / RUNGS_FOLDER).glob("*"):
        shutil.move(file, common / file.name)


@contextmanager
def _processes(jobs: int) -> Iterator[ProcessPoolExecutor]:
    # Forked, PyTorch's threads would be gone in the children.
    context = get_context("spawn")
    listening, held = context.Pipe(duplex=False)
    pool = ProcessPoolExecutor(
        jobs, mp_context=context, initializer=_end_with, initargs=(listening,)
    )
    try:
        yield pool
    finally:
        held.close()  # whoever still trains is not waited for
        pool.shutdown(cancel_futures=True)
        listening.close()


def _end_with(parent: Connection) -> None:
    """Has this process end at once when the other end of a pipe is closed, by a kill too."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to answer

    def listen() -> None:
        with suppress(EOFError, OSError):
            parent.recv()
        os._exit(1)

    threading.Thread(target=listen, daemon=True).start()
