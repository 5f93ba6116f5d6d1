"""The explore step of population based training: a donor's parameters, changed."""

import math
from collections.abc import Iterator, Mapping

import numpy as np

from cgan_core.families import CHANGEABLE
from search.bandit import best_first
from search.domains import CategoricalDomain, Domain, FloatDomain, IntDomain, Params, Scalar
from search.space import Space, active_domain, dependency_order, parents_of
from search.time_varying_gp import Points, TimeVaryingGP
from search.unit_cube import coordinates_of, value_at

RESAMPLE = 0.25  # how often a parameter is drawn anew
FACTORS = (0.8, 1.2)


def changeable(space: Space) -> list[str]:
    """The searched parameters that a net may change while it is trained, in the space's order.

    Those that a `when` asks for stay: with them a branch would change, and what is in it.
    """
    asked_for = set().union(*(parents_of(branches) for branches in space.values()))
    return [name for name in dependency_order(space) if name in CHANGEABLE - asked_for]


def perturbed(space: Space, params: Mapping[str, Scalar], rng: np.random.Generator) -> Params:
    """Returns the parameters with each changeable one perturbed, or with some luck drawn anew.

    A number is multiplied by 0.8 or 1.2 and kept in its bounds and on its steps, of which it moves
    by one at least; of choices a neighbour in the list is taken (Jaderberg et al. 2017).

    Args:
        space: The searched parameters.
        params: Those of the donor.
        rng: For all that is drawn.
    """
    names, changed = set(changeable(space)), dict(params)
    for name in dependency_order(space):
        domain = active_domain(space[name], changed)
        if domain is not None and name in names:
            anew, up, fraction = rng.random() < RESAMPLE, bool(rng.integers(2)), rng.random()
            value = value_at(domain, fraction) if anew else _moved(domain, params[name], up=up)
            changed[name] = _within(domain, name, value)
    return changed


def guided(
    space: Space,
    params: Mapping[str, Scalar],
    process: TimeVaryingGP,
    time: float,
    pending: Points,
    rng: np.random.Generator,
) -> Iterator[Params]:
    """Yields the parameters with each changeable number where it promises most, the best first.

    All else is as `perturbed` has it: a process has no distance between choices. What does not
    change is part of the point all the same, so others of that kind are what is learnt from.

    Args:
        space: The searched parameters.
        params: Those of the donor.
        process: That of the gains.
        time: The interval to come.
        pending: Points whose gains of that interval are awaited.
        rng: For all that is drawn.
    """
    start, order = perturbed(space, params, rng), dependency_order(space)
    numbers = {
        order.index(name): (name, domain)
        for name in changeable(space)
        if isinstance(domain := active_domain(space[name], start), FloatDomain | IntDomain)
    }
    if not numbers:
        yield start
        return
    centre = np.array(coordinates_of(space, start))
    for point in best_first(process, centre, list(numbers), time, pending, rng):
        found = {
            name: _within(domain, name, value_at(domain, float(point[place])))
            for place, (name, domain) in numbers.items()
        }
        yield start | found


def _moved(domain: Domain, value: Scalar, *, up: bool) -> Scalar:
    if isinstance(domain, CategoricalDomain):
        place = domain.choices.index(value) + (1 if up else -1)
        return domain.choices[min(max(place, 0), len(domain.choices) - 1)]
    number = float(value) * FACTORS[up]
    if domain.step is None:
        return number
    steps = (number - domain.low) / domain.step
    before = round((float(value) - domain.low) / domain.step)
    whole = max(math.ceil(steps), before + 1) if up else min(math.floor(steps), before - 1)
    return domain.low + whole * domain.step


def _within(domain: Domain, name: str, value: Scalar) -> Scalar:
    if isinstance(domain, FloatDomain | IntDomain):
        value = min(max(value, domain.low), domain.high)
    return domain.canonical(name, value)
