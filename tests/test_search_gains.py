"""What a bandit is told of a population: who gained how much with which parameters, and when."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from closed_form import ClosedFormRuns, Fault, pace, study
from fake_pool import drive
from numpy.testing import assert_allclose

from search.gains import Gains, gains_of
from search.ledger import Ledger
from search.study import StudySpec
from search.unit_cube import coordinates_of

LEVELS, POPULATION = (100.0, 200.0, 300.0), 8
PB2: dict[str, Any] = {"kind": "pb2", "interval_kimg": 100.0}


def spec_of(direction: str = "maximize", interval_kimg: float = 100.0) -> StudySpec:
    objective = {"metric": "validation_log_likelihood", "direction": direction}
    scheduler = PB2 | {"interval_kimg": interval_kimg}
    return study(grid=POPULATION - 1, model=0, scheduler=scheduler, objective=objective)


def driven(folder: Path, spec: StudySpec, faults: dict[Any, Fault] | None = None) -> Ledger:
    runs = ClosedFormRuns(folder=folder, grows=True, faults=faults or {})
    return Ledger(drive(spec, folder, runs=runs))


def told(ledger: Ledger, spec: StudySpec) -> Gains:
    return gains_of(ledger, spec.space, spec.objective, LEVELS)


@pytest.mark.parametrize(("direction", "sign"), [("maximize", 1.0), ("minimize", -1.0)])
def test_a_gain_is_that_of_the_interval_alone_also_after_a_copy(
    tmp_path: Path, direction: str, sign: float
) -> None:
    """A growing run gains `pace` with each kimg, whatever it had from its donor."""
    spec = spec_of(direction)
    ledger = driven(tmp_path, spec)
    gains = told(ledger, spec)
    rows = {
        (tuple(point), interval): reward
        for point, interval, reward in zip(
            gains.points.tolist(), gains.intervals, gains.rewards, strict=True
        )
    }
    assert len(rows) == len(LEVELS) * POPULATION
    assert any(trial.donor for trial in ledger.trials.values())
    for index, level in enumerate(LEVELS):
        there = [
            trial
            for trial in ledger.trials.values()
            if any(m.kimg == level for m in trial.measurements)
        ]
        paces = np.array([sign * pace(trial.params) for trial in there])
        expected = np.clip((paces - paces.mean()) / paces.std(), -2, 2)
        points = [tuple(coordinates_of(spec.space, trial.params)) for trial in there]
        assert_allclose([rows[point, index] for point in points], expected, atol=1e-9)


def test_who_diverged_has_the_lowest_gain_of_its_interval_and_who_failed_none(
    tmp_path: Path,
) -> None:
    spec = spec_of()
    faults = {0: Fault("infeasible", 150.0), 1: Fault("raise", 50.0)}
    ledger = driven(tmp_path, spec, faults)
    gains = told(ledger, spec)

    def of(number: int) -> dict[float, float]:
        own = (gains.points == coordinates_of(spec.space, ledger.trials[number].params)).all(1)
        return dict(zip(gains.intervals[own], gains.rewards[own], strict=True))

    assert ledger.trials[0].state == "INFEASIBLE"
    assert of(0).keys() == {0.0, 1.0}
    assert of(0)[1.0] == gains.rewards[gains.intervals == 1.0].min()
    assert ledger.trials[1].state == "FAILED"
    assert of(1) == {}


def test_of_many_the_newest_are_told(tmp_path: Path) -> None:
    spec = spec_of()
    ledger = driven(tmp_path, spec)
    whole = told(ledger, spec)
    kept = gains_of(ledger, spec.space, spec.objective, LEVELS, most=10)
    assert_allclose(kept.points, whole.points[-10:])
    assert_allclose(kept.intervals, whole.intervals[-10:])
    assert_allclose(kept.rewards, whole.rewards[-10:])
