"""Populations whose copies get the parameters that promise most (PB2)."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from closed_form import ClosedFormRuns, study
from fake_pool import drive
from hypothesis import given
from hypothesis import strategies as st

from search.bandit import best_first
from search.ledger import Ledger
from search.time_varying_gp import Points, TimeVaryingGP

METRIC = "validation_log_likelihood"
NOBODY = np.empty((0, 2))


def hill(peak: tuple[float, float], *, count: int = 60, forgetting: float = 0.0) -> TimeVaryingGP:
    """What is known of a reward that is highest at one place."""
    points = np.random.default_rng(0).random((count, 2))
    rewards = 1 - 4 * ((points - peak) ** 2).sum(1)
    return TimeVaryingGP(
        points=points,
        times=np.zeros(count),
        rewards=rewards,
        lengthscale=0.5,
        forgetting=forgetting,
        noise=1e-3,
        variance=1.0,
    )


def ranked(gp: TimeVaryingGP, *, seed: int = 0, pending: Points = NOBODY) -> Points:
    return best_first(gp, np.full(2, 0.5), [0, 1], 0.0, pending, np.random.default_rng(seed))


def bounds(gp: TimeVaryingGP, points: Points, time: float = 0.0) -> Any:
    mean, deviation = gp.posterior(points, time)
    return mean + np.sqrt(0.2 + max(0.0, np.log(0.4 * len(gp.rewards)))) * deviation


@given(
    seed=st.integers(0, 10_000),
    size=st.integers(1, 6),
    count=st.integers(1, 12),
    data=st.data(),
)
def test_only_the_free_coordinates_move_and_stay_in_the_cube(
    seed: int, size: int, count: int, data: st.DataObject
) -> None:
    rng = np.random.default_rng(seed)
    free = data.draw(st.lists(st.integers(0, size - 1), min_size=1, max_size=size, unique=True))
    gp = TimeVaryingGP.fit(rng.random((count, size)), np.zeros(count), rng.standard_normal(count))
    start = rng.random(size)
    found = best_first(gp, start, free, 1.0, rng.random((2, size)), rng)
    kept = [place for place in range(size) if place not in free]
    assert (found[:, kept] == start[kept]).all()
    assert ((found >= 0) & (found <= 1)).all()


def test_the_first_is_the_highest_bound_of_a_fine_grid() -> None:
    for peak in ((0.3, 0.7), (0.0, 1.0)):
        gp = hill(peak)
        axis = np.linspace(0, 1, 101)
        grid = np.stack(np.meshgrid(axis, axis), -1).reshape(-1, 2)
        found = ranked(gp)
        assert bounds(gp, found[:1])[0] > bounds(gp, grid).max() - 1e-3
        assert np.abs(found[0] - peak).max() < 0.15
        order = bounds(gp, found)
        assert (np.diff(order) <= 1e-12).all()


def test_the_same_is_found_again_and_another_seed_finds_it_too() -> None:
    gp = hill((0.3, 0.7))
    assert (ranked(gp) == ranked(gp)).all()
    assert np.abs(ranked(gp)[0] - ranked(gp, seed=1)[0]).max() < 0.05


def test_a_batch_spreads_where_little_is_known() -> None:
    """One after another each goes where the pending ones will not tell."""
    gp = hill((0.5, 0.5), count=1, forgetting=0.5)
    chosen = NOBODY
    for seed in range(4):
        chosen = np.concatenate([chosen, ranked(gp, seed=seed, pending=chosen)[:1]])
    apart = [np.abs(a - b).max() for i, a in enumerate(chosen) for b in chosen[:i]]
    assert min(apart) > 0.3


def best_at_the_end(folder: Path, kind: str, seed: int) -> float:
    spec = study(
        seed=seed,
        stages=[{"kind": "model", "sampler": "random", "trials": 8}],
        budget={"kimg_per_trial": 1000.0, "measure_kimg": 100.0, "trials": 8},
        scheduler={"kind": kind, "interval_kimg": 100.0},
    )
    runs = ClosedFormRuns(folder=folder, kimg_per_trial=1000.0, grows=True, drifts=True)
    ledger = Ledger(drive(spec, folder, runs=runs))
    whole = [trial for trial in ledger.trials.values() if trial.state == "COMPLETED"]
    return max(trial.measurements[-1].metrics[METRIC] for trial in whole)


def test_what_promises_most_earns_more_than_what_is_perturbed_at_random(tmp_path: Path) -> None:
    """The best rate falls by two decades while nets train, and the best dropout rises."""
    ends = {
        kind: [best_at_the_end(tmp_path / f"{kind}-{seed}", kind, seed) for seed in range(3)]
        for kind in ("pbt", "pb2")
    }
    gains = np.subtract(ends["pb2"], ends["pbt"])
    assert (gains > 0).all()
    assert np.mean(ends["pb2"]) > 1.1 * np.mean(ends["pbt"])


@pytest.mark.parametrize("names", [("learning_rate", "d_dropout"), ("d_dropout",)])
def test_where_every_cell_is_taken_the_worst_go_on(tmp_path: Path, names: tuple[str, ...]) -> None:
    space = {name: {"type": "float", "low": 0.2, "high": 0.4, "step": 0.1} for name in names}
    every = {"learning_rate": {"type": "categorical", "choices": [0.1]}, **space}
    trials = 3 ** len(names)
    spec = study(
        space=every,
        stages=[{"kind": "full_grid", "trials": trials, "levels": dict.fromkeys(names, 3)}],
        budget={"kimg_per_trial": 400.0, "measure_kimg": 100.0, "trials": trials},
        scheduler={"kind": "pb2", "interval_kimg": 100.0},
    )
    ledger = Ledger(drive(spec, tmp_path, runs=ClosedFormRuns(folder=tmp_path, grows=True)))
    assert ledger.count_by_state()["COMPLETED"] == len(ledger.trials) == trials
