"""The searches that `benchmarks.selection` compares, each on one problem for one budget."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from benchmarks.problem import Problem
from benchmarks.stock import Stock
from search.confirmation import Scores, confirm
from search.domains import Params
from search.learning_curves import LearningCurve
from search.pruners import NoPruner, Pruner
from search.simulated_pruning import make_pruner
from search.simulated_sampling import RandomSampler, TPESampler
from search.simulation import Outcome, Sampler, SimulatedTrial, Simulation
from search.winners_curse import upper_spread, winners_curse

ALL_TRIALS = 10**6  # more than any budget here lasts for
GRACE_SHARE, REDUCTION_FACTOR = 0.25, 3
SCHEDULER = "paired"
TOP, SEEDS = 3, 2


@dataclass(frozen=True, kw_only=True)
class Budget:
    """What a search may spend.

    Attributes:
        trainings: Full trainings' worth of kimg, replicates and confirmation included.
        workers: How many train at a time.
    """

    trainings: float
    workers: int


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What a search came to, in the problem's unit.

    Attributes:
        regret: How much less than the optimum its winner is worth.
        regret_of_best: The same of the trial with the best score at any time of the search.
        kimg: Training of all trials.
        trials: How many there were.
        probability: That the winner is the best of those confirmed, as claimed.
        share_of_best: 1 if it is, 0 if not; of so many equals that are the best, its share.
        expected_curse: How much the best score of the search was expected to exceed the mean of
            that configuration's fresh seeds.
        curse: How much it did.
    """

    regret: float
    regret_of_best: float
    kimg: float
    trials: int
    probability: float | None = None
    share_of_best: float | None = None
    expected_curse: float | None = None
    curse: float | None = None


Search = Callable[[Problem, int, Budget], Choice]


def ours(problem: Problem, seed: int, budget: Budget) -> Choice:
    """TPE over rungs, then the best few on fresh seeds, which is paid for from the same budget."""
    left = replace(budget, trainings=budget.trainings - TOP * SEEDS)
    sampler = TPESampler(problem.space, seed)
    outcome = run(problem, sampler, rungs(problem, SCHEDULER), left)
    return confirmed(problem, outcome)


def unconfirmed(problem: Problem, seed: int, budget: Budget) -> Choice:
    """Ours with all of the budget spent on the search, whose best score wins."""
    sampler = TPESampler(problem.space, seed)
    outcome = run(problem, sampler, rungs(problem, SCHEDULER), budget)
    return by_best_score(problem, outcome)


def unpaired(problem: Problem, seed: int, budget: Budget) -> Choice:
    """Ours with rungs that take every difference for real."""
    left = replace(budget, trainings=budget.trainings - TOP * SEEDS)
    outcome = run(problem, TPESampler(problem.space, seed), rungs(problem, "asha"), left)
    return confirmed(problem, outcome)


def stock(problem: Problem, seed: int, budget: Budget) -> Choice:
    """`OptunaSearch` and `ASHAScheduler` with their defaults, the best last score wins."""
    ray = Stock(problem, seed)
    return by_last_score(problem, run(problem, ray, ray, budget))


def stock_with_our_rungs(problem: Problem, seed: int, budget: Budget) -> Choice:
    """The same with our first rung and factor."""
    grace = math.ceil(GRACE_SHARE * problem.kimg_per_trial / problem.measure_kimg)
    ray = Stock(problem, seed, grace_period=grace, reduction_factor=REDUCTION_FACTOR)
    return by_last_score(problem, run(problem, ray, ray, budget))


def at_random(problem: Problem, seed: int, budget: Budget) -> Choice:
    """Random search without stopping, the best last score wins."""
    outcome = run(problem, RandomSampler(problem.space, seed), NoPruner(), budget)
    return by_last_score(problem, outcome)


SEARCHES: Mapping[str, Search] = {"ours": ours, "stock": stock, "random": at_random}
ABLATIONS: Mapping[str, Search] = {
    "unconfirmed": unconfirmed,
    "unpaired": unpaired,
    "stock_with_our_rungs": stock_with_our_rungs,
}


def rungs(problem: Problem, scheduler: str) -> Pruner:
    """Our rule by name, with the first rung at a quarter of a training and factor 3."""
    grace = GRACE_SHARE * problem.kimg_per_trial
    return make_pruner(scheduler, problem, grace, REDUCTION_FACTOR)


