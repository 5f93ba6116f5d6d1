import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from search.median import MIN_OTHERS, below_median, decide_by_median
from search.scheduling import Course

VALUES = st.floats(-1e3, 1e3)


def course(*values: float, feasible: bool = True) -> Course:
    points = tuple((100.0 * (place + 1), value) for place, value in enumerate(values))
    return Course(points=points, feasible=feasible)


@given(VALUES, st.lists(VALUES, min_size=MIN_OTHERS))
def test_the_median_is_that_of_python(best: float, others: list[float]) -> None:
    assert below_median(best, sorted(others)) == (best < statistics.median(others))


def test_a_trial_is_held_to_the_means_of_the_others_up_to_its_own_point() -> None:
    others = {1: course(0, 10, 999), 2: course(2, 12), 3: course(4, 14, -999)}  # means 5, 7, 9
    assert decide_by_median(0, {0: course(6.9, 0), **others}, 100.0) == 200.0
    assert (
        decide_by_median(0, {0: course(7, 0), **others}, 100.0) is None
    )  # its best, not its mean


def test_who_has_not_come_that_far_does_not_count() -> None:
    others = {1: course(9, 9), 2: course(9, 9), 3: course(9)}
    assert decide_by_median(0, {0: course(0, 0), **others}, 100.0) is None
    assert decide_by_median(0, {0: course(0), **others}, 100.0) == 100.0


def test_nobody_is_stopped_in_the_grace() -> None:
    others = {n: course(9, 9) for n in (1, 2, 3)}
    assert decide_by_median(0, {0: course(0), **others}, 200.0) is None


@pytest.mark.parametrize("broken", [1, 2])
def test_the_infeasible_count_as_the_worst(broken: int) -> None:
    courses = {n: course(float(n), feasible=n > broken) for n in (1, 2, 3, 4)}
    stopped = decide_by_median(0, {0: course(1.9), **courses}, 100.0)
    assert (stopped is None) == (broken == 2)  # the median is 2.5, then 1.5 less than that
