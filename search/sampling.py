"""From our domains to Optuna and back: distributions, samplers, history, proposals."""

import hashlib
import math
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.samplers import (
    BaseSampler,
    GPSampler,
    NSGAIISampler,
    RandomSampler,
    TPESampler,
)
from optuna.trial import FrozenTrial, Trial, TrialState

from search.domains import CategoricalDomain, Domain, FloatDomain, Params, Scalar
from search.grid import grid_cells, random_order
from search.space import Space, active_domain, dependency_order
from search.trial import Direction, TrialStateName

__all__ = [
    "DIVERGED",
    "INFEASIBLE_VALUE",
    "distribution",
    "grid_cells",
    "make_sampler",
    "proposal_seed",
    "propose",
    "random_order",
    "rebuild_study",
    "to_frozen_trial",
]

OptunaSampler = Literal["tpe", "gp", "nsga2", "random"]

INFEASIBLE_VALUE = 1e9
"""What Optuna is told of a diverged trial: this far on the wrong side of zero, in nats."""

DIVERGED = "diverged"
"""The constraint that INFEASIBLE trials break."""

_POPULATION = 12  # of NSGA-II; Optuna's own 50 would be a whole study
_GENERATION = "NSGAIISampler:generation"  # where Optuna keeps a trial's
_UNKNOWN_BEYOND = 1.0  # told where a metric is not known: models would not bear infinity
_STARTUP_TRIALS = 5  # the stages before have explored already; Optuna's own default is 10
_STATES = {
    "RUNNING": TrialState.RUNNING,
    "COMPLETED": TrialState.COMPLETE,
    "STOPPED": TrialState.PRUNED,
    "INFEASIBLE": TrialState.COMPLETE,
    "FAILED": TrialState.FAIL,
}


def proposal_seed(study_seed: int, number: int, attempt: int = 0) -> int:
    """Returns the sampler's seed for a trial's proposal, below 2^32.

    Args:
        study_seed: The study's seed.
        number: The trial's number.
        attempt: How often a proposal for this trial was refused before.
    """
    text = f"{study_seed}/{number}/{attempt}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4])


def make_sampler(name: OptunaSampler, seed: int) -> BaseSampler:
    """Creates a sampler of Optuna's.

    `tpe` (Bergstra et al. 2011) is multivariate and grouped: it models together the parameters
    that were active together, so that branches keep their joint density; the constant liar makes
    running trials count as poor ones, so that parallel proposals keep apart. `gp` is a Gaussian
    process with expected improvement in logarithms (Ament et al. 2023), which knows that scores
    are noisy; of running trials it takes what it expects, so that parallel proposals keep apart
    too. `nsga2` (Deb et al. 2002) breeds from whole trials. The last two draw at random what
    applies in some branches only. `random` learns nothing.
    """
    if name == "random":
        return RandomSampler(seed=seed)
    if name == "gp":
        apart = RandomSampler(seed=seed)
        return GPSampler(
            seed=seed,
            n_startup_trials=_STARTUP_TRIALS,
            independent_sampler=apart,
            warn_independent_sampling=False,
        )
    if name == "nsga2":
        return NSGAIISampler(seed=seed, population_size=_POPULATION)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)  # `group`
        return TPESampler(
            seed=seed,
            n_startup_trials=_STARTUP_TRIALS,
            multivariate=True,
            group=True,
            constant_liar=True,
        )


def rebuild_study(
    history: Iterable[FrozenTrial],
    sampler: BaseSampler,
    direction: Direction | Sequence[Direction] = "maximize",
) -> optuna.Study:
    """Creates an Optuna study in memory that remembers the given trials.

    Proposals depend on the order of the history: give it by trial number. Several objectives have
    a direction each.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)  # else each proposal announces a study
    study = optuna.create_study(sampler=sampler, directions=_each(direction))
    trials = list(history)
    _set_generations(trials)
    study.add_trials(trials)
    return study


def _set_generations(trials: Iterable[FrozenTrial]) -> None:
    """Says which population of NSGA-II each whole trial belongs to: no study remembers it."""
    whole = (trial for trial in trials if trial.state == TrialState.COMPLETE)
    for position, trial in enumerate(whole):
        trial.system_attrs[_GENERATION] = position // _POPULATION


def propose(study: optuna.Study, space: Space) -> Params:
    """Asks for one point of the space.

    The point depends on the sampler's seed and on the study's history only; with a rebuilt study
    and `proposal_seed`, therefore, on the study's seed, the trial's number and the history.

    Args:
        study: A study from `rebuild_study`, used for this proposal only: it keeps the asked
            trial as running.
        space: The searched parameters.
    """
    trial = study.ask()
    params: Params = {}
    for name in dependency_order(space):
        domain = active_domain(space[name], params)
        if domain is not None:
            value = _suggest(trial, _optuna_name(space, name, domain), domain)
            params[name] = domain.canonical(name, value)
    return params


def to_frozen_trial(
    space: Space,
    params: Mapping[str, Scalar],
    state: TrialStateName,
    value: float | Sequence[float] | None = None,
    intermediate_values: Mapping[float, float] | None = None,
    direction: Direction | Sequence[Direction] = "maximize",
    violations: Mapping[str, float] | None = None,
) -> FrozenTrial:
    """Writes one of our trials as Optuna's, for `rebuild_study`.

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
    directions = _each(direction)
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
            known_as = _optuna_name(space, name, domain)
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


def _each(direction: Direction | Sequence[Direction]) -> list[Direction]:
    return [direction] if isinstance(direction, str) else list(direction)


def _suggest(trial: Trial, name: str, domain: Domain) -> Scalar:
    if isinstance(domain, CategoricalDomain):
        choice: Scalar = trial.suggest_categorical(name, domain.choices)  # type: ignore[assignment]
        return choice
    if isinstance(domain, FloatDomain):
        return trial.suggest_float(name, domain.low, domain.high, log=domain.log, step=domain.step)
    return trial.suggest_int(name, domain.low, domain.high, log=domain.log, step=domain.step)


def _optuna_name(space: Space, name: str, domain: Domain) -> str:
    """Tells branches apart, for Optuna has one distribution a name: `rate[optimizer=adam]`."""
    if len(space[name]) == 1:
        return name
    conditions = (
        f"{parent}={'|'.join(map(str, values))}" for parent, values in sorted(domain.when.items())
    )
    return f"{name}[{','.join(conditions)}]"


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
