"""How sure a difference between two trials is, from the likelihoods of the same points."""

import math
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float

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
    """Per-point likelihoods of each trial at each rung, in `points/rungs/`.

    A worker keeps only those of a trial's best measurement so far. At a rung that is the one the
    rung judges, so the driver copies the file there, before it records the measurement: whatever
    the record says of a rung, the file is there, also after a kill.

    Args:
        output: The study's folder.
        metric: The objective, one that is a mean over points.
        rungs: Levels in kimg.
    """

    output: Path
    metric: str
    rungs: Sequence[float]

    def keep(self, number: int, kimg: float) -> None:
        """Copies the points of a trial if it stands at a rung; without a file nothing is kept.

        Raises:
            RecordError: The copy cannot be written.
        """
        folder = self.output / POINTS_FOLDER
        source = folder / f"{number}-0.parquet"
        for rung in self.rungs:
            if math.isclose(kimg, rung) and source.exists():
                with replacing(self._path(number, rung)) as temporary:
                    shutil.copyfile(source, temporary)

    def standard_error(self, number: int, rival: int, rung: float) -> float | None:
        """That of the difference of two trials at a rung, in nats; None where points lack."""
        mine, other = self._read(number, rung), self._read(rival, rung)
        if mine is None or other is None:
            return None
        return paired_standard_error(mine, other)

    def _path(self, number: int, rung: float) -> Path:
        return self.output / POINTS_FOLDER / RUNGS_FOLDER / f"{number}-0-{rung:g}.parquet"

    def _read(self, number: int, rung: float) -> Vector | None:
        try:
            points = read_points(self._path(number, rung))
        except RecordError:
            return None
        return points.pooled if self.metric == "validation_log_likelihood" else points.conditional
