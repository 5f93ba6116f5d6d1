import math
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from search.domains import FloatDomain, Params
from search.hyperband import make_brackets
from search.learning_curves import LearningCurve
from search.pruners import (
    HalvingPruner,
    HyperbandPruner,
    MedianPruner,
    NoPruner,
    PromotionPruner,
    Pruner,
    Verdict,
)
from search.scheduling import Course, decide, rung_levels
from search.simulation import Outcome, SimulatedTrial, Simulation
from search.space import Space

RUNGS = rung_levels(1.0, 9.0, 3, 1.0)
PRUNERS: dict[str, Callable[[], Pruner]] = {
    "none": NoPruner,
    "asha": lambda: HalvingPruner(RUNGS, 3),
    "promotion": lambda: PromotionPruner(RUNGS, 3),
    "median": lambda: MedianPruner(1.0),
    "hyperband": lambda: HyperbandPruner(make_brackets(1.0, 9.0, 3, 1.0), 3),
}
VALUES = st.lists(st.floats(-9, 9), min_size=9, max_size=9)
# Values, seconds a kimg, and the measurements after which it breaks.
TRIALS = st.lists(
    st.tuples(VALUES, st.floats(0.1, 10), st.none() | st.integers(0, 9)), min_size=1, max_size=25
)
Trials = Sequence[tuple[list[float], float, int | None]]


class Table:
    """Curves by trial number, and the sampler that asks for them in turn."""

    optimum = 9.0
    kimg_per_trial, measure_kimg = 9.0, 1.0

    def __init__(self, trials: Trials) -> None:
        self.space: Space = {"x": (FloatDomain(type="float", low=0.0, high=1.0),)}
        self.trials = trials

    def propose(self, number: int, trials: Mapping[int, SimulatedTrial]) -> Params:
        assert list(trials) == list(range(number))
        return {"x": number / len(self.trials)}

    def curve(self, number: int, params: Params) -> LearningCurve:
        values, cost, broken = self.trials[number]
        kimg = [float(k + 1) for k in range(9)][:broken]
        return LearningCurve(
            kimg=kimg,
            values=values[:broken],
            seconds=[k * cost for k in kimg],
            truth=values[-1],
            infeasible=broken is not None,
        )

    def standard_error(self, number: int, rival: int, rung: float) -> float | None:
        return None


class Watched:
    """A pruner that notes what it was told."""

    def __init__(self, pruner: Pruner) -> None:
        self.pruner = pruner
        self.told: list[tuple[int, float, float]] = []
        self.stopped: dict[int, int] = {}  # by number: what had been told by then

    def measured(self, number: int, kimg: float, value: float) -> Verdict:
        self.told.append((number, kimg, value))
        verdict = self.pruner.measured(number, kimg, value)
        if verdict == "stop":
            self.stopped[number] = len(self.told)
        return verdict

    def broke(self, number: int) -> None:
        self.pruner.broke(number)

    def resumed(self, *, last: bool = False) -> int | None:
        return self.pruner.resumed(last=last)


def run(trials: Trials, pruner: Pruner, workers: int, limit: float | None = None) -> Outcome:
    table = Table(trials)
    return Simulation(
        table, table, pruner, workers=workers, num_trials=len(trials), limit_seconds=limit
    ).run()


@pytest.mark.parametrize("name", PRUNERS)
@given(trials=TRIALS, workers=st.integers(1, 30))
def test_laws_of_every_simulated_study(name: str, trials: Trials, workers: int) -> None:
    watched = Watched(PRUNERS[name]())
    outcome = run(trials, watched, workers)
    # Every trial was begun and has an end, or waits at a rung that nobody will be promoted from.
    assert list(outcome.trials) == list(range(len(trials)))
    assert outcome.count("RUNNING") == 0
    assert name == "promotion" or outcome.count("PAUSED") == 0
    # A trial's kimg ascend without a gap, and a pause loses none.
    for number, trial in outcome.trials.items():
        own = [kimg for n, kimg, _ in watched.told if n == number]
        assert own == [float(k + 1) for k in range(trial.measured)]
        assert trial.kimg == trial.measured
        broken = trials[number][2]
        assert (trial.state == "COMPLETED") == (trial.measured == 9 and broken is None)
        if trial.state == "INFEASIBLE":
            assert trial.measured == broken
    # Device-hours are the kimg trained times their cost.
    cost = math.fsum(t.kimg * trials[n][1] for n, t in outcome.trials.items())
    assert outcome.device_hours * 3600 == pytest.approx(cost)
    assert outcome.seconds <= cost * (1 + 1e-9)
    assert outcome.seconds * workers >= cost * (1 - 1e-9)
    # Virtual time goes forwards, and the leader is who measured best.
    times = [at for at, _ in outcome.incumbents]
    assert all(before <= after for before, after in pairwise(times))
    bests = {
        n: t.best for n, t in outcome.trials.items() if t.state != "INFEASIBLE" and t.measured
    }
    if bests:
        winner = max(bests, key=lambda n: (bests[n], -n))
        assert outcome.regret == 9.0 - trials[winner][0][-1]


