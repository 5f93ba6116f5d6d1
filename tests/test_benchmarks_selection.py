import json
import math
from collections.abc import Callable

import numpy as np
import pytest
from scipy import optimize, stats

from benchmarks import searches, selection
from benchmarks.gan_like import GanLike
from benchmarks.plateaus import Plateaus
from benchmarks.problem import Problem
from benchmarks.searches import ABLATIONS, SEARCHES, Budget, Choice
from benchmarks.selection_report import (
    calibration,
    difference,
    exact_interval,
    interval,
    reliability,
)
from cgan_core.streams import stream
from search.simulated_sampling import TPESampler
from search.unit_cube import point_at

BUDGET = Budget(trainings=10, workers=3)


def some_points(problem: Problem, count: int) -> list[dict[str, float | int | str | bool]]:
    rows = stream(0, "points").random((count, len(problem.space)))
    return [point_at(problem.space, row.tolist()) for row in rows]


@pytest.mark.parametrize("make", [GanLike, Plateaus])
def test_no_configuration_beats_the_optimum_and_one_reaches_it(
    make: Callable[[int], Problem],
) -> None:
    for seed in range(3):
        problem = make(seed)

        def missing(x: np.ndarray, problem: Problem = problem) -> float:
            return problem.optimum - problem.truth(point_at(problem.space, np.clip(x, 0, 1)))

        cube = [(0.0, 1.0)] * len(problem.space)
        found = optimize.differential_evolution(missing, cube, rng=0, maxiter=60, popsize=12)
        assert -1e-9 <= found.fun < 0.5
        truths = [problem.truth(point) for point in some_points(problem, 200)]
        assert max(truths) <= problem.optimum


@pytest.mark.parametrize("make", [GanLike, Plateaus])
def test_the_truth_is_the_mean_of_the_last_values(make: Callable[[int], Problem]) -> None:
    problem = make(1)
    for number, point in enumerate(some_points(problem, 4)):
        curves = [problem.curve(number, point, replicate) for replicate in range(600)]
        whole = [curve.values[-1] for curve in curves if not curve.infeasible]
        share = 1 - len(whole) / len(curves)
        if share == 1:
            continue
        truth = problem.truth(point)
        plateau = (truth + 57 * share) / (1 - share) if share else truth
        error = float(np.std(whole)) / math.sqrt(len(whole)) + 60 * math.sqrt(share / len(curves))
        assert np.mean(whole) == pytest.approx(plateau, abs=4 * error)


def test_noise_is_shared_as_it_says() -> None:
    problem = GanLike(0)
    good = point_at(problem.space, problem._best.tolist())
    first, again = problem.curve(1, good), problem.curve(1, good)
    assert list(first.values) == list(again.values)
    last = np.array([[problem.curve(n, good, r).values[-1] for r in range(400)] for n in (1, 2)])
    # Two trials share the evaluation's noise under one replicate, and nothing else.
    shared = np.cov(last)[0, 1]
    assert shared == pytest.approx(problem.evaluation_noise**2, abs=3 * 24 / math.sqrt(400))
    own = (last[0] - last[1]).std() / math.sqrt(2)
    assert own == pytest.approx(math.hypot(4, 2), rel=0.12)


@pytest.mark.parametrize("name", [*SEARCHES, *ABLATIONS])
def test_every_search_keeps_to_the_same_budget(name: str) -> None:
    search = {**SEARCHES, **ABLATIONS}[name]
    for make in (GanLike, Plateaus):
        problem = make(7)
        choice = search(problem, 7, BUDGET)
        whole = BUDGET.trainings * problem.kimg_per_trial
        # What a measurement's end comes too late for is left unspent.
        slack = BUDGET.workers * problem.measure_kimg
        assert whole - slack - 1e-6 <= choice.kimg <= whole + 1e-6
        assert choice.regret >= 0
        assert search(problem, 7, BUDGET) == choice


def test_the_confirmed_winner_is_the_one_with_the_best_fresh_seeds() -> None:
    problem = GanLike(3)
    sampler = TPESampler(problem.space, 3)
    outcome = searches.run(problem, sampler, searches.rungs(problem, "paired"), BUDGET)
    choice = searches.confirmed(problem, outcome)
    whole = sorted(
        (n for n, t in outcome.trials.items() if t.state == "COMPLETED"),
        key=lambda n: -outcome.trials[n].best,
    )[: searches.TOP]
    fresh = {
        n: np.mean([max(problem.curve(n, outcome.trials[n].params, r).values) for r in (1, 2)])
        for n in whole
    }
    winner = max(fresh, key=lambda n: float(fresh[n]))
    assert choice.regret == problem.optimum - outcome.trials[winner].truth


def test_differences_are_paired_and_have_students_interval() -> None:
    left, right = [1.0, 2.0, 4.0], [2.0, 2.5, 7.0]
    paired = stats.ttest_rel(left, right).confidence_interval(0.95)
    found = difference(left, right)
    assert found["mean"] == pytest.approx(-1.5)
    assert found["interval"] == pytest.approx([paired.low, paired.high])
    assert interval([1.0]) is None


def test_reliability_counts_every_claim_once() -> None:
    claims = [(0.4, 0.0), (0.55, 1.0), (0.55, 0.0), (0.95, 1.0), (1.0, 1.0)]
    rows = reliability(claims)
    assert [row["count"] for row in rows] == [1, 2, 2]
    assert [row["observed"] for row in rows] == [0.0, 0.5, 1.0]
    assert calibration(claims)["error"] == pytest.approx((0.4 + 2 * 0.05 + 2 * 0.025) / 5)


def test_proportions_have_the_exact_interval() -> None:
    for hits, count in ((0, 5), (3, 7), (9, 9)):
        exact = stats.binomtest(hits, count).proportion_ci(0.95)
        assert exact_interval(hits, count) == pytest.approx([exact.low, exact.high])


def test_true_claims_have_the_error_that_chance_gives() -> None:
    rng = stream(0, "claims")
    errors, chance = [], []
    for _ in range(40):
        claimed = rng.uniform(0.4, 1.0, 200)
        claims = list(
            zip(claimed.tolist(), (rng.random(200) < claimed).astype(float).tolist(), strict=True)
        )
        found = calibration(claims)
        errors.append(found["error"])
        chance.append(found["error_by_chance"])
    assert np.mean(errors) == pytest.approx(np.mean(chance), rel=0.2)


def test_prints_one_json_object(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--studies", "2", "--trainings", "9", "--processes", "1"]
    selection.main([*arguments, "--objective", "benchmarks.plateaus:Plateaus", "--json"])
    found = json.loads(capsys.readouterr().out)
    assert set(found["mean_regret"]) == {"ours", "stock", "random"}
    assert set(found["difference"]) == {"stock", "random"}
    assert sum(row["count"] for row in found["reliability"]) == 2
    selection.main(arguments)
    assert "ours - it" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments",
    [["--objective", "nowhere:Nothing"], ["--trainings", "6"], ["--studies", "1"]],
)
def test_nonsense_is_refused(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as end:
        selection.main(arguments)
    assert end.value.code != 0


def test_a_choice_says_what_it_claims_only_where_it_confirmed() -> None:
    choice: Choice = SEARCHES["random"](GanLike(1), 1, BUDGET)
    assert choice.probability is None
    assert choice.curse is None
