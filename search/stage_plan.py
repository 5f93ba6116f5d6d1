"""How many trials each stage of a study has, and which cells are left to it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from search.cell import cell_key
from search.domains import Params
from search.grid import all_cells, grid_cells, random_order
from search.space import Space, canonical_point
from search.space_checks import Fixed, config_problems
from search.spec_errors import Path, Problem, ProblemsError
from search.stages import FullGridStage, ManualStage, ModelStage, RandomGridStage, Stage


@dataclass(frozen=True)
class PlannedStage:
    """What the budget leaves of a stage.

    Attributes:
        index: Position among the study's stages.
        stage: The stage.
        trials: How many of its trials the budget allows.
    """

    index: int
    stage: Stage
    trials: int


def plan_stages(
    stages: Sequence[Stage], counts: Sequence[int], trials: int
) -> tuple[PlannedStage, ...]:
    """Gives each stage its trials (`stage_trials`) in order until the budget is used up."""
    planned = []
    for index, (stage, count) in enumerate(zip(stages, counts, strict=True)):
        allowed = min(count, trials)
        planned.append(PlannedStage(index, stage, allowed))
        trials -= allowed
    return tuple(planned)


def stage_trials(stages: Sequence[Stage], space: Space, seed: int) -> tuple[int, ...]:
    """Returns how many trials each stage has, were the budget no limit.

    A full grid that names no number has the cells that no stage before takes. (A model before it
    may take some of them too; then the grid has that many fewer.)

    Raises:
        ProblemsError: A point or a grid does not fit the space.
    """
    given = [stage.trials for stage in stages]
    counts = tuple(count for count in given if count is not None)
    if len(counts) == len(given):
        return counts
    claimed: set[str] = set()
    found = []
    for stage, count in zip(stages, given, strict=True):
        keys = map(cell_key, stage_cells(stage, space, seed))
        free = [key for key in keys if key not in claimed]
        found.append(len(free) if count is None else count)
        claimed.update(free[: found[-1]])
    return tuple(found)


def stage_cells(stage: Stage, space: Space, seed: int) -> list[Params]:
    """Returns the cells that a stage goes through, in its order; none for a model.

    A random grid is shuffled by the seed. A full grid is in the order of dependence of its
    parameters and of the levels as they are listed, the last parameter changing fastest.

    Raises:
        ProblemsError: A point or a grid does not fit the space.
    """
    match stage:
        case ManualStage():
            return [canonical_point(space, point) for point in stage.points]
        case RandomGridStage():
            return random_order(grid_cells(space, stage.levels), seed)
        case FullGridStage():
            return grid_cells(space, stage.levels)
        case ModelStage():
            return []


def check_stages(
    stages: Sequence[Stage], trials: int, space: Space, fixed: Fixed, seed: int
) -> Iterator[Problem]:
    """Finds points and grids that the space does not allow, and stages with too few cells.

    A stage is held to all its trials, for a budget that cuts them now may be extended.
    """
    claimed: dict[str, Path] = {}
    cells: dict[int, set[str]] = {}
    problems: list[Problem] = []
    for index, stage in enumerate(stages):
        path: Path = ("stages", index)
        if isinstance(stage, ManualStage):
            problems += _check_points(stage, path, space, fixed, claimed)
        elif not isinstance(stage, ModelStage):
            try:
                cells[index] = {cell_key(cell) for cell in grid_cells(space, stage.levels)}
            except ProblemsError as error:
                problems += [Problem((*path, "levels", *p), text) for p, text in error.problems]
    yield from problems
    if problems:
        return
    counts = stage_trials(stages, space, seed)
    yield from _check_room(stages, counts, cells, space)
    most = sum(counts)
    if trials > most:
        message = f"`trials <= {most}`, the sum over the stages, must hold, but got"
        yield Problem(("budget", "trials"), f"{message} trials={trials}")


def _check_room(
    stages: Sequence[Stage], counts: Sequence[int], grids: dict[int, set[str]], space: Space
) -> Iterator[Problem]:
    """Holds each stage to the cells that those before it leave at worst, whatever the seed."""
    whole = all_cells(space) if any(isinstance(s, ModelStage) for s in stages) else None
    every = None if whole is None else {cell_key(cell) for cell in whole}
    by_hand: set[str] = set()
    taken: list[tuple[set[str], int]] = []  # the cells of each stage before, and how many it takes
    for index, (stage, count) in enumerate(zip(stages, counts, strict=True)):
        if isinstance(stage, ManualStage):
            by_hand |= {cell_key(canonical_point(space, point)) for point in stage.points}
            continue
        cells = grids.get(index, every)
        if cells is None:
            continue  # a model over endless cells
        free = len(cells - by_hand) - sum(min(most, len(cells & others)) for others, most in taken)
        thing = "grid" if index in grids else "space"
        if stage.trials is None and count == 0:
            message = f"a cell must be left, but earlier stages take all {len(cells)} of the grid"
            yield Problem(("stages", index), message)
        elif stage.trials is not None and count > free:
            yield Problem(("stages", index, "trials"), _too_few(count, thing, len(cells), free))
        taken.append((cells, count))


def _too_few(trials: int, thing: str, cells: int, free: int) -> str:
    used = f", of which earlier stages use {cells - free}" if free < cells else ""
    held = f"`trials <= {free}` must hold, for the {thing} has {cells} cells{used}"
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
