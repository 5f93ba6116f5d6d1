import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from search.scheduling import Course, decide, rung_levels

VALUES = st.floats(-1e6, 1e6) | st.just(-math.inf)


def flat(value: float, kimg: float = 450.0, *, feasible: bool = True) -> Course:
    return Course(points=((150.0, value), (kimg, value)), feasible=feasible)


def test_rungs_are_powers_of_the_factor_below_the_budget() -> None:
    assert rung_levels(1000, 28783, 3, 500) == (1000, 3000, 9000, 27000)
    assert rung_levels(150, 450, 3, 50) == (150,)
    assert rung_levels(450, 450, 3, 50) == ()


def test_rungs_are_rounded_up_to_measurements() -> None:
    assert rung_levels(100, 2000, 1.5, 100) == (100, 200, 300, 400, 600, 800, 1200, 1800)
    assert rung_levels(0.3, 3.0, 3, 0.1) == pytest.approx((0.3, 0.9, 2.7))


@pytest.mark.parametrize(
    ("arguments", "key"),
    [
        ((0, 10, 3, 1), "grace_kimg"),
        ((1, 10, 1, 1), "reduction_factor"),
        ((1, 10, 3, 0), "_kimg"),
    ],
)
def test_rungs_refuse_levels_that_cannot_grow(
    arguments: tuple[float, float, float, float], key: str
) -> None:
    with pytest.raises(ValueError, match=key):
        rung_levels(*arguments)


@given(st.lists(VALUES, min_size=1, max_size=30), st.integers(2, 5))
def test_one_in_so_many_survives_a_rung(values: list[float], factor: int) -> None:
    courses = {number: flat(value) for number, value in enumerate(values)}
    stopped = [n for n in courses if decide(n, courses, (150.0,), factor) is not None]
    best = max(values)
    assert all(values[n] < best for n in stopped)
    # Strictly better than a survivor means a survivor too, and no more than asked for are lost.
    assert all(values[n] < values[m] for n in stopped for m in courses if m not in stopped)
    assert len(values) - len(stopped) >= math.ceil(len(values) / factor)
    if len(set(values)) == len(values) and -math.inf not in values:
        assert len(values) - len(stopped) <= math.ceil((len(values) - 1) / factor) + 1


def test_rounding_does_not_move_the_cut_past_a_value() -> None:
    values = [*6 * [-math.inf], 0.0, 1.0, 1.0, 1.0]  # (1 - 1/3) x 9 is a hair more than 6
    courses = {number: flat(value) for number, value in enumerate(values)}
    assert decide(6, courses, (150.0,), 3) is None


@given(st.lists(VALUES, min_size=1, max_size=12))
def test_decisions_do_not_depend_on_the_order_of_trials(values: list[float]) -> None:
    courses = {number: flat(value) for number, value in enumerate(values)}
    backwards = dict(reversed(courses.items()))
    assert [decide(n, courses, (150.0,), 3) for n in courses] == [
        decide(n, backwards, (150.0,), 3) for n in courses
    ]


def test_the_only_trial_goes_on() -> None:
    assert decide(0, {0: flat(-math.inf)}, (150.0, 450.0), 3) is None


def test_before_the_first_rung_nothing_stops() -> None:
    courses = {0: Course(points=((100.0, -900.0),)), 1: flat(5.0), 2: flat(6.0)}
    assert decide(0, courses, (150.0,), 3) is None


def test_the_value_at_a_rung_is_the_best_up_to_it() -> None:
    early = Course(points=((50.0, 9.0), (150.0, 0.0), (200.0, 99.0)))
    courses = {0: early, 1: flat(8.0), 2: flat(10.0)}
    assert decide(0, courses, (150.0,), 2) is None  # 9 is the median; 99 came too late to count
    assert decide(1, courses, (150.0,), 2) == 150.0


def test_an_early_arrival_has_no_free_pass() -> None:
    first = Course(points=((150.0, -50.0),))
    assert decide(0, {0: first}, (150.0, 450.0), 3) is None  # it was judged against nobody
    later = {n: Course(points=((150.0, value),)) for n, value in ((1, -20.0), (2, -10.0))}
    moved_on = Course(points=((150.0, -50.0), (200.0, -40.0)))
    assert decide(0, {0: moved_on, **later}, (150.0, 450.0), 3) == 150.0


def test_who_leads_a_higher_rung_is_not_stopped_by_a_lower_one() -> None:
    late_bloomer = Course(points=((150.0, -50.0), (450.0, 30.0)))
    rival = Course(points=((150.0, -20.0), (450.0, 10.0)))
    sprinters = {n: Course(points=((150.0, -10.0 + n),)) for n in (2, 3, 4)}
    courses = {0: late_bloomer, 1: rival, **sprinters}
    assert decide(0, courses, (150.0, 450.0), 3) is None
    assert decide(1, courses, (150.0, 450.0), 3) == 450.0


def test_the_best_of_all_goes_on_though_its_rung_was_poor() -> None:
    # Seen: the leader of a study was stopped after 10 of 12 kimg for what it had at 4 kimg.
    risen = Course(points=((150.0, -50.0), (400.0, 5.0)))
    sprinters = {n: Course(points=((150.0, -10.0 + n),)) for n in (1, 2, 3)}
    assert decide(0, {0: risen, **sprinters}, (150.0, 450.0), 3) is None
    overtaken = {**sprinters, 4: Course(points=((150.0, 0.0), (200.0, 6.0)))}
    assert decide(0, {0: risen, **overtaken}, (150.0, 450.0), 3) == 150.0


def test_the_best_is_judged_like_all_where_it_arrives() -> None:
    arriving = Course(points=((150.0, -50.0),))
    ahead = {n: Course(points=((150.0, -40.0 + n),)) for n in (1, 2, 3)}
    assert decide(0, {0: arriving, **ahead}, (150.0,), 3) == 150.0


def test_the_infeasible_count_at_the_rungs_they_would_have_met() -> None:
    broken = {n: Course(points=((50.0, 99.0),), feasible=False) for n in (1, 2, 3)}
    assert decide(0, {0: flat(-5.0), **broken}, (150.0,), 3) is None
    courses = {0: flat(-5.0), 4: flat(-6.0), 5: flat(-7.0), **broken}
    assert decide(4, courses, (150.0,), 3) is None  # third of six
    feasible_only = {n: one for n, one in courses.items() if one.feasible}
    assert decide(4, feasible_only, (150.0,), 3) == 150.0
    assert decide(4, courses, (150.0, 450.0), 3) == 450.0  # they never came near the second rung
