"""What Optuna proposes: its samplers, the history that they are told, and points of our space."""

import hashlib
import warnings
from collections.abc import Iterable, Sequence
from typing import Literal

import optuna
from optuna.samplers import BaseSampler, GPSampler, NSGAIISampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial, Trial, TrialState

from search.domains import CategoricalDomain, Domain, FloatDomain, Params, Scalar
from search.frozen_trial import each_direction, optuna_name
from search.space import Space, active_domain, dependency_order
from search.trial import Direction

OptunaSampler = Literal["tpe", "gp", "nsga2", "random"]

_POPULATION = 12  # of NSGA-II; Optuna's own 50 would be a whole study
_GENERATION = "NSGAIISampler:generation"  # where Optuna keeps a trial's
_STARTUP_TRIALS = 5  # the stages before have explored already; Optuna's own default is 10


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
    study = optuna.create_study(sampler=sampler, directions=each_direction(direction))
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
            value = _suggest(trial, optuna_name(space, name, domain), domain)
            params[name] = domain.canonical(name, value)
    return params


def _suggest(trial: Trial, name: str, domain: Domain) -> Scalar:
    if isinstance(domain, CategoricalDomain):
        choice: Scalar = trial.suggest_categorical(name, domain.choices)  # type: ignore[assignment]
        return choice
    if isinstance(domain, FloatDomain):
        return trial.suggest_float(name, domain.low, domain.high, log=domain.log, step=domain.step)
    return trial.suggest_int(name, domain.low, domain.high, log=domain.log, step=domain.step)
