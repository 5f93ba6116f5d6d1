"""Each pruner against the pure function that the real search decides by."""

import math
from collections.abc import Callable, Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from search.hyperband import Bracket, decide_in_bracket
from search.median import decide_by_median
from search.promotion import promote
from search.pruners import (
    HalvingPruner,
    HyperbandPruner,
    MedianPruner,
    NoPruner,
    PromotionPruner,
    Pruner,
)
from search.scheduling import Course, decide

RUNGS = (1.0, 3.0, 5.0)
BRACKETS = (Bracket(size=3, rungs=(1.0, 3.0)), Bracket(size=2, rungs=(3.0,)))
VALUES = st.integers(-3, 3).map(float) | st.floats(-9, 9) | st.just(-math.inf)
# Who is measured next and at what value; None: it breaks.
STEPS = st.lists(st.tuples(st.integers(0, 9), VALUES | st.none()), min_size=1, max_size=60)

Courses = dict[int, Course]
Decide = Callable[[int, Mapping[int, Course]], float | None]


def error(number: int, rival: int, rung: float) -> float | None:
    """A standard error that depends on the pair, for some unknown."""
    return None if (number + rival) % 5 == 0 else (number * 7 + rival) % 4 + rung / 8


RULES: dict[str, tuple[Callable[[], Pruner], Decide]] = {
    "asha": (lambda: HalvingPruner(RUNGS, 3), lambda n, c: decide(n, c, RUNGS, 3)),
    "paired": (
        lambda: HalvingPruner(RUNGS, 2, error),
        lambda n, c: decide(n, c, RUNGS, 2, error),
    ),
    "hyperband": (
        lambda: HyperbandPruner(BRACKETS, 2),
        lambda n, c: decide_in_bracket(n, c, BRACKETS, 2),
    ),
    "median": (lambda: MedianPruner(2.0), lambda n, c: decide_by_median(n, c, 2.0)),
}


def measured(courses: Courses, number: int, value: float) -> float:
    """Adds a measurement one kimg on."""
    points = courses[number].points if number in courses else ()
    kimg = len(points) + 1.0
    courses[number] = Course(points=(*points, (kimg, value)))
    return kimg


def broken(courses: Courses, number: int) -> None:
    points = courses[number].points if number in courses else ()
    courses[number] = Course(points=points, feasible=False)


@pytest.mark.parametrize("name", RULES)
@given(steps=STEPS)
def test_the_fast_form_decides_as_the_plain_one(
    name: str, steps: list[tuple[int, float | None]]
) -> None:
    make, plain = RULES[name]
    pruner, courses, ended = make(), dict[int, Course](), set[int]()
    for number, value in steps:
        if number in ended:
            continue
        if value is None:
            broken(courses, number)
            pruner.broke(number)
            ended.add(number)
            continue
        kimg = measured(courses, number, value)
        verdict = pruner.measured(number, kimg, value)
        assert (verdict == "stop") == (plain(number, courses) is not None)
        if verdict == "stop":
            ended.add(number)


@given(steps=STEPS, factor=st.integers(2, 4))
def test_fast_promotion_promotes_as_the_plain_one(
    steps: list[tuple[int, float | None]], factor: int
) -> None:
    pruner, courses = PromotionPruner(RUNGS, factor), dict[int, Course]()
    passed: dict[int, int] = {}
    paused: set[int] = set()
    broke: set[int] = set()
    for number, value in steps:
        if number in broke:
            continue
        if value is None:
            broken(courses, number)
            pruner.broke(number)
            broke.add(number)
            paused.discard(number)
        elif number not in paused:
            kimg = measured(courses, number, value)
            verdict = pruner.measured(number, kimg, value)
            assert (verdict == "pause") == (kimg in RUNGS)
            if verdict == "pause":
                paused.add(number)
        promotion = promote(courses, passed, RUNGS, factor)
        assert pruner.resumed() == (None if promotion is None else promotion.number)
        if promotion is not None:
            paused.remove(promotion.number)
            passed[promotion.number] = promotion.rung + 1


@pytest.mark.parametrize("name", RULES)
@given(
    curves=st.lists(st.lists(VALUES, max_size=5), min_size=1, max_size=7),
    shuffled=st.randoms(use_true_random=False),
    last=VALUES,
)
def test_a_decision_does_not_depend_on_the_order_of_what_was_known(
    name: str, curves: list[list[float]], shuffled: object, last: float
) -> None:
    make, plain = RULES[name]
    in_turn = [n for n, curve in enumerate(curves) for _ in curve]
    mixed = list(in_turn)
    shuffled.shuffle(mixed)  # type: ignore[attr-defined]
    verdicts, answers = [], []
    for order in (in_turn, mixed):
        pruner, courses = make(), dict[int, Course]()
        for number in order:
            place = len(courses[number].points) if number in courses else 0
            value = curves[number][place]
            pruner.measured(number, measured(courses, number, value), value)
        kimg = measured(courses, 0, last)
        verdicts.append(pruner.measured(0, kimg, last))
        answers.append(plain(0, courses))
    assert verdicts[0] == verdicts[1]
    assert answers[0] == answers[1]


@pytest.mark.parametrize("name", RULES)
@given(values=st.lists(VALUES, min_size=1, max_size=8))
def test_the_only_trial_is_never_stopped(name: str, values: list[float]) -> None:
    make, plain = RULES[name]
    pruner, courses = make(), dict[int, Course]()
    for value in values:
        kimg = measured(courses, 4, value)
        assert pruner.measured(4, kimg, value) == "go_on"
        assert plain(4, courses) is None


@pytest.mark.parametrize("name", RULES)
@given(steps=STEPS)
def test_the_best_trial_of_all_is_never_stopped(
    name: str, steps: list[tuple[int, float | None]]
) -> None:
    pruner, courses = RULES[name][0](), dict[int, Course]()
    for number, value in steps:
        if value is None:
            continue
        verdict = pruner.measured(number, measured(courses, number, value), value)
        bests = {n: max(v for _, v in one.points) for n, one in courses.items()}
        if verdict == "stop":
            assert bests[number] < max(bests.values())


def test_without_a_rule_everybody_goes_on() -> None:
    pruner = NoPruner()
    assert pruner.measured(0, 1.0, -math.inf) == "go_on"
    assert pruner.resumed() is None
