"""What each stage may take: full grids whole and in order, models of finite spaces no more."""

# ruff: noqa: E501 - an exact message is one line

import itertools
from pathlib import Path
from typing import Any

import pytest
from closed_form import open_history, study
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_events import proposed
from tiny_study import content

from search.cell import cell_key
from search.events import Ended
from search.grid import grid_cells
from search.ledger import Ledger
from search.proposer import Proposer
from search.stage_plan import stage_trials
from search.study import SpecError, StudySpec

RATES = {"type": "float", "low": 0.01, "high": 0.1, "log": True}
DROPOUT = {"type": "float", "low": 0.0, "high": 0.5}
GRID = {"learning_rate": 3, "d_dropout": 4}
FINITE = {
    "optimizer": {"type": "categorical", "choices": ["sgd", "adam"]},
    "learning_rate": {"type": "float", "low": 0.01, "high": 0.05, "step": 0.01},
    "d_dropout": {"type": "float", "low": 0.5, "high": 0.5},
    "d_steps": {"type": "int", "low": 1, "high": 2, "when": {"optimizer": "sgd"}},
}  # 5 * (2 + 1) cells


def spec_of(
    stages: list[dict[str, Any]], trials: int, space: dict[str, Any] | None = None, seed: int = 0
) -> StudySpec:
    budget = {"kimg_per_trial": 1.0, "measure_kimg": 0.5, "trials": trials}
    space = space or {"learning_rate": RATES, "d_dropout": DROPOUT}
    return study(space=space, stages=stages, budget=budget, seed=seed)


def full(**changes: Any) -> dict[str, Any]:
    return {"kind": "full_grid", "levels": GRID, **changes}


def cells_tried(spec: StudySpec, folder: Path) -> list[tuple[str, dict[str, Any]]]:
    proposer, made = Proposer(spec), list[tuple[str, dict[str, Any]]]()
    with open_history(folder, spec) as history:
        while (proposal := proposer.propose(history.ledger)) is not None:
            history.append(proposal)
            history.append(Ended(number=proposal.number, state="STOPPED"))
            made.append((proposal.stage, dict(proposal.params)))
    return made


def test_a_full_grid_takes_every_cell_in_the_order_of_its_levels(tmp_path: Path) -> None:
    made = cells_tried(spec_of([full()], 12), tmp_path)
    dropouts = (0.0, pytest.approx(1 / 6), pytest.approx(1 / 3), 0.5)
    rates = (0.01, pytest.approx(0.1**1.5), 0.1)
    assert [(cell["d_dropout"], cell["learning_rate"]) for _, cell in made] == list(
        itertools.product(dropouts, rates)
    )
    assert {stage for stage, _ in made} == {"full_grid"}


def test_the_first_of_them_where_a_number_is_given(tmp_path: Path) -> None:
    every = cells_tried(spec_of([full()], 12), tmp_path / "all")
    some = cells_tried(spec_of([full(trials=5)], 5, seed=9), tmp_path / "some")
    cut = cells_tried(spec_of([full()], 7), tmp_path / "cut")
    assert (some, cut) == (every[:5], every[:7])


@given(st.integers(0, 99), st.integers(1, 11), st.booleans(), st.booleans())
@settings(max_examples=10, deadline=None)
def test_whatever_comes_before_every_cell_is_taken_once(
    tmp_path_factory: pytest.TempPathFactory, seed: int, before: int, by_hand: bool, wider: bool
) -> None:
    levels = GRID | ({"d_dropout": [0.0, 0.5, 0.1]} if wider else {})
    stages: list[dict[str, Any]] = [{"kind": "random_grid", "levels": levels, "trials": before}]
    if by_hand:
        point = {"learning_rate": 0.1, "d_dropout": 0.5}
        stages.insert(0, {"kind": "manual", "points": [point]})
        before = stages[1]["trials"] = min(before, 8)
    if wider:
        before = stages[-1]["trials"] = min(before, 7)
    stages.append(full())
    loose = spec_of(stages, 1)
    counts = stage_trials(loose.stages, loose.space, seed)
    spec = spec_of(stages, sum(counts), seed=seed)
    made = cells_tried(spec, tmp_path_factory.mktemp("study"))
    keys = [cell_key(cell) for _, cell in made]
    assert len(keys) == len(set(keys)) == sum(counts)
    assert [planned.trials for planned in spec.stage_plan] == list(counts)
    assert {cell_key(cell) for cell in grid_cells(spec.space, GRID)} <= set(keys)


