"""A finished study, as its folder has it."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from search.parquet import RecordError
from search.points import Points, read_points
from search.record import MeasurementRecord, read_measurements

POINTS_FOLDER = "points"


@dataclass(frozen=True)
class Study:
    """What a study was begun with, and how it ended.

    Attributes:
        folder: Its output folder.
        opened: `study.json`.
        summary: `summary.json`.
    """

    folder: Path
    opened: dict[str, Any]
    summary: dict[str, Any]

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Reads a study that has come to a winner.

        Raises:
            RecordError: It is no study's folder, not finished, or has no winner.
        """
        opened, summary = (_json(folder / name) for name in ("study.json", "summary.json"))
        if summary["best"] is None:
            raise RecordError(f"{folder}: the study must have a winner, but has none")
        return cls(folder, opened, summary)

    @property
    def winner(self) -> int:
        """The number of its best trial."""
        return int(self.summary["best"]["number"])

    @property
    def model(self) -> dict[str, Any]:
        """The fixed hyperparameters."""
        return dict(self.opened["spec"]["model"])

    @property
    def title(self) -> str:
        """Its family and what it is conditioned on, and the study's name."""
        conditional = self.model.get("condition", "given") != "none"
        kind = "cGAN" if conditional else "GAN"
        return f"{kind}, {self.model.get('family', 'mlp')} (`{self.folder.name}`)"

    def points(self) -> Points:
        """The winner's log-likelihoods of each validation point, at its best measurement.

        Raises:
            RecordError: They are not on record.
        """
        return read_points(self.folder / POINTS_FOLDER / f"{self.winner}-0.parquet")

    def course(self) -> list[MeasurementRecord]:
        """The winner's measurements, the first seed's, from first to last.

        Raises:
            RecordError: They are not on record.
        """
        found = [
            one
            for one in read_measurements(self.folder)
            if (one.number, one.replicate) == (self.winner, 0)
        ]
        return sorted(found, key=lambda one: one.kimg)

    def picture(self, kimg: float) -> Path:
        """The winner's samples at a measurement."""
        name = str(self.winner)
        return self.folder / "samples" / name / f"{kimg:g}.png"


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
    except FileNotFoundError:
        raise RecordError(
            f"{path}: is missing; give the folder of a finished study (`--resume` finishes it)"
        ) from None
    except (OSError, ValueError) as error:
        raise RecordError(f"{path}: cannot be read ({error})") from None
    if not isinstance(content, dict):
        raise RecordError(f"{path}: must be as the search wrote it; bring the unchanged file back")
    return content
