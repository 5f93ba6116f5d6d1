"""The stages of a study: points chosen by hand, cells of a grid, proposals of a model."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from search.domains import Params, StrictModel, Value, as_tuple
from search.grid import grid_cells
from search.ledger import cell_key
from search.space import Space, canonical_point
from search.space_checks import Fixed, config_problems
from search.spec_errors import Path, Problem, ProblemsError, show


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


Stage = Annotated[ManualStage | RandomGridStage | ModelStage, Field(discriminator="kind")]


@dataclass(frozen=True)
class PlannedStage:
    """What the budget leaves of a stage.

    Attributes:
        index: Position among the study's stages.
        stage: The stage.
        trials: How many of its trials the budget allows.
    """

    index: int
    stage: ManualStage | RandomGridStage | ModelStage
    trials: int


def plan_stages(stages: Sequence[Stage], trials: int) -> tuple[PlannedStage, ...]:
    """Gives each stage its trials in order until the budget is used up."""
    planned = []
    for index, stage in enumerate(stages):
        allowed = min(stage.trials, trials)
        planned.append(PlannedStage(index, stage, allowed))
        trials -= allowed
    return tuple(planned)


def check_stages(
    stages: Sequence[Stage], trials: int, space: Space, fixed: Fixed
) -> Iterator[Problem]:
    """Finds points and grids that the space does not allow, and grids with too few cells.

    A stage is held to all its trials, for a budget that cuts them now may be extended.
    """
    claimed: dict[str, Path] = {}
    taken: list[tuple[set[str], int]] = []  # the cells of each grid before, and how many it takes
    for index, stage in enumerate(stages):
        path: Path = ("stages", index)
        if isinstance(stage, ManualStage):
            yield from _check_points(stage, path, space, fixed, claimed)
        elif isinstance(stage, RandomGridStage):
            try:
                cells = {cell_key(cell) for cell in grid_cells(space, stage.levels)}
            except ProblemsError as error:
                yield from (Problem((*path, "levels", *p), text) for p, text in error.problems)
                continue
            lost = sum(min(count, len(cells & before)) for before, count in taken)
            free = len(cells - claimed.keys()) - lost
            if stage.trials > free:
                yield Problem((*path, "trials"), _too_few(stage.trials, len(cells), free))
            taken.append((cells, stage.trials))
    most = sum(stage.trials for stage in stages)
    if trials > most:
        message = f"`trials <= {most}`, the sum over the stages, must hold, but got"
        yield Problem(("budget", "trials"), f"{message} trials={trials}")


def _too_few(trials: int, cells: int, free: int) -> str:
    used = f", of which earlier stages use {cells - free}" if free < cells else ""
    held = f"`trials <= {free}` must hold, for the grid has {cells} cells{used}"
    return f"{held}, but got trials={trials}"


def _check_points(
    stage: ManualStage, path: Path, space: Space, fixed: Fixed, claimed: dict[str, Path]
) -> Iterator[Problem]:
    for position, point in enumerate(stage.points):
        here: Path = (*path, "points", position)
        try:
            params: Params = canonical_point(space, point)
        except ProblemsError as error:
            yield from (Problem((*here, *p), text) for p, text in error.problems)
            continue
        for place, text in config_problems(space, fixed, params):
            yield Problem((*here, *place[1:2]), text)
        earlier = claimed.setdefault(cell_key(params), here)
        if earlier != here:
            message = f"points must differ, but this one repeats {'.'.join(map(str, earlier))}"
            yield Problem(here, message)
