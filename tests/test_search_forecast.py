"""Simulated studies against sums that can be done by hand."""

import math
from itertools import pairwise
from statistics import fmean
from typing import Any

import numpy as np
import pytest
from hand_study import ASHA, NOBODY_STOPS, STEADY, cost, spec

from cgan_core.streams import stream
from search.alternatives import alternatives, surer, wider
from search.calibration import Calibration
from search.domains import Params
from search.forecast import ForecastStudy, forecast, interval, part_of, regret_ratio
from search.learning_curves import ClosedFormCurves
from search.retraining import ONE_TRAINING, confirm, finish, race
from search.simulation import Outcome
from search.study import StudySpec


def of(study: StudySpec, concurrent: int = 2, studies: int = 3) -> tuple[ForecastStudy, ...]:
    return forecast(study, STEADY, cost(study, concurrent), studies)


def seconds(study: StudySpec, concurrent: int = 2) -> float:
    found = {one.seconds for one in of(study, concurrent)}
    assert len(found) == 1
    return found.pop()


@pytest.mark.parametrize("concurrent", [1, 2, 3, 6, 8])
def test_where_nobody_is_stopped_time_is_the_trials_over_the_places(concurrent: int) -> None:
    assert seconds(spec(6, NOBODY_STOPS), concurrent) == math.ceil(6 / concurrent) * 80
    assert of(spec(6, NOBODY_STOPS))[0].device_seconds == 6 * 80
    assert of(spec(6, NOBODY_STOPS))[0].completed == 6


@pytest.mark.parametrize(("seeds", "concurrent"), [(2, 2), (3, 2), (2, 3), (4, 2), (3, 6)])
def test_replicates_keep_the_machine_busy(seeds: int, concurrent: int) -> None:
    study = spec(12, NOBODY_STOPS, replication={"seeds": seeds})
    found = of(study, concurrent)[0]
    assert found.seconds == pytest.approx(12 * seeds * 80 / concurrent)
    assert found.device_seconds == pytest.approx(12 * seeds * 80)


def test_confirmation_is_counted() -> None:
    study = spec(6, NOBODY_STOPS, confirm={"top": 3, "seeds": 3})
    assert seconds(study) == 3 * 80 + math.ceil(9 / 2) * 80
    assert of(study)[0].device_seconds == (6 + 9) * 80
    assert cost(study).confirm_runs == 9
    assert cost(study).confirm_seconds == 5 * 80
    # A trial can be confirmed once: of two, two.
    assert cost(spec(2, NOBODY_STOPS, confirm={"top": 3, "seeds": 3})).confirm_runs == 6


def test_the_time_budget_ends_the_search_and_leaves_time_to_confirm() -> None:
    study = spec(6, NOBODY_STOPS, time=160.0)
    found = of(study)[0]
    assert (found.seconds, found.begun, found.completed, found.cut_short) == (160, 6, 4, True)
    study = spec(6, NOBODY_STOPS, time=200.0, confirm={"top": 1, "seeds": 2})
    found = of(study)[0]  # 80 s are kept back: two trials end, two are cut off
    assert (found.seconds, found.begun, found.completed, found.cut_short) == (200, 4, 2, True)


def test_studies_train_at_the_paces_that_were_measured() -> None:
    quick = Calibration(
        seconds_per_kimg=1.0,
        seconds_per_measurement=2.0,
        state_bytes=0,
        generator_bytes=0,
        paces=(0.5, 2.0),
    )
    study = spec(6, NOBODY_STOPS)
    found = forecast(study, quick, cost(study), 20)
    assert {one.seconds for one in found} == {120.0, 480.0}
    assert interval([one.seconds for one in found]) == (120.0, 480.0)


def test_halving_lies_between_the_fewest_and_all() -> None:
    study = spec(27, ASHA)
    for one in of(study, studies=10):
        assert cost(study).trial_seconds <= one.seconds <= 27 * 80 / 2
        assert 27 * 4 * 2 <= one.device_seconds < 27 * 80
        assert 1 <= one.completed < 27


def test_a_share_of_a_large_study_takes_its_time() -> None:
    study = spec(4_000, NOBODY_STOPS)
    assert part_of(study) == pytest.approx(1 / 20)
    found = of(study, concurrent=1_000, studies=1)[0]
    assert found.seconds == pytest.approx(4 * 80)
    assert (found.begun, found.completed) == (4_000, 4_000)
    assert found.device_seconds == pytest.approx(4_000 * 80)


def test_a_ratio_of_regrets_is_that_of_their_means() -> None:
    plan = of(spec(9, ASHA), studies=8)
    assert regret_ratio(plan, plan) == pytest.approx((1, 1, 1))
    none = of(spec(9, ASHA, time=1.0), studies=8)  # over before anything was measured
    assert regret_ratio(none, plan) is None
    other = of(spec(3, ASHA), studies=8)
    found = regret_ratio(other, plan)
    assert found is not None
    ratio, low, high = found
    assert ratio == pytest.approx(fmean(o.regret for o in other) / fmean(p.regret for p in plan))
    assert low <= ratio <= high


