from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ray import tune

from benchmarks.gan_like import GanLike
from benchmarks.plateaus import Plateaus
from benchmarks.problem import Problem
from benchmarks.searches import Budget, by_last_score, run
from benchmarks.stock import METRIC, Stock, optuna_space
from search.domains import FloatDomain, IntDomain, Params, Scalar
from search.learning_curves import LearningCurve
from search.simulation import Outcome, Simulation
from search.space import Space, canonical_point

TRIALS, REPORTS = 24, 9


class Rising:
    """Curves that depend on the configuration alone, so that Tune sees the same."""

    optimum, kimg_per_trial, measure_kimg = 0.0, 2.0 * REPORTS, 2.0

    def __init__(self) -> None:
        self.space: Space = {
            "rate": (FloatDomain(type="float", low=0.01, high=1.0, log=True),),
            "share": (FloatDomain(type="float", low=0.0, high=1.0),),
            "units": (IntDomain(type="int", low=1, high=9),),
        }

    def truth(self, params: Mapping[str, Scalar]) -> float:
        return self.values(params)[-1]

    def values(self, params: Mapping[str, Scalar]) -> list[float]:
        rate, share, units = (float(params[name]) for name in ("rate", "share", "units"))
        worth = -((np.log10(rate) + 1) ** 2) - (share - 0.3) ** 2 - (units - 5) ** 2 / 50
        return [worth - 2 / (k + 1) ** (1 + share) for k in range(REPORTS)]

    def curve(self, number: int, params: Params, replicate: int = 0) -> LearningCurve:
        kimg = [2.0 * (k + 1) for k in range(REPORTS)]
        values = self.values(params)
        return LearningCurve(kimg=kimg, values=values, seconds=kimg, truth=values[-1])

    def standard_error(self, number: int, rival: int, rung: float) -> float | None:
        return None


class RisingTraining(tune.Trainable):  # type: ignore[misc]
    def setup(self, config: dict[str, Any]) -> None:
        self.values = Rising().values(config)

    def step(self) -> dict[str, float]:
        return {METRIC: self.values[self.iteration]}

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        pass

    def load_checkpoint(self, checkpoint: Any) -> None:
        pass

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self.setup(new_config)
        return True


def in_tune(stock: Stock, folder: Path) -> tune.ResultGrid:
    tuner = tune.Tuner(
        RisingTraining,
        tune_config=tune.TuneConfig(
            search_alg=stock.search,
            scheduler=stock.scheduler,
            num_samples=TRIALS,
            max_concurrent_trials=1,
            reuse_actors=True,
        ),
        run_config=tune.RunConfig(storage_path=str(folder), verbose=0),
    )
    return tuner.fit()


def in_virtual_time(problem: Problem, stock: Stock, workers: int = 1) -> Outcome:
    return Simulation(problem, stock, stock, workers=workers, num_trials=TRIALS).run()


@pytest.fixture
def shipped(local_ray: None) -> Iterator[None]:
    """Workers cannot import tests, so their code travels with them."""
    import sys

    from ray import cloudpickle

    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    yield
    cloudpickle.unregister_pickle_by_value(sys.modules[__name__])


@pytest.mark.ray
@pytest.mark.usefixtures("shipped")
def test_tune_itself_tries_and_stops_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUNE_DISABLE_SIGINT_HANDLER", "1")  # it would stay when Tune has ended
    problem = Rising()
    results = in_tune(Stock(problem, seed=3), tmp_path)
    virtual = in_virtual_time(problem, Stock(problem, seed=3))
    course = [(trial.params, trial.measured) for trial in virtual.trials.values()]
    tune_course = []
    for result in results:
        assert result.config is not None
        assert result.metrics is not None
        params = canonical_point(problem.space, result.config)
        tune_course.append((params, result.metrics["training_iteration"]))
    assert tune_course == course
    assert len({measured for _, measured in course}) > 2  # some were stopped, at several rungs
    best = results.get_best_result(metric=METRIC, mode="max")
    assert best.config is not None
    regret = problem.optimum - problem.truth(best.config)
    assert by_last_score(problem, virtual).regret == pytest.approx(regret)


def test_stops_at_rungs_by_the_documented_rule() -> None:
    """At 1, 4, 16 reports a trial goes on if it is in the top quarter of those before it."""
    problem = GanLike(5, measurements=20)
    stock = Stock(problem, seed=1)
    before: dict[int, list[float]] = {1: [], 4: [], 16: []}
    stops = []
    for number in range(40):
        params = stock.propose(number, {})
        curve = problem.curve(number, params)
        for report, value in enumerate(curve.values, start=1):
            expected = "go_on"
            if report in before:
                others = before[report]
                if others and value < np.percentile(others, 75):
                    expected = "stop"
                others.append(value)
            expected = "stop" if report == 20 else expected
            assert stock.measured(number, curve.kimg[report - 1], value) == expected
            if expected == "stop":
                stops.append(report)
                break
        else:
            stock.broke(number)
    assert {1, 4} <= set(stops)


def test_the_search_learns_what_the_trials_were_worth() -> None:
    """With whole trainings told, proposals come closer once Optuna's ten random ones are over."""
    learnt = []
    for seed in range(5):
        problem = GanLike(seed)
        stock = Stock(problem, seed, grace_period=12)
        outcome = run(problem, stock, stock, Budget(trainings=40, workers=4))
        told = stock.search._ot_study.get_trials(deepcopy=False)
        ended = {n: t for n, t in outcome.trials.items() if t.state in ("COMPLETED", "INFEASIBLE")}
        for number, trial in ended.items():
            worth = stock.results[number][METRIC]
            assert told[number].value == worth
            assert (worth < -1000) == (trial.state == "INFEASIBLE")
        truths = [trial.truth for trial in outcome.trials.values()]
        learnt.append(np.mean(truths[-15:]) - np.mean(truths[:10]))
    assert np.mean(learnt) > 10  # nats


def test_a_space_that_branches_is_searched_too() -> None:
    problem = Plateaus(0)
    assert callable(optuna_space(problem.space))
    stock = Stock(problem, seed=2)
    outcome = in_virtual_time(problem, stock, workers=3)
    for trial in outcome.trials.values():
        assert trial.params == canonical_point(problem.space, trial.params)
    assert {trial.params["kind"] for trial in outcome.trials.values()} == set(problem.kinds)
