"""One of our trials as Optuna's: names and distributions of its parameters, state and course."""

import math
from collections.abc import Mapping, Sequence

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import FrozenTrial, TrialState

from search.domains import CategoricalDomain, Domain, FloatDomain, Scalar
from search.space import Space, active_domain, dependency_order
from search.trial import Direction, TrialStateName

INFEASIBLE_VALUE = 1e9
"""What Optuna is told of a diverged trial: this far on the wrong side of zero, in nats."""

DIVERGED = "diverged"
"""The constraint that INFEASIBLE trials break."""

_UNKNOWN_BEYOND = 1.0  # told where a metric is not known: models would not bear infinity
_STATES = {
    "RUNNING": TrialState.RUNNING,
    "COMPLETED": TrialState.COMPLETE,
    "STOPPED": TrialState.PRUNED,
    "INFEASIBLE": TrialState.COMPLETE,
    "FAILED": TrialState.FAIL,
}


def to_frozen_trial(
    space: Space,
    params: Mapping[str, Scalar],
    state: TrialStateName,
    value: float | Sequence[float] | None = None,
    intermediate_values: Mapping[float, float] | None = None,
    direction: Direction | Sequence[Direction] = "maximize",
    violations: Mapping[str, float] | None = None,
) -> FrozenTrial:
    """Writes one of our trials as Optuna's, for `search.sampling.rebuild_study`.

    COMPLETED is told as COMPLETE with its value. STOPPED is told as PRUNED, so that its value
    under a small budget is not compared with those of whole trials. INFEASIBLE is told as
    COMPLETE with a violated constraint, so that it ranks below every other trial, stopped ones
    included. FAILED is told as FAIL, from which nothing is learnt, and RUNNING as itself. Under
    several objectives STOPPED is told as FAIL too, for Optuna prunes by one only.

    Args:
        space: The searched parameters.
        params: The trial's active parameters.
        state: One of our states.
        value: The objective, or a value for each, which COMPLETED needs. What INFEASIBLE should
            count as, by default `INFEASIBLE_VALUE` on the wrong side. The other states ignore it.
        intermediate_values: The metric by kimg; Optuna is told the best so far at each, in steps
            of one image. Ignored under several objectives.
        direction: Which values are better, in each objective where there are several.
        violations: How far the trial lies beyond each constraint, 0 where it keeps it. A Gaussian
            process wants the same names for all trials, `DIVERGED` too where any trial has it.

    Raises:
        ValueError: A COMPLETED trial comes without a finite value.
    """
    directions = each_direction(direction)
    values = [value] if isinstance(value, float | int) else None if value is None else list(value)
    if state == "COMPLETED" and (values is None or not all(map(math.isfinite, values))):
        raise ValueError(f"`value` of a COMPLETED trial must be finite, but got {value}")
    if state == "INFEASIBLE" and values is None:
        values = [-INFEASIBLE_VALUE if d == "maximize" else INFEASIBLE_VALUE for d in directions]
    several = len(directions) > 1
    curve = {} if several else _running_best(intermediate_values or {}, directions[0])
    names, distributions = {}, {}
    for name in dependency_order(space):
        domain = active_domain(space[name], params)
        if domain is not None:
            known_as = optuna_name(space, name, domain)
            names[known_as] = params[name]
            distributions[known_as] = distribution(domain)
    return optuna.trial.create_trial(
        state=_STATES["FAILED" if several and state == "STOPPED" else state],
        values=values if state in ("COMPLETED", "INFEASIBLE") else None,
        params=names,
        distributions=distributions,
        intermediate_values=curve,
        constraints={
            **{
                name: beyond if math.isfinite(beyond) else _UNKNOWN_BEYOND
                for name, beyond in (violations or {}).items()
            },
            **({DIVERGED: 1.0} if state == "INFEASIBLE" else {}),
        },
    )


def distribution(domain: Domain) -> BaseDistribution:
    """Returns Optuna's form of a domain."""
    if isinstance(domain, CategoricalDomain):
        return CategoricalDistribution(domain.choices)
    if isinstance(domain, FloatDomain):
        return FloatDistribution(domain.low, domain.high, log=domain.log, step=domain.step)
    return IntDistribution(domain.low, domain.high, log=domain.log, step=domain.step)


def optuna_name(space: Space, name: str, domain: Domain) -> str:
    """Tells branches apart, for Optuna has one distribution a name: `rate[optimizer=adam]`."""
    if len(space[name]) == 1:
        return name
    conditions = (
        f"{parent}={'|'.join(map(str, values))}" for parent, values in sorted(domain.when.items())
    )
    return f"{name}[{','.join(conditions)}]"


def each_direction(direction: Direction | Sequence[Direction]) -> list[Direction]:
    """Returns the direction of each objective."""
    return [direction] if isinstance(direction, str) else list(direction)


def _running_best(values: Mapping[float, float], direction: Direction) -> dict[int, float]:
    """Returns the best finite value so far after each measurement, by image."""
    best: dict[int, float] = {}
    so_far = None
    for kimg, value in sorted(values.items()):
        if math.isfinite(value):
            better = max if direction == "maximize" else min
            so_far = value if so_far is None else better(so_far, value)
            best[round(1000 * kimg)] = so_far
    return best
