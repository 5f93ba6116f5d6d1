import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate, stats

from cgan_core.streams import stream
from search.confirmation import Confirmation, Scores, confirm


def simulated(
    index: int, truth: np.ndarray, seeds: int, noise: float = 1.0, common: float = 3.0
) -> Scores:
    """Scores of configurations with these true means, with an effect common to each seed."""
    rng = stream(0, "confirmation", index)
    shared = rng.normal(0, common, seeds)
    own = truth[:, None] + shared + rng.normal(0, noise, (len(truth), seeds))
    return {number: dict(enumerate(row.tolist())) for number, row in enumerate(own)}


def probabilities(result: Confirmation) -> np.ndarray:
    """By number."""
    ordered = sorted(result.standings, key=lambda standing: standing.number)
    return np.array([standing.probability_best for standing in ordered])


def test_two_configurations_are_compared_as_by_scipys_paired_test() -> None:
    left, right = [3.0, 5.5, 4.0, 6.5], [2.0, 3.0, 4.5, 4.0]
    result = confirm({7: dict(enumerate(left)), 9: dict(enumerate(right))})
    winner, second = result.standings
    paired = stats.ttest_rel(left, right).confidence_interval(0.95)
    assert (winner.number, second.number) == (7, 9)
    assert second.interval == pytest.approx((paired.low, paired.high))
    assert second.behind == pytest.approx(np.mean(left) - np.mean(right))
    assert winner.standard_error == pytest.approx(stats.sem(left))
    assert result.degrees_of_freedom == 3
    assert winner.interval is None


def test_differences_and_noise_are_those_of_least_squares_also_where_seeds_lack() -> None:
    scores = {
        0: {0: 3.0, 1: 5.0, 2: 4.0},
        1: {0: 2.5, 2: 1.0, 3: 4.5},
        2: {1: 0.5, 3: 1.0},
        3: {0: 1.0, 1: 2.0, 2: -1.0, 3: 2.5},
    }
    result = confirm(scores)
    rows, y = [], []
    for number, own in scores.items():
        for seed, value in own.items():
            rows.append(
                [float(number == c) for c in range(4)] + [float(seed == j) for j in (1, 2, 3)]
            )
            y.append(value)
    x, target = np.array(rows), np.array(y)
    beta, squares, rank, _ = np.linalg.lstsq(x, target, rcond=None)
    left = len(y) - rank
    noise = math.sqrt(squares[0] / left)
    spread = np.linalg.inv(x.T @ x)
    best = int(np.argmax(beta[:4]))
    assert result.standings[0].number == best
    assert result.noise == pytest.approx(noise)
    assert result.degrees_of_freedom == left
    for standing in result.standings[1:]:
        apart = np.zeros(7)
        apart[best], apart[standing.number] = 1, -1
        error = noise * math.sqrt(apart @ spread @ apart)
        half = stats.t.ppf(0.975, left) * error
        assert standing.behind == pytest.approx(apart @ beta)
        assert standing.interval == pytest.approx((apart @ beta - half, apart @ beta + half))


@pytest.mark.parametrize("noise", [None, 1.5])
def test_probability_of_two_agrees_with_quadrature_of_the_model(noise: float | None) -> None:
    """For two the model is one difference d ~ N(delta, 2 s^2/m), delta ~ N(0, 2 tau^2)."""
    left, right = np.array([3.0, 5.5, 4.0]), np.array([2.0, 3.0, 3.5])
    m, d = 3, float(np.mean(left - right))
    residual = float(np.var(left - right, ddof=1)) * 2 / 2  # of the differences, halved: 2 df

    def given_shrinkage(b: float) -> tuple[float, float]:
        squares = residual + m * b * d**2 / 2
        if noise is None:  # f = 2, d = 1: t with 3 degrees of freedom
            scale = math.sqrt(squares / 3 * 2 * (1 - b) / m)
            return b**0.5 * squares**-1.5, float(stats.t.cdf((1 - b) * d / scale, 3))
        sd = math.sqrt(2 * (1 - b) / m) * noise
        weight = b**0.5 * math.exp(-squares / 2 / noise**2)
        return weight, float(stats.norm.cdf((1 - b) * d / sd))

    def product(b: float) -> float:
        weight, probability = given_shrinkage(b)
        return weight * probability

    above = integrate.quad(product, 0, 1)[0]
    expected = above / integrate.quad(lambda b: given_shrinkage(b)[0], 0, 1)[0]
    result = confirm({0: dict(enumerate(left)), 1: dict(enumerate(right))}, noise)
    assert probabilities(result)[0] == pytest.approx(expected, abs=0.003)


@pytest.mark.parametrize(("count", "seeds"), [(2, 3), (3, 2), (5, 4)])
def test_equals_are_best_with_one_chance_in_so_many(count: int, seeds: int) -> None:
    results = [confirm(simulated(i, np.zeros(count), seeds)) for i in range(300)]
    means = np.mean([probabilities(result) for result in results], axis=0)
    assert means == pytest.approx(np.full(count, 1 / count), abs=0.06)
    # Who comes out first was luck: it may not be claimed much more surely than it is true.
    claimed = np.mean([r.winner.probability_best for r in results if r.winner])
    assert claimed < 1 / count + 0.27


