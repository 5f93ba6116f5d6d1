from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from search.domains import CategoricalDomain, FloatDomain, IntDomain, Params
from search.neighbours import Neighbours
from search.simulated_sampling import RandomSampler
from search.space import Space, canonical_point

SPACE: Space = {
    "optimizer": (CategoricalDomain(type="categorical", choices=("sgd", "adam")),),
    "rate": (
        FloatDomain(type="float", low=0.01, high=1.0, log=True, when={"optimizer": ("sgd",)}),
        FloatDomain(type="float", low=1e-4, high=1e-2, log=True, when={"optimizer": ("adam",)}),
    ),
    "dropout": (FloatDomain(type="float", low=0.0, high=0.6, step=0.1),),
    "units": (IntDomain(type="int", low=100, high=1000, log=True),),
    "pieces": (IntDomain(type="int", low=2, high=6, step=2),),
    "beta": (FloatDomain(type="float", low=0.0, high=0.9, when={"optimizer": ("adam",)}),),
}
POINT: Params = {"optimizer": "sgd", "rate": 0.1, "dropout": 0.3, "units": 100, "pieces": 4}


def apart(left: Params, right: Params) -> float:
    cube = Neighbours(SPACE, [left])
    return float(np.linalg.norm(cube.coordinates(left) - cube.coordinates(right)))


@given(st.integers(0, 9), st.integers(0, 3000))
def test_a_random_point_is_that_of_its_number(seed: int, number: int) -> None:
    point = RandomSampler(SPACE, seed).propose(number, {})
    assert canonical_point(SPACE, point) == point  # raises where it does not lie in the space
    later = RandomSampler(SPACE, seed)
    later.propose(2048, {})
    assert later.propose(number, {}) == point


def test_points_are_uniform_on_the_scale_of_their_domain() -> None:
    source = RandomSampler(SPACE, 3)
    points = [source.propose(n, {}) for n in range(3000)]
    rates = [p["rate"] for p in points if p["optimizer"] == "sgd"]
    shares = np.log(np.array(rates, float) / 0.01) / np.log(100)
    assert stats.kstest(shares, "uniform").pvalue > 1e-3
    for name, choices in (("optimizer", 2), ("pieces", 3), ("dropout", 7)):
        counts = Counter(p[name] for p in points)
        assert len(counts) == choices
        assert stats.chisquare(list(counts.values())).pvalue > 1e-3


def test_the_nearest_is_the_nearest_and_of_equals_the_first() -> None:
    near = Neighbours(SPACE, [{**POINT, "dropout": 0.6}, POINT, POINT])
    assert near.nearest({**POINT, "dropout": 0.4}) == 1


def test_a_number_is_as_far_as_its_share_of_the_range() -> None:
    assert apart(POINT, {**POINT, "dropout": 0.6}) == pytest.approx(0.5)
    assert apart(POINT, {**POINT, "rate": 1.0}) == pytest.approx(0.5)
    assert apart(POINT, {**POINT, "units": 1000}) == pytest.approx(1.0)
    assert apart(POINT, POINT) == 0.0


def test_another_choice_is_as_far_as_a_whole_range() -> None:
    cube = Neighbours({"optimizer": SPACE["optimizer"]}, [{"optimizer": "sgd"}])
    left, right = (cube.coordinates({"optimizer": name}) for name in ("sgd", "adam"))
    assert np.linalg.norm(left - right) == pytest.approx(1.0)
    # With it change the branch of the rate, and beta that applies: three times 1 or more.
    adam: Params = {**POINT, "optimizer": "adam", "rate": 0.001, "beta": 0.45}
    assert apart(POINT, adam) == pytest.approx(3**0.5)
