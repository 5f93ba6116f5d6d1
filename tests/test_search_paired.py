from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from search.events import RunKey
from search.paired import RungPoints, paired_standard_error
from search.points import read_points, write_points
from search.scheduling import Course, decide

METRIC = "validation_log_likelihood"


@given(st.integers(2, 200), st.integers(0, 99))
def test_the_error_is_that_of_the_paired_t_test(count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    left, right = rng.normal(size=(2, count)).astype(np.float32)
    test = stats.ttest_rel(left.astype(float), right.astype(float))
    mean = np.mean(left.astype(float) - right)
    assert mean / paired_standard_error(left, right) == pytest.approx(test.statistic, rel=1e-9)


def test_vectors_that_cannot_be_paired_are_refused() -> None:
    with pytest.raises(ValueError, match="one length"):
        paired_standard_error(np.zeros(3), np.zeros(4))
    with pytest.raises(ValueError, match="at least 2"):
        paired_standard_error(np.zeros(1), np.zeros(1))


@pytest.mark.parametrize(
    ("error", "expected"), [(None, [0, 1]), (0.5, [0, 1]), (1.0, [0]), (2.0, [])]
)
def test_chance_stops_nobody(error: float | None, expected: list[int]) -> None:
    courses = {n: Course(points=((1.0, float(n)),)) for n in range(4)}  # cut 1.5, beside 2
    stopped = [n for n in courses if decide(n, courses, (1.0,), 2, lambda *_: error) is not None]
    assert stopped == expected


def test_the_points_of_a_rung_outlive_a_better_measurement(tmp_path: Path) -> None:
    points = RungPoints(tmp_path, METRIC, (100.0, 300.0))
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(3, 50)).astype(np.float32)
    for number in (0, 1):
        write_points(tmp_path / f"points/{number}-0.parquet", vectors[number], None)
        points.keep(RunKey(number), 100.0)
    write_points(tmp_path / "points/0-0.parquet", vectors[2], None)
    points.keep(RunKey(0), 200.0)  # no rung
    expected = paired_standard_error(vectors[0], vectors[1])
    assert points.standard_error(0, 1, 100.0) == expected
    assert points.standard_error(0, 1, 300.0) is None
    assert read_points(tmp_path / "points/0-0.parquet").pooled == pytest.approx(vectors[2])


def test_a_trial_without_points_is_not_paired(tmp_path: Path) -> None:
    points = RungPoints(tmp_path, "conditional_log_likelihood", (100.0,))
    points.keep(RunKey(0), 100.0)
    for number in (1, 2):
        conditional = [1.0, number] if number == 1 else None
        write_points(tmp_path / f"points/{number}-0.parquet", [0.0, 1.0], conditional)
        points.keep(RunKey(number), 100.0)
    assert points.standard_error(0, 1, 100.0) is None
    assert points.standard_error(1, 2, 100.0) is None
    assert points.standard_error(1, 1, 100.0) == 0.0
