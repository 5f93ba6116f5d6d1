"""A space of named domains, of which some apply only where other parameters have some value."""

from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter

from search.domains import Domain, IntDomain, Params, Scalar, same
from search.spec_errors import Problem, ProblemsError, raise_any, suggestion

Space = Mapping[str, tuple[Domain, ...]]


def dependency_order(space: Space) -> list[str]:
    """Returns the names such that what a `when` asks for comes first; else alphabetical.

    The order does not depend on how the mapping was written.

    Raises:
        ProblemsError: Some parameters wait for each other.
    """
    sorter = TopologicalSorter({name: parents_of(space[name]) for name in space})
    order: list[str] = []
    try:
        sorter.prepare()
    except CycleError as error:
        cycle: list[str] = error.args[1]
        message = f"`when` must not lead back to itself, but got {' -> '.join(reversed(cycle))}"
        raise ProblemsError([Problem((cycle[0],), message)]) from None
    while sorter.is_active():
        ready = sorted(sorter.get_ready())
        order += ready
        sorter.done(*ready)
    return order


def active_domain(branches: tuple[Domain, ...], params: Mapping[str, object]) -> Domain | None:
    """The domain whose `when` holds for the parameters chosen so far, if any does."""
    for domain in branches:
        if all(
            name in params and any(same(params[name], value) for value in values)
            for name, values in domain.when.items()
        ):
            return domain
    return None


def canonical_point(space: Space, point: Mapping[str, object]) -> Params:
    """Returns the point with plain values, in the space's order.

    Raises:
        ProblemsError: A parameter is unknown, missing, inactive or out of its domain.
    """
    problems = [
        Problem((name,), f"must be a parameter of `space`{suggestion(name, space)}")
        for name in point
        if name not in space
    ]
    params: Params = {}
    for name in dependency_order(space):
        domain = active_domain(space[name], params)
        if domain is None:
            if name in point:
                message = f"must be left out where {described(params, space[name])}"
                problems.append(Problem((name,), message))
        elif name not in point:
            problems.append(Problem((name,), "must be given at every point, but it is missing"))
        else:
            try:
                params[name] = domain.canonical(name, point[name])
            except ValueError as error:
                problems.append(Problem((name,), str(error)))
    raise_any(problems)
    return params


def corner_points(space: Space) -> Iterator[Params]:
    """Yields points that pair each end of each domain with the low and high ends of the others.

    Every choice that a `when` may depend on is gone through; the number of points is linear in
    the number of the other parameters.
    """
    order = dependency_order(space)
    parents = set().union(*(parents_of(branches) for branches in space.values()))
    for structure in _structures(space, [name for name in order if name in parents], {}):
        rest: dict[str, Domain] = {}
        for name in order:
            domain = active_domain(space[name], structure)
            if name not in parents and domain is not None:
                rest[name] = domain
        for end in (0, -1):
            base = structure | {name: domain.corners()[end] for name, domain in rest.items()}
            yield base
            for name, domain in rest.items():
                for value in domain.corners():
                    yield base | {name: value}


def parents_of(branches: tuple[Domain, ...]) -> set[str]:
    """The parameters that the branches' conditions ask for."""
    return {name for domain in branches for name in domain.when}


def described(params: Mapping[str, object], branches: tuple[Domain, ...]) -> str:
    """Writes, for a message, what the branches' conditions look at: `optimizer='sgd'`."""
    parents = sorted(parents_of(branches))
    return ", ".join(
        f"{name}={params[name]!r}" if name in params else f"{name} is absent" for name in parents
    )


def _structures(space: Space, parents: list[str], chosen: Params) -> Iterator[Params]:
    """Yields every assignment of the parameters that a `when` refers to."""
    if not parents:
        yield chosen
        return
    name, *later = parents
    domain = active_domain(space[name], chosen)
    if domain is None:
        yield from _structures(space, later, chosen)
        return
    for value in _decisive_values(space, name, domain):
        yield from _structures(space, later, chosen | {name: value})


def _decisive_values(space: Space, name: str, domain: Domain) -> list[Scalar]:
    values = list(domain.corners())
    for branches in space.values():
        for branch in branches:
            values += [v for v in branch.when.get(name, ()) if allows(domain, name, v)]
    if isinstance(domain, IntDomain):  # and one value that no branch asks for
        others = range(domain.low, domain.high + 1, domain.step)
        values += [next((value for value in others if value not in values), domain.low)]
    return list(dict.fromkeys(values))


def allows(domain: Domain, name: str, value: object) -> bool:
    """Whether a value lies in a domain."""
    try:
        domain.canonical(name, value)
    except ValueError:
        return False
    return True