def test_curves_that_end_early_are_worth_what_they_score_there() -> None:
    params: Params = {"learning_rate": 0.01, "d_dropout": 0.3, "momentum": 0.5, "units": 1000}
    whole = ClosedFormCurves(noise=0.0, seed_noise=0.0, kimg_per_trial=40.0)
    half = ClosedFormCurves(noise=0.0, seed_noise=0.0, kimg_per_trial=20.0, full_kimg=40.0)
    curve, early = whole.curve(0, params), half.curve(0, params)
    assert early.values == pytest.approx(curve.values[:20])
    assert early.truth == pytest.approx(curve.values[19])
    assert curve.truth == curve.values[-1] == -100  # (log10 a + 1)^2 = 1, all else at its best
    assert all(before < after for before, after in pairwise(curve.values))


@pytest.mark.parametrize(
    "scheduler",
    [
        NOBODY_STOPS,
        ASHA,
        ASHA | {"mode": "promotion"},
        ASHA | {"kind": "hyperband"},
        ASHA | {"kind": "median"},
        ASHA | {"paired": True},
    ],
)
def test_alternatives_take_the_time_of_the_plan(scheduler: dict[str, Any]) -> None:
    study = spec(24, scheduler)
    plan = of(study, studies=20)
    for other in alternatives(study, STEADY, cost(study), plan):
        took = fmean(one.seconds for one in other.forecast)
        # One trial more or less is what cannot be helped, and what chance does to rungs.
        assert took == pytest.approx(fmean(one.seconds for one in plan), rel=0.25)


def test_alternatives_of_any_study_are_studies() -> None:
    for trials, sections in (
        (1, {}),
        (2, {"replication": {"seeds": 3, "adaptive": True}}),
        (1, {"time": 1.0}),
    ):
        study = spec(trials, ASHA, **sections)
        first, second = alternatives(study, STEADY, cost(study), of(study))
        assert first.spec.replication.seeds >= 2
        assert min(first.spec.budget.trials, second.spec.budget.trials) >= 1
    assert surer(spec(6, ASHA), 3).replication.seeds == 2
    assert surer(spec(6, ASHA, replication={"seeds": 3, "adaptive": True}), 3).replication == (
        surer(spec(6, ASHA), 3).replication
    )
    shorter = wider(spec(6, ASHA), 12)
    assert (shorter.budget.kimg_per_trial, shorter.budget.trials) == (20.0, 12)
    assert shorter.scheduler.grace_kimg == 2.0
    assert wider(shorter, 1).scheduler.grace_kimg == 2.0  # no lower than one measurement


def test_racing_spends_its_seeds_only_on_those_that_are_close() -> None:
    study = spec(3, NOBODY_STOPS, replication={"seeds": 4, "adaptive": True})
    far = {0: 0.0, 1: -1000.0, 2: -2000.0}
    scores = {number: [truth] for number, truth in far.items()}
    # Two runs show what chance is, a third trial is never raced.
    assert race(study, scores, far, stream(0, "race")) <= 2 * 3
    assert len(scores[2]) == 1
    same = dict.fromkeys(range(3), 0.0)
    scores = {number: [0.0] for number in same}
    assert race(study, scores, same, stream(0, "race")) <= 3 * 3
    assert max(map(len, scores.values())) <= 4
    folded = spec(3, NOBODY_STOPS, replication={"seeds": 2, "folds": 2, "adaptive": True})
    scores = {number: [0.0] for number in same}
    assert race(folded, scores, same, stream(0, "race")) % 2 == 0


def test_confirmation_finds_the_better_of_two_as_often_as_its_noise_lets_it() -> None:
    study = spec(3, NOBODY_STOPS, confirm={"top": 2, "seeds": 4})
    truths = {0: 0.0, 1: ONE_TRAINING / 2, 2: 1000.0}
    means = {0: 1.0, 1: 0.0, 2: -1.0}  # the best by far did not look it
    rng = stream(0, "confirm")
    wins = fmean(confirm(study, means, truths, rng) == 1 for _ in range(2_000))
    # P(N(1/2, 2/4) > 0) in units of one training's noise.
    expected = 0.5 * math.erfc(-0.5 / math.sqrt(0.5) / math.sqrt(2))
    assert wins == pytest.approx(expected, abs=4 * math.sqrt(0.25 / 2_000))


def test_without_more_trainings_the_search_has_the_last_word() -> None:
    search = Outcome(trials={}, optimum=0.0, incumbents=[(1.0, 7.0)])
    assert finish(spec(3, NOBODY_STOPS), search, np.random.default_rng(0)).regret == 7.0
