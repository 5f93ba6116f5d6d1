"""Whether a space and the fixed fields always give a valid `GANConfig`."""

from collections.abc import Iterator, Mapping

from cgan_core.config import ConfigError
from cgan_core.families import config_of, family_of, owner_of
from search.domains import Domain, FloatDomain, Scalar, same
from search.space import Space, active_domain, allows, corner_points, dependency_order, described
from search.spec_errors import Path, Problem, ProblemsError, suggestion

NEVER_SEARCHED = ("family", "condition")

Fixed = Mapping[str, Scalar | None]


def check_space(space: Space, fixed: Fixed) -> list[Problem]:
    """Finds what keeps a space and the fixed fields from giving valid `GANConfig`s.

    Args:
        space: The searched fields.
        fixed: The fields of `model`.

    Returns:
        Problems with paths from the root of the study; checks that need sound names, and those
        that need sound conditions, come only after these are found sound.
    """
    for check in (_check_names, _check_conditions, _check_configs):
        problems = list(check(space, fixed))
        if problems:
            return problems
    return []


def _check_names(space: Space, fixed: Fixed) -> Iterator[Problem]:
    try:
        fields = family_of(fixed).fields
    except ConfigError as error:
        yield Problem(("model", "family"), str(error))
        return
    for section, names in (("model", fixed), ("space", space)):
        for name in names:
            if name in NEVER_SEARCHED and section == "space":
                message = "must be fixed in `model`: all trials of a study have the same one"
                yield Problem((section, name), message)
            elif name not in fields:
                owner = owner_of(name)
                hint = f", it is one of {owner}'s" if owner else suggestion(name, fields)
                message = f"must be a hyperparameter of this family of networks{hint}"
                yield Problem((section, name), message)
    if not space:
        yield Problem(("space",), "at least one parameter must be searched, but got none")
    for name in space:
        if name in fixed:
            message = f"must be searched or fixed, but `model.{name}` fixes it too"
            yield Problem(("space", name), message)


def _check_conditions(space: Space, fixed: Fixed) -> Iterator[Problem]:
    unsound = False
    for name, branches in space.items():
        for position, domain in enumerate(branches):
            for parent, values in domain.when.items():
                message = _condition_problem(space, name, parent, values)
                if message:
                    unsound = True
                    yield Problem(("space", name, position, "when", parent), message)
    if unsound:
        return
    try:
        dependency_order(space)
    except ProblemsError as error:
        for path, message in error.problems:
            yield Problem(("space", *path), message)
    for name, branches in space.items():
        for position, domain in enumerate(branches):
            for other in branches[:position]:
                if not _exclusive(domain, other):
                    message = "the `when` of two branches must not both hold, but these can"
                    yield Problem(("space", name, position), message)


def _condition_problem(
    space: Space, name: str, parent: str, values: tuple[Scalar, ...]
) -> str | None:
    if parent == name or parent not in space:
        others = [other for other in space if other != name]
        return f"`when` must name another searched parameter{suggestion(parent, others)}"
    if any(isinstance(domain, FloatDomain) for domain in space[parent]):
        return f"`when` must ask for a categorical or int parameter, but `{parent}` is a float"
    for value in values:
        if not any(allows(domain, parent, value) for domain in space[parent]):
            return f"`{parent}` must be able to be {value!r}, but its domain has no such value"
    return None


def _exclusive(left: Domain, right: Domain) -> bool:
    return any(
        not any(same(a, b) for a in left.when[name] for b in right.when[name])
        for name in left.when.keys() & right.when.keys()
    )


def _check_configs(space: Space, fixed: Fixed) -> Iterator[Problem]:
    family = family_of(fixed)
    required = sorted(family.fields.keys() - family.defaults.keys())
    absent = [name for name in required if name not in space and name not in fixed]
    for name in absent:
        message = f"`{name}` has no default: fix it in `model` or search it in `space`"
        yield Problem(("model",), message)
    if absent:
        return
    seen: set[tuple[Path, str]] = set()
    for point in corner_points(space):
        for problem in config_problems(space, fixed, point, required):
            if problem not in seen:
                seen.add(problem)
                yield problem


def config_problems(
    space: Space, fixed: Fixed, point: Mapping[str, object], required: list[str] | None = None
) -> list[Problem]:
    """Tries to build the `GANConfig` of a point, with paths from the root of the study."""
    for name in required or ():
        if name not in point and name not in fixed:
            place = described(point, space[name])
            message = f"a branch must apply where {place}, for it has no default"
            return [Problem(("space", name), message)]
    try:
        config_of({**fixed, **point})
    except ConfigError as error:
        return [Problem(_place(space, point, error.key), str(error))]
    return []


def _place(space: Space, point: Mapping[str, object], key: str) -> Path:
    """Where the user wrote the value that a configuration refused."""
    if key not in point:
        return ("model", key)
    for position, domain in enumerate(space[key]):
        if active_domain((domain,), point) is None:
            continue
        if domain.type == "categorical":
            return ("space", key, position, "choices")
        bound = "low" if same(domain.low, point[key]) else "high"
        return ("space", key, position, bound)
    return ("space", key)
