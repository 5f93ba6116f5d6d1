"""How sure a difference between two trials is, from the likelihoods of the same points."""

import math
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import stdev

import numpy as np
from jaxtyping import Float

from search.events import RunKey
from search.parquet import RecordError, replacing
from search.points import read_points

POINTS_FOLDER = "points"
RUNGS_FOLDER = "rungs"  # in the folder of points: what they were at each rung

Vector = Float[np.ndarray, " points"]


def paired_standard_error(left: Vector, right: Vector) -> float:
    """The standard error of the mean of left - right over the same points: s / sqrt(n), in nats.

    The difficulty of a point is common to both and cancels (Student, 1908, "The probable error
    of a mean").

    Raises:
        ValueError: The vectors differ in length, or have fewer than two points.
    """
    if left.shape != right.shape or left.size < 2:
        got = f"{left.shape} and {right.shape}"
        raise ValueError(f"two vectors of one length of at least 2 are needed, but got {got}")
    differences = left.astype(np.float64) - right
    return float(differences.std(ddof=1)) / math.sqrt(differences.size)


@dataclass(frozen=True)
class RungPoints:
    """Per-point likelihoods of each run at each rung, in `points/rungs/`.

    A worker keeps only those of a run's best measurement so far. At a rung that is the one the
    rung judges, so the driver copies the file there, before it records the measurement: whatever
    the record says of a rung, the file is there, also after a kill.

    Args:
        output: The study's folder.
        metric: The objective, one that is a mean over points.
        rungs: Levels in kimg.
        folds: Of how many folds the runs of a trial leave out one each; 1 where of none.
        replicates: Runs of a trial.
    """

    output: Path
    metric: str
    rungs: Sequence[float]
    folds: int = 1
    replicates: int = 1

    def keep(self, run: RunKey, kimg: float) -> None:
        """Copies the points of a run if it stands at a rung; without a file nothing is kept.

        Raises:
            RecordError: The copy cannot be written.
        """
        source = self.output / POINTS_FOLDER / f"{run.number}-{run.replicate}.parquet"
        for rung in self.rungs:
            if math.isclose(kimg, rung) and source.exists():
                with replacing(self._path(run, rung)) as temporary:
                    shutil.copyfile(source, temporary)

    def standard_error(self, number: int, rival: int, rung: float) -> float | None:
        """That of the difference of two trials at a rung, in nats; None where points lack.

        With several runs each, the error from points, sqrt(p_1^2 + ... + p_k^2) / k over the
        folds, and that from seeds, s / sqrt(n) of the n runs' differences, add in squares: the
        points are common to all runs of a fold, so the spread of the runs does not show them.
        """
        differences = []
        for replicate in range(self.replicates):
            mine = self._read(RunKey(number, replicate), rung)
            other = self._read(RunKey(rival, replicate), rung)
            if mine is None or other is None:
                return None
            differences.append(mine.astype(np.float64) - other)
        by_fold = [np.mean(differences[fold :: self.folds], axis=0) for fold in range(self.folds)]
        errors = [paired_standard_error(one, np.zeros_like(one)) for one in by_fold]
        from_points = math.hypot(*errors) / self.folds
        if len(differences) == 1:
            return from_points
        means = [float(one.mean()) for one in differences]
        return math.hypot(from_points, stdev(means) / math.sqrt(len(means)))

    def _path(self, run: RunKey, rung: float) -> Path:
        name = f"{run.number}-{run.replicate}-{rung:g}.parquet"
        return self.output / POINTS_FOLDER / RUNGS_FOLDER / name

    def _read(self, run: RunKey, rung: float) -> Vector | None:
        try:
            points = read_points(self._path(run, rung))
        except RecordError:
            return None
        return points.pooled if self.metric == "validation_log_likelihood" else points.conditional
