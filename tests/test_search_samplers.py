"""Every sampler proposes from the record alone, within the space, and does what it is for."""

import itertools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest
from closed_form import open_history, study
from hypothesis import given
from hypothesis import strategies as st
from test_search_sampling import BRANCHED, space_of

from search.cell import cell_key
from search.domains import Params
from search.events import Ended, Measured, Proposed, Started
from search.evolution import evolved_point
from search.history import History
from search.objective import ObjectiveSection
from search.proposer import Proposer
from search.quasi_random import sobol_point
from search.seen_trial import SeenTrial, ranked, seen
from search.space import canonical_point, dependency_order
from search.stages import SamplerName
from search.study import StudySpec
from search.unit_cube import coordinates_of, point_at

SAMPLERS = get_args(SamplerName)
SPACE: dict[str, Any] = {
    "optimizer": {"type": "categorical", "choices": ["sgd", "adam"]},
    "learning_rate": [
        {"type": "float", "low": 0.01, "high": 1.0, "log": True, "when": {"optimizer": "sgd"}},
        {"type": "float", "low": 1e-5, "high": 1e-3, "log": True, "when": {"optimizer": "adam"}},
    ],
    "d_dropout": {"type": "float", "low": 0.0, "high": 0.6},
    "d_steps": {"type": "int", "low": 1, "high": 4},
}
DIMENSIONS = len(BRANCHED)


def value_of(params: Params) -> float:
    return -((float(params["d_dropout"]) - 0.4) ** 2)


def work_off(
    history: History,
    spec: StudySpec,
    most: int = 1000,
    value_of: Callable[[Params], float] = value_of,
) -> list[Proposed]:
    """Proposes and ends trials one after another: most whole, some stopped, some diverged."""
    proposer, made = Proposer(spec), list[Proposed]()
    while len(made) < most and (proposed := proposer.propose(history.ledger)):
        history.append(proposed)
        number = proposed.number
        history.append(Started(number=number, attempt=0, node="n", device="cpu", pid=1))
        kimg = 100.0 if number % 5 == 3 else 400.0
        metrics = {
            "validation_log_likelihood": value_of(proposed.params),
            "recall": float(proposed.params["d_dropout"]),
        }
        history.append(Measured(number=number, kimg=kimg, elapsed_seconds=1.0, metrics=metrics))
        if number % 7 == 6:
            history.append(Ended(number=number, state="INFEASIBLE", reason="loss is nan"))
        else:
            history.append(Ended(number=number, state="STOPPED" if kimg < 400 else "COMPLETED"))
        made.append(proposed)
    return made


def study_of(sampler: str, trials: int) -> StudySpec:
    return study(
        space=SPACE,
        stages=[{"kind": "model", "sampler": sampler, "trials": trials}],
        budget={"kimg_per_trial": 400.0, "measure_kimg": 100.0, "trials": trials},
    )


