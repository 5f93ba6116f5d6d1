"""The stages of a study: points chosen by hand, cells of a grid, proposals of a model."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from search.domains import StrictModel, Value, as_tuple
from search.spec_errors import show


def _as_levels(value: Any) -> Any:
    value = as_tuple(value)
    if isinstance(value, bool) or not isinstance(value, int | tuple):
        raise ValueError(f"must be a number of levels or a list of values, but got {show(value)}")
    if value == () or (isinstance(value, int) and value < 1):
        raise ValueError(f"at least one level must be given, but got {show(value)}")
    return value


Point = dict[str, Value]
Levels = dict[str, Annotated[int | tuple[Value, ...], BeforeValidator(_as_levels)]]


class ManualStage(StrictModel):
    """Points chosen by hand; each is one trial."""

    kind: Literal["manual"]
    points: Annotated[tuple[Point, ...], BeforeValidator(as_tuple), Field(min_length=1)]

    @property
    def trials(self) -> int:
        """Number of trials."""
        return len(self.points)


class RandomGridStage(StrictModel):
    """Cells of a grid in random order, none twice.

    Attributes:
        levels: For each parameter the number of its levels or their list.
        trials: Number of cells taken.
    """

    kind: Literal["random_grid"]
    levels: Levels = Field(default_factory=dict)
    trials: Annotated[int, Field(ge=1)]


class FullGridStage(StrictModel):
    """Every cell of a grid that no stage before has taken, in a fixed order.

    Attributes:
        levels: For each parameter the number of its levels or their list.
        trials: Number of cells taken, the first ones; null takes all.
    """

    kind: Literal["full_grid"]
    levels: Levels = Field(default_factory=dict)
    trials: Annotated[int, Field(ge=1)] | None = None


SamplerName = Literal["tpe", "gp", "cmaes", "nsga2", "sobol", "random"]


class ModelStage(StrictModel):
    """Proposals of a sampler, most of which learn from the trials before.

    Attributes:
        sampler: `tpe`, the tree-structured Parzen estimator; `gp`, a Gaussian process; `cmaes`,
            an evolving normal distribution; `nsga2`, a genetic algorithm; `sobol`, an even
            sequence, or `random`, neither of which learns.
        trials: Number of proposals.
    """

    kind: Literal["model"]
    sampler: SamplerName = "tpe"
    trials: Annotated[int, Field(ge=1)]


Stage = Annotated[
    ManualStage | RandomGridStage | FullGridStage | ModelStage, Field(discriminator="kind")
]
