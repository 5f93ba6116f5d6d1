"""How sure the winner's score is expected to be."""

import math
from dataclasses import dataclass
from typing import Self

from cgan_core.evaluation import Evaluator
from cgan_core.references import real_images
from search.study import StudySpec
from search.winners_curse import expected_maximum


@dataclass(frozen=True, kw_only=True)
class WinnerError:
    """The standard error of a winner's score: by its points, and by its trainings.

    Attributes:
        points_error: sd / sqrt(n) in nats over the points; None for an objective that is no mean
            of points.
        num_points: Points that it is scored on, n.
        trainings: How many its score is the mean of, fresh ones where it is confirmed.
    """

    points_error: float | None
    num_points: int
    trainings: int

    @classmethod
    def expected(cls, spec: StudySpec, evaluator: Evaluator) -> Self:
        """Scores real images: points spread over a good generator about as much as over them."""
        scores = evaluator.validation(real_images(evaluator))
        points = {
            "validation_log_likelihood": scores.points,
            "conditional_log_likelihood": scores.conditional_points,
        }.get(spec.objective.metric)
        folds = spec.replication.folds
        count = len(evaluator.splits.train.images) if folds > 1 else scores.num_points
        return cls(
            points_error=None if points is None else float(points.std()) / math.sqrt(count),
            num_points=count,
            trainings=trainings_of(spec),
        )

    def of(self, spec: StudySpec) -> str:
        """Says it in short of another plan for the same data."""
        return self._short(trainings_of(spec))

    def describe(self) -> list[str]:
        """Says it in words."""
        one = self.trainings == 1
        seed = "its seed" if one else f"the seeds of its {self.trainings} trainings"
        points = ""
        if self.points_error is not None:
            points = (
                f"{self.points_error:.1f} by its {self.num_points} points, were they "
                "spread as those of real images;"
            )
        unknown = f"{_by_seed(self.trainings)} by {seed}, s unknown until "
        unknown += "it is replicated" if one else "they are made"
        nats = " nats" if points else ""
        first, *rest = [line for line in (points, unknown) if line]
        return [
            f"winner      {self._short(self.trainings)}{nats}: {first}",
            *(" " * 12 + line for line in rest),
        ]

    def describe_luck(self, spec: StudySpec, completed: float) -> list[str]:
        """Says how much luck chooses a winner, were all as good that were trained in full."""
        if round(completed) < 2:
            return []
        luck = expected_maximum(round(completed))
        fresh = "its fresh seeds" if spec.confirm.seeds else "fresh seeds (`confirm`)"
        return [
            f"{' ' * 12}the best of {round(completed)} in full looks {luck:.1f} "
            f"{_by_seed(spec.replication.replicates)} too good by luck, but not on {fresh}"
        ]

    def _short(self, trainings: int) -> str:
        spread = f"± {_by_seed(trainings)}"
        return spread if self.points_error is None else f"± {self.points_error:.1f} {spread}"


def trainings_of(spec: StudySpec) -> int:
    """How many trainings the winner's score is the mean of."""
    return spec.confirm.seeds or spec.replication.replicates


def _by_seed(trainings: int) -> str:
    return "s" if trainings == 1 else f"s/√{trainings}"
