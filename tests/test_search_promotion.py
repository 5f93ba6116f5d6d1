from search.promotion import promote
from search.scheduling import Course

RUNGS = (1.0, 3.0)


def at(kimg: float, value: float, *, feasible: bool = True) -> Course:
    return Course(points=((kimg, value),), feasible=feasible)


def test_nobody_is_promoted_before_one_in_so_many_may() -> None:
    courses = {0: at(1.0, 5.0), 1: at(1.0, 9.0)}
    assert promote(courses, {}, RUNGS, 3) is None
    assert promote({**courses, 2: at(1.0, 1.0)}, {}, RUNGS, 3) == (1, 0)


def test_a_promoted_trial_holds_its_place() -> None:
    courses = {n: at(1.0, float(n)) for n in range(3)}
    assert promote(courses, {2: 1}, RUNGS, 3) is None
    more = courses | {n: at(1.0, float(-n)) for n in range(3, 6)}
    assert promote(more, {2: 1}, RUNGS, 3) == (1, 0)


def test_the_highest_rung_comes_first() -> None:
    below = {n: at(1.0, 100.0 + n) for n in range(4)}
    above = {n: at(3.0, float(n)) for n in range(4, 6)}
    passed = dict.fromkeys(above, 1)
    assert promote({**below, **above}, passed, RUNGS, 2) == (5, 1)
    assert promote({**below, **above}, {**passed, 5: 2}, RUNGS, 2) == (3, 0)


def test_of_equals_the_lowest_number_goes_first() -> None:
    courses = {n: at(1.0, 7.0) for n in (3, 1, 2)}
    assert promote(courses, {}, RUNGS, 3) == (1, 0)


def test_the_broken_fill_the_rung_but_are_not_promoted() -> None:
    courses = {0: at(1.0, 9.0, feasible=False), 1: at(1.0, 1.0), 2: at(1.0, 0.0)}
    assert promote(courses, {}, RUNGS, 3) == (1, 0)
    assert promote({0: courses[0], 1: courses[0], 2: courses[0]}, {}, RUNGS, 3) is None