@given(trials=TRIALS, workers=st.integers(1, 9))
def test_virtual_time_never_runs_backwards(trials: Trials, workers: int) -> None:
    times: list[float] = []

    class Clocked(Watched):
        def measured(self, number: int, kimg: float, value: float) -> Verdict:
            times.append(simulation._outcome.seconds)
            return super().measured(number, kimg, value)

    table = Table(trials)
    simulation = Simulation(
        table, table, Clocked(HalvingPruner(RUNGS, 3)), workers=workers, num_trials=len(trials)
    )
    simulation.run()
    assert times == sorted(times)


@pytest.mark.parametrize("name", PRUNERS)
@given(values=VALUES, cost=st.floats(0.1, 10), workers=st.integers(1, 3))
def test_the_only_trial_is_trained_in_full(
    name: str, values: list[float], cost: float, workers: int
) -> None:
    outcome = run([(values, cost, None)], PRUNERS[name](), workers)
    assert outcome.trials[0].state == "COMPLETED"
    assert outcome.false_kills == (0, 1)


@given(trials=TRIALS, workers=st.integers(1, 9))
def test_a_simulated_stop_is_that_of_the_real_rule(trials: Trials, workers: int) -> None:
    feasible = [(values, cost, None) for values, cost, _ in trials]
    watched = Watched(HalvingPruner(RUNGS, 3))
    run(feasible, watched, workers)
    courses: dict[int, Course] = {}
    for place, (number, kimg, value) in enumerate(watched.told, start=1):
        before = courses[number].points if number in courses else ()
        courses[number] = Course(points=(*before, (kimg, value)))
        stops = decide(number, courses, RUNGS, 3) is not None
        assert stops == (watched.stopped.get(number) == place)


def test_workers_share_the_time() -> None:
    trials = [([0.0] * 9, 1.0, None)] * 6
    assert [run(trials, NoPruner(), n).seconds for n in (1, 2, 3, 6, 9)] == [54, 27, 18, 9, 9]


def test_the_end_of_the_time_ends_everything() -> None:
    trials = [([float(n)] * 9, 1.0, None) for n in range(4)]
    outcome = run(trials, NoPruner(), 1, limit=13.0)
    assert [t.state for t in outcome.trials.values()] == ["COMPLETED", "STOPPED"]
    assert (outcome.seconds, outcome.device_hours * 3600) == (13.0, 13.0)


def test_promotion_pauses_and_takes_up_the_best() -> None:
    trials = [([-float(n)] * 9, 1.0, None) for n in range(9)]
    outcome = run(trials, PromotionPruner(RUNGS, 3), 1)
    # 9 trials come to the first rung, three of them go past it, one past the second.
    assert [t.kimg for t in outcome.trials.values()] == [9, 3, 3, 1, 1, 1, 1, 1, 1]
    assert outcome.count("PAUSED") == 8


def test_where_too_few_are_left_to_promote_the_best_is_trained_in_full() -> None:
    trials = [([float(n)] * 9, 1.0, None) for n in range(3)]
    outcome = run(trials, PromotionPruner(RUNGS, 3), 1)  # a third of one trial is none
    assert [t.kimg for t in outcome.trials.values()] == [1, 1, 9]
    assert outcome.trials[2].state == "COMPLETED"


def test_regret_over_time() -> None:
    trials = [([1.0] * 9, 1.0, None), ([3.0] * 9, 1.0, None)]
    outcome = run(trials, NoPruner(), 1)
    assert outcome.incumbents == [(1.0, 8.0), (10.0, 6.0)]
    assert outcome.mean_regret == pytest.approx((9 * 8 + 8 * 6) / 17)
    assert [outcome.regret_at(at) for at in (0.5, 1.0, 18.0)] == [math.inf, 8.0, 6.0]


def test_a_leader_that_breaks_loses_the_lead() -> None:
    trials = [([9.0] * 9, 1.0, 2), ([3.0] * 9, 1.0, None)]
    outcome = run(trials, NoPruner(), 2)
    assert outcome.trials[0].state == "INFEASIBLE"
    assert outcome.trials[1].state == "COMPLETED"
    assert outcome.regret == 6.0


def test_a_good_trial_that_was_stopped_is_a_false_kill() -> None:
    late = ([*[-9.0] * 8, 9.0], 1.0, None)
    rivals = [([float(n)] * 9, 1.0, None) for n in range(3)]
    outcome = run([late, *rivals], HalvingPruner(RUNGS, 3), 4)
    assert outcome.trials[0].state == "STOPPED"
    assert outcome.false_kills == (1, 1)