def run(problem: Problem, sampler: Sampler, pruner: Pruner, budget: Budget) -> Outcome:
    """Searches until the budget's kimg are trained."""
    limit = budget.trainings * problem.kimg_per_trial / budget.workers
    return Simulation(
        _InKimg(problem),
        sampler,
        pruner,
        workers=budget.workers,
        num_trials=ALL_TRIALS,
        limit_seconds=limit * (1 + 1e-9),
    ).run()


def confirmed(problem: Problem, outcome: Outcome) -> Choice:
    """Trains the best `TOP` trials on `SEEDS` fresh seeds each; their mean says who wins."""
    finalists = _finalists(outcome)
    scores = {
        n: {r: fresh_score(problem, n, trial.params, r) for r in range(1, SEEDS + 1)}
        for n, trial in finalists.items()
    }
    result = confirm(scores)
    kimg = _kimg(outcome) + TOP * SEEDS * problem.kimg_per_trial
    if result.winner is None:
        return replace(by_best_score(problem, outcome), kimg=kimg)
    truths = {n: trial.truth for n, trial in finalists.items()}
    winner = result.winner
    best = [n for n, truth in truths.items() if truth == max(truths.values())]
    expected, found = _curse(outcome, scores, result.noise)
    return Choice(
        regret=problem.optimum - truths[winner.number],
        regret_of_best=outcome.regret,
        kimg=kimg,
        trials=len(outcome.trials),
        probability=winner.probability_best,
        share_of_best=best.count(winner.number) / len(best),
        expected_curse=expected,
        curse=found,
    )


def fresh_score(problem: Problem, number: int, params: Params, replicate: int) -> float:
    """A trial's objective under another seed: its best measurement; minus infinity if it broke."""
    curve = problem.curve(number, params, replicate)
    return -math.inf if curve.infeasible else max(curve.values)


def by_best_score(problem: Problem, outcome: Outcome) -> Choice:
    """The trial with the best measurement wins, as in our ledger."""
    regret = outcome.regret
    return Choice(
        regret=regret, regret_of_best=regret, kimg=_kimg(outcome), trials=len(outcome.trials)
    )


def by_last_score(problem: Problem, outcome: Outcome) -> Choice:
    """The trial with the best last report wins: `ResultGrid.get_best_result` by default."""
    last = {
        number: problem.curve(number, trial.params).values[trial.measured - 1]
        for number, trial in outcome.trials.items()
        if trial.measured and trial.state != "INFEASIBLE"
    }
    winner = outcome.trials[max(last, key=lambda number: last[number])]
    return Choice(
        regret=problem.optimum - winner.truth,
        regret_of_best=outcome.regret,
        kimg=_kimg(outcome),
        trials=len(outcome.trials),
    )


def _finalists(outcome: Outcome) -> dict[int, SimulatedTrial]:
    """The best trials that were trained in full; the others only where those are too few."""

    def merit(number: int) -> tuple[bool, float, int]:
        trial = outcome.trials[number]
        return (trial.state == "COMPLETED", trial.best, -number)

    able = [n for n, t in outcome.trials.items() if t.state != "INFEASIBLE" and t.measured]
    return {n: outcome.trials[n] for n in sorted(able, key=merit, reverse=True)[:TOP]}


def _curse(
    outcome: Outcome, scores: Scores, noise: float | None
) -> tuple[float | None, float | None]:
    """How much the search's best score should exceed its fresh ones, and how much it does."""
    whole = [trial.best for trial in outcome.trials.values() if trial.state == "COMPLETED"]
    first = next(iter(scores))
    fresh = list(scores[first].values())
    if noise is None or len(whole) < 2 or -math.inf in fresh:
        return None, None
    found = outcome.trials[first].best - sum(fresh) / len(fresh)
    return winners_curse(len(whole), noise, upper_spread(whole)), found


def _kimg(outcome: Outcome) -> float:
    return math.fsum(trial.kimg for trial in outcome.trials.values())


class _InKimg:
    """A problem whose time is its kimg, the currency of budgets here."""

    def __init__(self, problem: Problem) -> None:
        self._problem = problem
        self.space, self.optimum = problem.space, problem.optimum
        self.kimg_per_trial, self.measure_kimg = problem.kimg_per_trial, problem.measure_kimg

    def curve(self, number: int, params: Params) -> LearningCurve:
        curve = self._problem.curve(number, params)
        return replace(curve, seconds=curve.kimg)

    def standard_error(self, number: int, rival: int, rung: float) -> float | None:
        return self._problem.standard_error(number, rival, rung)