@pytest.mark.parametrize("spread", [0.5, 1.0, 3.0])
def test_claims_are_calibrated_where_means_are_normal(spread: float) -> None:
    claimed, true = [], []
    for index in range(300):
        truth = stream(1, "means", index).normal(0, spread, 3)
        winner = confirm(simulated(index, truth, 3)).winner
        assert winner is not None
        claimed.append(winner.probability_best)
        true.append(winner.number == int(truth.argmax()))
    error = math.sqrt(0.25 / len(true))
    assert np.mean(claimed) == pytest.approx(np.mean(true), abs=3 * error + 0.05)


def test_intervals_cover_the_truth_as_often_as_they_say() -> None:
    truth = np.array([20.0, 5.0, 0.0])  # apart, so that the winner is not chosen by luck
    hits = []
    for index in range(300):
        for standing in confirm(simulated(index, truth, 3)).standings[1:]:
            assert standing.interval is not None
            low, high = standing.interval
            hits.append(low <= truth[0] - truth[standing.number] <= high)
    assert np.mean(hits) == pytest.approx(0.95, abs=0.025)


def test_limits() -> None:
    far = confirm(simulated(0, np.array([0.0, 1000.0, 0.0]), 3))
    assert far.standings[0].number == 1
    assert far.standings[0].probability_best > 0.99
    sure = confirm({0: {0: 1.0, 1: 2.0}, 1: {0: 1.5, 1: 2.5}})  # seeds differ, never otherwise
    assert [s.probability_best for s in sure.standings] == [1.0, 0.0]
    assert sure.standings[1].interval == pytest.approx((0.5, 0.5))
    equal = confirm({n: {0: 1.0, 1: 1.0} for n in range(4)})
    assert [s.probability_best for s in equal.standings] == [0.25] * 4
    assert [s.number for s in equal.standings] == [0, 1, 2, 3]


def test_one_configuration_is_the_best_of_itself() -> None:
    result = confirm({5: {0: 1.0, 1: 3.0}})
    assert result.winner is not None
    assert (result.winner.mean, result.winner.probability_best) == (2.0, 1.0)
    assert result.winner.standard_error == pytest.approx(1.0)
    assert result.noise is None


def test_a_diverged_seed_bars_from_winning() -> None:
    scores = {
        3: {0: 90.0, 1: -math.inf},
        4: {0: 10.0, 1: 11.0},
        5: {0: 9.0, 1: 12.0},
        6: {0: -math.inf, 1: -math.inf},
    }
    result = confirm(scores)
    assert [s.number for s in result.standings] == [4, 5, 3, 6]
    assert [s.diverged for s in result.standings] == [0, 0, 1, 2]
    assert [s.probability_best for s in result.standings[2:]] == [0.0, 0.0]
    assert result.standings[2].mean == -math.inf
    without = confirm({4: scores[4], 5: scores[5]})
    assert result.standings[:2] == without.standings
    assert confirm({1: {0: -math.inf}}).winner is None


def test_one_seed_needs_a_known_noise() -> None:
    scores = {0: {0: 5.0}, 1: {0: 3.0}, 2: {0: 1.0}}
    with pytest.raises(ValueError, match="`noise` must be given"):
        confirm(scores)
    result = confirm(scores, noise=2.0)
    half = 1.959964 * 2 * math.sqrt(2)
    assert result.standings[1].interval == pytest.approx((2 - half, 2 + half))
    assert result.standings[0].standard_error is None
    assert 1 / 3 < result.standings[0].probability_best < 0.8
    surer = confirm(scores, noise=0.2)
    assert surer.standings[0].probability_best > 0.99


@pytest.mark.parametrize(
    ("scores", "noise", "message"),
    [
        ({}, None, "must hold a seed"),
        ({0: {}}, None, "must hold a seed"),
        ({0: {0: 1.0}, 1: {0: 2.0}}, 0.0, "noise > 0"),
        ({0: {0: 1.0, 1: 2.0}, 1: {2: 2.0, 3: 1.0}}, None, "share none"),
    ],
)
def test_what_cannot_be_compared_is_refused(
    scores: Scores, noise: float | None, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        confirm(scores, noise)


@given(
    st.lists(st.lists(st.floats(-100, 100), min_size=3, max_size=3), min_size=2, max_size=5),
    st.floats(-50, 50),
)
def test_laws(table: list[list[float]], shift: float) -> None:
    scores = {number: dict(enumerate(row)) for number, row in enumerate(table)}
    result = confirm(scores)
    chances = [s.probability_best for s in result.standings]
    assert sum(chances) == pytest.approx(1)
    means = [s.mean for s in result.standings]
    assert means == pytest.approx(sorted(means, reverse=True), abs=1e-6)
    # What a seed means to all alike changes no comparison.
    moved = {n: {j: y + shift * j for j, y in own.items()} for n, own in scores.items()}
    again = confirm(moved)
    behind = {s.number: s.behind for s in result.standings}
    if len({round(mean, 6) for mean in means}) == len(means):
        for standing in again.standings:
            assert standing.behind == pytest.approx(behind[standing.number], abs=1e-6)
