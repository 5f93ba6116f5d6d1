"""Ray's own `OptunaSearch` and `ASHAScheduler`, driven in virtual time as Tune drives them."""

import logging
import math
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import optuna
from ray.tune.schedulers import ASHAScheduler, TrialScheduler
from ray.tune.search.optuna import OptunaSearch

from benchmarks.problem import Problem
from search.domains import CategoricalDomain, FloatDomain, Params, Scalar
from search.frozen_trial import distribution
from search.pruners import Verdict
from search.simulation import SimulatedTrial
from search.space import Space, active_domain, dependency_order

METRIC = "score"
TIME = "training_iteration"
DIVERGED = -1e6
"""What a training that broke reports last: Tune would end with an error, or Optuna keep the trial
running for ever, were it NaN; this way the search learns of it."""


class Stock:
    """Both classes with their defaults, as the sampler and the pruner of a `Simulation`.

    The calls are those of `ray.tune.execution.tune_controller.TuneController`: a result goes to
    the scheduler first, to the search only if the trial goes on; the last result ends it with
    both. The tests hold it to a real run of Tune. All that is set is what every user must say: the
    metric, the space, and the length of a training (`max_t`, in reports).

    Args:
        problem: What is searched.
        seed: Of Optuna's sampler.
        asha: Other arguments of the scheduler than its defaults, `grace_period` for example.
    """

    def __init__(self, problem: Problem, seed: int, **asha: float) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        logging.getLogger("ray.tune").setLevel(logging.ERROR)
        self._space, self._measure_kimg = problem.space, problem.measure_kimg
        self.search = OptunaSearch(
            space=optuna_space(problem.space), metric=METRIC, mode="max", seed=seed
        )
        most = self._reports(problem.kimg_per_trial)
        self.scheduler = ASHAScheduler(metric=METRIC, mode="max", max_t=most, **asha)
        self.results: dict[int, dict[str, Any]] = {}  # the last of each trial

    def propose(self, number: int, trials: Mapping[int, SimulatedTrial]) -> Params:
        """Asks the search; the scheduler is told of the trial."""
        params = self.search.suggest(str(number))
        self.scheduler.on_trial_add(None, _trial(number))
        return _canonical(self._space, params)

    def measured(self, number: int, kimg: float, value: float) -> Verdict:
        """Hands on a report."""
        result = {METRIC: value, TIME: self._reports(kimg)}
        self.results[number] = result
        decision = self.scheduler.on_trial_result(None, _trial(number), result)
        if decision == TrialScheduler.STOP:
            self._complete(number)
            return "stop"
        self.search.on_trial_result(str(number), result)
        return "go_on"

    def broke(self, number: int) -> None:
        """Hands on a last report, so poor that nobody takes it for a result."""
        reports = self.results[number][TIME] if number in self.results else 0
        self.results[number] = {METRIC: DIVERGED, TIME: reports + 1}
        self._complete(number)

    def resumed(self, *, last: bool = False) -> int | None:
        """Nobody pauses."""
        return None

    def _reports(self, kimg: float) -> int:
        return math.ceil(kimg / self._measure_kimg - 1e-9)  # the last may come early

    def _complete(self, number: int) -> None:
        self.scheduler.on_trial_complete(None, _trial(number), self.results[number])
        self.search.on_trial_complete(str(number), result=self.results[number])


def optuna_space(space: Space) -> Any:
    """The space as `OptunaSearch` takes it: distributions, or a function where it branches."""
    if not any(domain.when for branches in space.values() for domain in branches):
        return {name: distribution(branches[0]) for name, branches in space.items()}

    def define(trial: Any) -> None:
        params: dict[str, Scalar] = {}
        for name in dependency_order(space):
            domain = active_domain(space[name], params)
            if isinstance(domain, CategoricalDomain):
                params[name] = trial.suggest_categorical(name, domain.choices)
            elif domain is not None:
                suggest = trial.suggest_int
                if isinstance(domain, FloatDomain):
                    suggest = trial.suggest_float
                params[name] = suggest(
                    name, domain.low, domain.high, log=domain.log, step=domain.step
                )

    return define


def _canonical(space: Space, params: Mapping[str, Scalar]) -> Params:
    found: Params = {}
    for name in dependency_order(space):
        domain = active_domain(space[name], found)
        if domain is not None:
            found[name] = domain.canonical(name, params[name])
    return found


def _trial(number: int) -> SimpleNamespace:
    return SimpleNamespace(trial_id=str(number))  # all that the scheduler looks at
