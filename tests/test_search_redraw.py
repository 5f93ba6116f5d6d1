import statistics

import numpy as np
import pytest

from search.redraw import REDRAWS, redraw_standard_error

METRIC = "validation_log_likelihood"


def measured(first: float, second: float, metric: str = METRIC) -> dict[str, float]:
    return {metric: first, REDRAWS[metric]: second, "bandwidth": 0.2}


@pytest.mark.parametrize("metric", REDRAWS)
def test_one_pair_says_what_the_deviation_of_two_values_is(metric: str) -> None:
    found = redraw_standard_error([measured(3.0, 5.5, metric)], metric)
    assert found == pytest.approx(statistics.stdev([3.0, 5.5]))


def test_pairs_are_pooled_whatever_their_means() -> None:
    pairs = [(100.0, 103.0), (-50.0, -49.0), (7.0, 7.0)]
    within = [statistics.variance(pair) for pair in pairs]
    found = redraw_standard_error([measured(*pair) for pair in pairs], METRIC)
    assert found == pytest.approx(statistics.fmean(within) ** 0.5)


def test_it_finds_the_deviation_that_samples_have() -> None:
    rng = np.random.default_rng(0)
    pairs = rng.normal(120 + rng.normal(0, 40, (4_000, 1)), 0.9, (4_000, 2))
    found = redraw_standard_error([measured(a, b) for a, b in pairs.tolist()], METRIC)
    assert found == pytest.approx(0.9, rel=4 / 8_000**0.5)  # four standard deviations


def test_the_mean_of_runs_has_the_error_of_their_means() -> None:
    rng = np.random.default_rng(1)
    runs = rng.normal(0, 2, (2_000, 4, 2))  # measurements, runs, sets
    found = redraw_standard_error([measured(a, b) for a, b in runs.mean(1).tolist()], METRIC)
    assert found == pytest.approx(2 / 4**0.5, rel=4 / 4_000**0.5)


def test_what_was_not_drawn_again_says_nothing() -> None:
    assert redraw_standard_error([], METRIC) is None
    assert redraw_standard_error([{METRIC: 1.0}], METRIC) is None
    assert redraw_standard_error([{"recall": 1.0}], "recall") is None
    known = [{METRIC: 1.0}, measured(1.0, 2.0)]
    assert redraw_standard_error(known, METRIC) == redraw_standard_error(known[1:], METRIC)