def affordable(sampler: str, trials: int) -> int:
    """A Gaussian process takes about a second a proposal."""
    return max(9, trials // 4) if sampler == "gp" else trials


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_proposals_follow_from_the_record_alone(sampler: str, tmp_path: Path) -> None:
    spec = study_of(sampler, affordable(sampler, 24))
    with open_history(tmp_path / "straight", spec) as straight:
        expected = work_off(straight, spec)
    assert len({p.cell for p in expected}) == spec.budget.trials
    found: list[Proposed] = []
    for most in (1, 6, 2, 100):  # a new driver each time
        with open_history(tmp_path / "broken", spec) as broken:
            found += work_off(broken, spec, most)
    assert [(p.cell, p.seed) for p in found] == [(p.cell, p.seed) for p in expected]


@pytest.mark.parametrize("sampler", [name for name in SAMPLERS if name not in ("sobol", "random")])
def test_models_come_nearer_to_the_optimum_than_chance(sampler: str, tmp_path: Path) -> None:
    trials = affordable(sampler, 40)

    def regret(name: str) -> float:
        spec = study_of(name, trials)
        with open_history(tmp_path / name, spec) as history:
            late = work_off(history, spec)[trials // 2 :]
        return sum(-value_of(proposed.params) for proposed in late) / len(late)

    assert regret(sampler) < 0.6 * regret("random")


@pytest.mark.parametrize("sampler", ["tpe", "cmaes"])
def test_models_are_told_who_breaks_a_constraint(sampler: str, tmp_path: Path) -> None:
    def share_that_keeps(*constraints: str) -> float:
        """Where the objective pulls the other way: it is best without dropout."""
        spec = study_of(sampler, 40).model_copy(
            update={"objective": ObjectiveSection(constraints=constraints)}
        )
        with open_history(tmp_path / str(len(constraints)), spec) as history:
            late = work_off(history, spec, value_of=lambda p: -float(p["d_dropout"]))[20:]
        return sum(float(proposed.params["d_dropout"]) >= 0.3 for proposed in late) / len(late)

    assert share_that_keeps("recall >= 0.3") > share_that_keeps() + 0.25


@given(st.lists(st.floats(0.0, 1.0), min_size=DIMENSIONS, max_size=DIMENSIONS))
def test_coordinates_name_points_of_the_space_and_points_their_coordinates(
    coordinates: list[float],
) -> None:
    params = point_at(BRANCHED, coordinates)
    assert canonical_point(BRANCHED, params) == params
    again = point_at(BRANCHED, coordinates_of(BRANCHED, params))
    assert again.keys() == params.keys()
    for name, value in params.items():
        assert again[name] == (
            pytest.approx(value, rel=1e-9) if isinstance(value, float) else value
        )


def test_each_value_of_a_domain_has_the_same_share_of_its_coordinate() -> None:
    space = space_of(
        d_steps={"type": "int", "low": 1, "high": 4},
        momentum={"type": "float", "low": 0.1, "high": 0.5, "step": 0.2},
        optimizer={"type": "categorical", "choices": ["sgd", "adam"]},
    )
    points = [point_at(space, [(i + 0.5) / 12] * 3) for i in range(12)]
    for name, values in {"d_steps": 4, "momentum": 3, "optimizer": 2}.items():
        counts = [sum(p[name] == v for p in points) for v in {p[name] for p in points}]
        assert counts == [12 // values] * values


@pytest.mark.parametrize("seed", range(3))
def test_sobols_points_fall_one_in_each_sixteenth_of_every_parameter(seed: int) -> None:
    names = ("d_dropout", "g_dropout", "momentum")
    space = space_of(**{name: {"type": "float", "low": 0.0, "high": 0.8} for name in names})
    points = [sobol_point(space, seed, index) for index in range(16)]
    for name in names:
        assert sorted(int(float(point[name]) / 0.05) for point in points) == list(range(16))
    assert points[0] != sobol_point(space, seed + 10, 0)


def minimised(loss: Callable[[Params], float], distort: Callable[[float], float]) -> list[Params]:
    """Ten generations on a continuous space, told by the ranks of a distorted loss."""
    names = ("d_dropout", "g_dropout", "momentum")
    space = space_of(**{name: {"type": "float", "low": 0.0, "high": 0.8} for name in names})
    points: list[Params] = []
    for seed in range(70):
        order = sorted(points, key=lambda point: distort(loss(point)))
        points.append(evolved_point(space, [(p, order.index(p)) for p in points], seed))
    return points


def test_evolution_finds_the_bottom_of_a_bowl_and_heeds_ranks_alone() -> None:
    def loss(params: Params) -> float:
        return sum((float(value) - 0.3) ** 2 for value in params.values())

    points = minimised(loss, distort=lambda value: value)
    assert points == minimised(loss, distort=lambda value: math.log(value) ** 3)
    assert max(map(loss, points[-7:])) < 0.2 * min(1.0, max(map(loss, points[:7])))


def test_evolution_begins_at_its_start_and_takes_one_parameter_too() -> None:
    space = space_of(d_dropout={"type": "float", "low": 0.0, "high": 1.0})
    near = [evolved_point(space, [], seed, {"d_dropout": 0.9})["d_dropout"] for seed in range(40)]
    assert sum(float(value) for value in near) / 40 > 0.65
    assert dependency_order(space) == ["d_dropout"]


def test_whole_trials_rank_before_stopped_ones_and_diverged_ones_last(tmp_path: Path) -> None:
    spec = study_of("random", 14)
    with open_history(tmp_path, spec) as history:
        work_off(history, spec)
        trials = list(history.ledger.trials.values())

    def order_by(objective: ObjectiveSection) -> list[SeenTrial]:
        return ranked([seen(trial, objective) for trial in trials], objective)

    order = order_by(ObjectiveSection())
    whole = [t for t in order if t.state == "COMPLETED"]
    stopped = [t for t in order if t.state == "STOPPED"]
    infeasible = [t for t in order if t.state == "INFEASIBLE"]
    assert order == [*whole, *stopped, *infeasible]
    assert len(whole) > len(stopped) > 0 < len(infeasible)
    for each in (whole, stopped):
        values = [value_of(trial.params) for trial in each]
        assert values == sorted(values, reverse=True)
    lowest_first = order_by(ObjectiveSection(direction="minimize"))
    assert lowest_first[: len(whole)] == whole[::-1]
    kept = order_by(ObjectiveSection(constraints=("recall >= 0.3",)))
    keeps = [float(trial.params["d_dropout"]) >= 0.3 for trial in kept[: -len(infeasible)]]
    assert keeps == sorted(keeps, reverse=True)
    assert len(set(keeps)) == 2
    assert all(trial.state == "INFEASIBLE" for trial in kept[-len(infeasible) :])
    assert len({cell_key(trial.params) for trial in order}) == len(order)


NAMES = ("d_dropout", "g_dropout", "d_input_dropout")


def batch(sampler: str, folder: Path, *, told: bool) -> list[list[float]]:
    """What four free places are given at once, after 20 whole trials: each told of the others?"""
    space: dict[str, Any] = {"learning_rate": {"type": "categorical", "choices": [0.1]}}
    space |= {name: {"type": "float", "low": 0.0, "high": 0.8} for name in NAMES}
    stages = [
        {"kind": "model", "sampler": "sobol", "trials": 20},
        {"kind": "model", "sampler": sampler, "trials": 4},
    ]
    budget = {"kimg_per_trial": 400.0, "measure_kimg": 100.0, "trials": 24}
    spec = study(space=space, stages=stages, budget=budget)
    proposer, made = Proposer(spec), list[list[float]]()
    with open_history(folder, spec) as history:
        work_off(history, spec, 20, lambda p: -sum((float(p[n]) - 0.3) ** 2 for n in NAMES))
        for _ in range(4):
            proposal = proposer.propose(history.ledger)
            assert proposal is not None
            made.append(coordinates_of(spec.space, proposal.params))
            history.append(proposal)
            if not told:
                history.append(Ended(number=proposal.number, state="FAILED", reason="unheard of"))
    return made


def nearest_pair(points: list[list[float]]) -> float:
    return min(math.dist(a, b) for a, b in itertools.combinations(points, 2))


@pytest.mark.parametrize("sampler", [name for name in SAMPLERS if name != "random"])
def test_free_places_are_given_points_apart(sampler: str, tmp_path: Path) -> None:
    assert nearest_pair(batch(sampler, tmp_path, told=True)) > (
        0.1 if sampler in ("tpe", "gp") else 1e-3
    )


def test_a_gaussian_process_proposes_apart_since_it_is_told_who_runs(tmp_path: Path) -> None:
    unheard = nearest_pair(batch("gp", tmp_path, told=False))
    assert unheard < 0.02
