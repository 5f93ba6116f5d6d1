"""Races over folds: what a fold's difficulty adds to all trials alike is no chance of theirs."""

from collections.abc import Mapping, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from search.fold_effects import FoldScore, fit
from search.racing import undecided

Table = dict[int, list[FoldScore]]


def drawn(
    rng: np.random.Generator,
    truths: Sequence[float],
    rounds: Sequence[int],
    folds: int,
    difficulty: float = 50.0,
) -> Table:
    """Each trial has so many rounds of all folds, with noise of 1."""
    hard = difficulty * rng.standard_normal(folds)
    return {
        number: [
            (fold, truth + hard[fold] + rng.standard_normal())
            for _ in range(rounds[number])
            for fold in range(folds)
        ]
        for number, truth in enumerate(truths)
    }


def of_all_effects(values: Mapping[int, Sequence[FoldScore]]) -> tuple[np.ndarray, float, float]:
    """Least squares over the whole design: estimates, variance of noise over it, freedom."""
    folds = sorted({fold for own in values.values() for fold, _ in own})
    rows = [(n, fold, y) for n, own in values.items() for fold, y in own]
    trials = [[float(n == other) for other in values] for n, _, _ in rows]
    parts = [[float(fold == other) for other in folds[1:]] for _, fold, _ in rows]
    design, y = np.hstack([trials, parts]), np.array([y for *_, y in rows])
    found = np.linalg.lstsq(design, y, rcond=None)[0]
    freedom = len(y) - np.linalg.matrix_rank(design)
    return found, float(np.sum((y - design @ found) ** 2)) / freedom, freedom


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    rounds=st.lists(st.integers(1, 3), min_size=2, max_size=5),
    folds=st.integers(2, 5),
    lost=st.integers(0, 3),
)
def test_it_is_the_least_squares_of_the_additive_layout(
    seed: int, rounds: list[int], folds: int, lost: int
) -> None:
    """Also where the clock took some runs of later rounds."""
    rng = np.random.default_rng(seed)
    values = drawn(rng, rng.normal(0, 3, len(rounds)).tolist(), rounds, folds)
    for number, own in values.items():
        values[number] = own[: max(folds, len(own) - lost)]
    expected, variance, freedom = of_all_effects(values)
    effects = fit(values)
    assert effects.degrees_of_freedom == freedom
    assert effects.noise == pytest.approx(variance**0.5)
    for left in values:
        for right in values:
            apart, _ = effects.difference(left, right)
            assert apart == pytest.approx(expected[left] - expected[right], abs=1e-9)


def test_the_variance_of_a_difference_is_that_of_the_normal_equations() -> None:
    rng = np.random.default_rng(0)
    values = drawn(rng, [0.0, 1.0, 2.0], [2, 1, 3], folds=3)
    values[0].pop()
    values[2].pop(4)
    design = np.array(
        [
            [*(float(n == other) for other in values), float(fold == 1), float(fold == 2)]
            for n, own in values.items()
            for fold, _ in own
        ]
    )
    inverse = np.linalg.inv(design.T @ design)
    effects = fit(values)
    for left, right in ((0, 1), (0, 2), (2, 1)):
        contrast = np.eye(5)[left] - np.eye(5)[right]
        expected = effects.noise * (contrast @ inverse @ contrast) ** 0.5
        assert effects.difference(left, right)[1] == pytest.approx(expected)


def test_two_trials_are_told_apart_by_the_paired_t_test() -> None:
    rng = np.random.default_rng(1)
    seen = set()
    for _ in range(200):
        values = drawn(rng, [0.0, 1.5], [1, 1], folds=4)
        left, right = ([y for _, y in values[number]] for number in (0, 1))
        apart = stats.ttest_rel(left, right).pvalue < 0.1  # two-sided: either may be ahead
        assert undecided(values) == (set() if apart else {0, 1})
        seen.add(bool(apart))
    assert seen == {True, False}


@pytest.mark.parametrize("difficulty", [0.0, 50.0])
def test_the_best_is_lost_as_often_as_is_said_whatever_folds_are_worth(difficulty: float) -> None:
    """Of two equals one is declared behind in 10 %: 5 % on either side."""
    rng = np.random.default_rng(2)
    studies = 3000
    wrong = sum(
        not undecided(drawn(rng, [0.0, 0.0], [2, 1], 5, difficulty)) for _ in range(studies)
    )
    assert abs(wrong / studies - 0.1) < 3 * (0.1 * 0.9 / studies) ** 0.5


def test_a_clear_lead_ends_a_race_among_folds_of_unequal_difficulty() -> None:
    values = drawn(np.random.default_rng(3), [0.0, 10.0, 20.0], [1, 1, 1], folds=5)
    assert undecided(values) == set()


def test_equals_stay_equals() -> None:
    own = [(fold, 10.0 * fold + 0.1) for fold in range(3)]
    assert undecided({4: own, 2: own, 3: [(fold, y - 1e-6) for fold, y in own]}) == {2, 4}
