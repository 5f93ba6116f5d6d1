"""The cells of a grid over a space, and the order in which a study takes them."""

import hashlib
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence

from search.cell import cell_key
from search.domains import CategoricalDomain, Domain, FloatDomain, Params, Scalar
from search.space import Space, active_domain, dependency_order
from search.spec_errors import Problem, ProblemsError, raise_any, show, suggestion

Levels = Mapping[str, int | tuple[Scalar, ...]]

MOST_CELLS = 100_000


def grid_cells(space: Space, levels: Levels) -> list[Params]:
    """Returns every cell of the grid once, each with its active parameters only.

    Args:
        space: The searched parameters.
        levels: Number of levels, or the levels themselves, of each parameter; a categorical
            parameter left out takes all its choices.

    Raises:
        ProblemsError: A parameter is unknown or has no levels, a level is out of its domain, or
            there are more than `MOST_CELLS` cells.
    """
    raise_any(_unknown_or_missing(space, levels))
    order = dependency_order(space)
    values = {name: _branch_levels(space[name], name, levels.get(name)) for name in order}
    cells = list(itertools.islice(_cells(space, order, values, {}), MOST_CELLS + 1))
    if len(cells) > MOST_CELLS:
        message = f"a grid must have at most {MOST_CELLS:,} cells, but this one has more"
        raise ProblemsError([Problem((), message)])
    return list({cell_key(cell): cell for cell in cells}.values())


def all_cells(space: Space) -> list[Params] | None:
    """Returns every cell of a finite space; None where they are endless or too many to list."""
    levels: dict[str, tuple[Scalar, ...]] = {}
    for name, branches in space.items():
        values: list[Scalar] = []
        for domain in branches:
            if isinstance(domain, CategoricalDomain):
                values += domain.choices
            elif isinstance(domain, FloatDomain):
                if domain.step is None and domain.low < domain.high:
                    return None
                count = round((domain.high - domain.low) / (domain.step or 1.0)) + 1
                values += domain.spread(count)
            else:
                values += range(domain.low, domain.high + 1, domain.step)
        levels[name] = tuple(dict.fromkeys(values))
    try:
        return grid_cells(space, levels)
    except ProblemsError:
        return None


def random_order(cells: Iterable[Params], seed: int) -> list[Params]:
    """Shuffles cells by a hash of seed and cell.

    The order depends on the seed alone: not on how the cells were listed, and leaving some out
    does not move the others.
    """
    return sorted(
        cells, key=lambda cell: hashlib.sha256(f"{seed}:{cell_key(cell)}".encode()).digest()
    )


def _unknown_or_missing(space: Space, levels: Levels) -> list[Problem]:
    problems = [
        Problem((name,), f"must be a parameter of `space`{suggestion(name, space)}")
        for name in levels
        if name not in space
    ]
    for name, branches in space.items():
        if name not in levels and not all(isinstance(b, CategoricalDomain) for b in branches):
            message = f"`{name}` must have levels, a number or a list of values, but has none"
            problems.append(Problem((), message))
    return problems


def _branch_levels(
    branches: Sequence[Domain],
    name: str,
    levels: int | tuple[Scalar, ...] | None,
) -> list[tuple[Scalar, ...]]:
    """Returns the levels of each branch."""
    if isinstance(levels, tuple):
        return _listed_levels(branches, name, levels)
    found: list[tuple[Scalar, ...]] = []
    for domain in branches:
        if isinstance(domain, CategoricalDomain):
            if levels is not None and len(branches) == 1:
                message = f"levels of a categorical parameter must be a list, but got {levels}"
                raise ProblemsError([Problem((name,), message)])
            found.append(domain.choices)
        else:
            assert levels is not None  # refused by _unknown_or_missing
            found.append(domain.spread(levels))
    return found


def _listed_levels(
    branches: Sequence[Domain], name: str, levels: tuple[Scalar, ...]
) -> list[tuple[Scalar, ...]]:
    """Gives each branch those of the listed values that lie in it."""
    found: list[list[Scalar]] = [[] for _ in branches]
    for level in levels:
        refusal = ""
        for domain, values in zip(branches, found, strict=True):
            try:
                values.append(domain.canonical(name, level))
            except ValueError as error:
                refusal = str(error)
        if refusal and not any(level in values for values in found):
            raise ProblemsError([Problem((name,), refusal)])
    for position, values in enumerate(found):
        if not values:
            message = f"each branch must have a level, but branch {position} gets none of"
            raise ProblemsError([Problem((name,), f"{message} {show(list(levels))}")])
    return [tuple(dict.fromkeys(values)) for values in found]


def _cells(
    space: Space,
    order: Sequence[str],
    values: Mapping[str, list[tuple[Scalar, ...]]],
    chosen: Params,
) -> Iterator[Params]:
    if not order:
        yield chosen
        return
    name, *later = order
    domain = active_domain(space[name], chosen)
    if domain is None:
        yield from _cells(space, later, values, chosen)
        return
    position = next(i for i, branch in enumerate(space[name]) if branch is domain)
    for value in values[name][position]:
        yield from _cells(space, later, values, chosen | {name: value})
