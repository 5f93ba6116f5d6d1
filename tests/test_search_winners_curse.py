import math

import numpy as np
import pytest
from scipy import stats

from cgan_core.streams import stream
from search.winners_curse import expected_maximum, upper_spread, winners_curse


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (1, 0.0),
        (2, 1 / math.sqrt(math.pi)),
        (3, 1.5 / math.sqrt(math.pi)),
        (10, 1.53875),
        (100, 2.50759),
    ],
)
def test_expected_maximum_is_that_of_the_tables(count: int, expected: float) -> None:
    assert expected_maximum(count) == pytest.approx(expected, abs=1e-5)  # Harter (1961)


def test_expected_maximum_of_very_many() -> None:
    maxima = stats.norm.isf(stream(0, "uniform").exponential(size=200_000) / 1e6)
    assert expected_maximum(10**6) == pytest.approx(float(maxima.mean()), abs=0.01)


@pytest.mark.parametrize(
    ("trials", "noise", "spread"), [(60, 2.0, 0.0), (12, 3.0, 4.0), (200, 1.0, 6.0)]
)
def test_the_excess_is_that_of_simulated_searches(
    trials: int, noise: float, spread: float
) -> None:
    rng = stream(1, "searches", trials)
    truth = rng.normal(10, spread, (20_000, trials))
    scores = truth + rng.normal(0, noise, truth.shape)
    best = scores.argmax(1)[:, None]
    found = np.take_along_axis(scores - truth, best, 1).mean()
    expected = winners_curse(trials, noise, math.hypot(noise, spread))
    assert expected == pytest.approx(float(found), abs=0.05)


def test_equally_good_trials_differ_by_noise_alone() -> None:
    assert winners_curse(60, 1.4, 1.4) == pytest.approx(1.4 * expected_maximum(60))
    assert winners_curse(60, 1.4, 0.3) == winners_curse(60, 1.4, 1.4)  # a spread below the noise
    assert winners_curse(60, 0.0, 5.0) == 0.0
    assert winners_curse(1, 2.0, 5.0) == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize("bad", [(0, 1.0, 1.0), (5, -1.0, 1.0), (5, 1.0, math.inf)])
def test_nonsense_is_refused(bad: tuple[int, float, float]) -> None:
    with pytest.raises(ValueError, match="must hold"):
        winners_curse(*bad)


def test_upper_spread_is_that_of_a_normal_whatever_lies_below() -> None:
    scores = stream(2, "scores").normal(50, 4, 20_001)
    assert upper_spread(scores.tolist()) == pytest.approx(4, rel=0.03)
    poor = np.where(scores < np.median(scores), scores - 100, scores)
    assert upper_spread(poor.tolist()) == pytest.approx(upper_spread(scores.tolist()))
    with pytest.raises(ValueError, match="at least one"):
        upper_spread([])