def test_a_study_counts_them_by_their_kind() -> None:
    ledger = Ledger([proposed(0, {"units": 1}, "full_grid"), proposed(1, {"units": 2}, "manual")])
    counts = ledger.count_by_stage()
    assert {s: n for s, n in counts.items() if n} == {"manual": 1, "full_grid": 1}


def test_a_space_file_with_one_is_read_as_it_was_written(tmp_path: Path) -> None:
    spec = StudySpec.from_mapping(content(tmp_path / "x.npz", stages=[full()]))
    assert StudySpec.from_mapping(spec.model_dump(mode="json")) == spec
    assert [planned.trials for planned in spec.stage_plan] == [5]


def refusal(stages: list[dict[str, Any]], trials: int, space: dict[str, Any] | None = None) -> str:
    with pytest.raises(SpecError) as caught:
        spec_of(stages, trials, space)
    return str(caught.value)


MODEL = {"kind": "model", "sampler": "random", "trials": 16}
BY_HAND = {"kind": "manual", "points": [{"optimizer": "adam", "learning_rate": 0.01, "d_dropout": 0.5}]}  # fmt: skip
SOME = {"kind": "random_grid", "levels": {"learning_rate": 2, "d_dropout": 1, "d_steps": 1}, "trials": 3}  # fmt: skip


@pytest.mark.parametrize(
    ("stages", "trials", "space", "message"),
    [
        ([full()], 13, None, "budget.trials: `trials <= 12`, the sum over the stages, must hold, but got trials=13"),
        ([full(trials=13)], 1, None, "stages.0.trials: `trials <= 12` must hold, for the grid has 12 cells, but got trials=13"),
        ([full(), full()], 12, None, "stages.1: a cell must be left, but earlier stages take all 12 of the grid"),
        ([full(trials=2), full(trials=11)], 1, None, "stages.1.trials: `trials <= 10` must hold, for the grid has 12 cells, of which earlier stages use 2, but got trials=11"),
        ([full(trials=0)], 1, None, "stages.0.trials: `trials >= 1` must hold, but got trials=0"),
        ([full(levels={"learning_rate": 2})], 1, None, "stages.0.levels: `d_dropout` must have levels, a number or a list of values, but has none"),
        ([full(levles=GRID)], 1, None, "stages.0.levles: unknown key; did you mean `levels`?"),
        ([MODEL], 1, FINITE, "stages.0.trials: `trials <= 15` must hold, for the space has 15 cells, but got trials=16"),
        ([BY_HAND, SOME, {**MODEL, "trials": 12}], 1, FINITE, "stages.2.trials: `trials <= 11` must hold, for the space has 15 cells, of which earlier stages use 4, but got trials=12"),
    ],
)  # fmt: skip
def test_too_few_cells_are_refused(
    stages: list[dict[str, Any]], trials: int, space: dict[str, Any] | None, message: str
) -> None:
    assert refusal(stages, trials, space) == message


def test_a_model_may_take_every_cell_of_a_finite_space(tmp_path: Path) -> None:
    spec = spec_of([BY_HAND, SOME, {**MODEL, "trials": 11}], 15, FINITE)
    made = cells_tried(spec, tmp_path)
    assert len({cell_key(cell) for _, cell in made}) == len(made) == 15
