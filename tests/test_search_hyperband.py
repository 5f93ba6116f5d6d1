from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from search.hyperband import Bracket, bracket_of, bracket_table, decide_in_bracket, make_brackets
from search.scheduling import Course


def test_the_brackets_are_those_of_the_paper() -> None:
    """Table 1 of Li et al. (2018): n_i and r_i for R = 81 and eta = 3, s = 4 to 0."""
    assert bracket_table(81, 3) == (
        ((81, 1), (27, 3), (9, 9), (3, 27), (1, 81)),
        ((27, 3), (9, 9), (3, 27), (1, 81)),
        ((9, 9), (3, 27), (1, 81)),
        ((6, 27), (2, 81)),
        ((5, 81),),
    )


@given(st.integers(0, 7), st.integers(2, 5))
def test_brackets_spend_alike_and_end_at_the_full_resource(power: int, factor: int) -> None:
    table = bracket_table(factor**power, factor)
    assert [len(rounds) for rounds in table] == list(range(power + 1, 0, -1))
    budget = (power + 1) * factor**power
    for rounds in table:
        assert rounds[-1][1] == factor**power
        assert all(n * r <= budget / len(rounds) + 1e-6 for n, r in rounds)
        assert all(before[0] // factor == after[0] for before, after in pairwise(rounds))


@pytest.mark.parametrize(("resource", "factor"), [(0.5, 3), (81, 1), (float("nan"), 3)])
def test_a_table_without_sense_is_refused(resource: float, factor: int) -> None:
    with pytest.raises(ValueError, match="must hold"):
        bracket_table(resource, factor)


def test_a_study_has_rungs_at_its_own_kimg() -> None:
    assert make_brackets(1000, 28783, 3, 500) == (
        Bracket(size=27, rungs=(1000, 3000, 9000)),
        Bracket(size=9, rungs=(3000, 9000)),
        Bracket(size=6, rungs=(9000,)),
        Bracket(size=4, rungs=()),
    )


def test_numbers_fill_the_brackets_in_turn() -> None:
    brackets = (Bracket(size=2, rungs=(1.0,)), Bracket(size=1, rungs=()))
    assert [bracket_of(n, brackets) for n in range(7)] == [0, 0, 1, 0, 0, 1, 0]


def test_only_the_own_bracket_counts() -> None:
    brackets = (Bracket(size=2, rungs=(1.0,)), Bracket(size=2, rungs=(1.0,)))
    courses = {n: Course(points=((1.0, float(n)), (2.0, float(n)))) for n in range(4)}
    stopped = [n for n in courses if decide_in_bracket(n, courses, brackets, 2) is not None]
    assert stopped == [0, 2]
