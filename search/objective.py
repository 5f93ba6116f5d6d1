"""What a study optimises: one metric or several, and the bounds that its winner must keep."""

from collections.abc import Iterator
from typing import Annotated, Literal, Self, get_args

from pydantic import BeforeValidator, model_validator

from search.constraints import Constraint
from search.domains import StrictModel, as_tuple
from search.spec_errors import Problem, ProblemsError, raise_any, suggestion

Metric = Literal[
    "validation_log_likelihood",
    "conditional_log_likelihood",
    "label_accuracy",
    "missing_classes",
    "frechet_distance",
    "precision",
    "recall",
    "two_sample_accuracy",
    "memorization_ratio",
    "sharpness",
]
NEED_LABELS = frozenset(
    {"conditional_log_likelihood", "label_accuracy", "missing_classes", "frechet_distance"}
)
NEED_CONDITION = frozenset({"conditional_log_likelihood", "label_accuracy"})
TO_MINIMIZE = frozenset({"missing_classes", "frechet_distance", "two_sample_accuracy"})
TO_MAXIMIZE = frozenset({"conditional_log_likelihood", "label_accuracy", "precision", "recall"})


class Aim(StrictModel):
    """A metric of every measurement, and which of its values are better."""

    metric: Metric
    direction: Literal["maximize", "minimize"] = "maximize"

    @model_validator(mode="after")
    def _check_direction(self) -> Self:
        for metrics, direction, better in (
            (TO_MINIMIZE, "minimize", "less"),
            (TO_MAXIMIZE, "maximize", "more"),
        ):
            if self.metric in metrics and self.direction != direction:
                message = (
                    f"`direction` must be {direction} where `metric` is {self.metric}, "
                    f"of which {better} is better, but got {self.direction}"
                )
                raise ProblemsError([Problem(("direction",), message)])
        return self


class ObjectiveSection(Aim):
    """What is optimised: a trial's value is the best that it measured.

    Attributes:
        metric: What decides: its best measurement is the one whose generator is kept, and the
            winner is the best by it.
        also: Further metrics, for a Pareto front. A trial's values are those of the one
            measurement where `metric` was best.
        constraints: Bounds such as `label_accuracy >= 0.9`, which the winner must keep where its
            value is best.
    """

    metric: Metric = "validation_log_likelihood"
    also: Annotated[tuple[Aim, ...], BeforeValidator(as_tuple)] = ()
    constraints: Annotated[tuple[str, ...], BeforeValidator(as_tuple)] = ()

    @property
    def aims(self) -> tuple[Aim, ...]:
        """All metrics with their directions, that which decides first."""
        return (Aim(metric=self.metric, direction=self.direction), *self.also)

    @property
    def bounds(self) -> tuple[Constraint, ...]:
        """The constraints, read."""
        return tuple(map(Constraint.parse, self.constraints))

    @model_validator(mode="after")
    def _check(self) -> Self:
        raise_any([*self._unsound_constraints(), *self._repeated_metrics()])
        return self

    def _repeated_metrics(self) -> Iterator[Problem]:
        metrics = [aim.metric for aim in self.aims]
        for position, metric in enumerate(metrics):
            if metric in metrics[:position]:
                message = f"metrics must differ, but {metric} is there twice"
                yield Problem(("also", position - 1, "metric"), message)

    def _unsound_constraints(self) -> Iterator[Problem]:
        for position, text in enumerate(self.constraints):
            path = ("constraints", position)
            try:
                metric = Constraint.parse(text).metric
            except ValueError as error:
                yield Problem(path, str(error))
                continue
            if metric not in get_args(Metric):
                hint = suggestion(metric, get_args(Metric))
                yield Problem(path, f"must bound a metric, but got {metric}{hint}")
