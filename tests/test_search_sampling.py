"""Domains, grids and proposals keep to the space and depend on nothing but what they are given."""

# ruff: noqa: E501 - an exact message is one line

import itertools
import math
from collections.abc import Mapping
from typing import Any

import optuna
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from optuna.trial import FrozenTrial, TrialState
from pydantic import TypeAdapter

from search.cell import cell_key
from search.domains import Branches, FloatDomain, IntDomain, Params
from search.frozen_trial import INFEASIBLE_VALUE, distribution, to_frozen_trial
from search.grid import grid_cells, random_order
from search.sampling import OptunaSampler, make_sampler, proposal_seed, propose, rebuild_study
from search.space import Space, active_domain, canonical_point, corner_points, dependency_order
from search.trial import Direction, TrialStateName

SPACE_ADAPTER: TypeAdapter[dict[str, Any]] = TypeAdapter(dict[str, Branches])


def space_of(**parameters: Any) -> Space:
    return SPACE_ADAPTER.validate_python(parameters)


BRANCHED = space_of(
    optimizer={"type": "categorical", "choices": ["sgd", "adam"]},
    learning_rate=[
        {"type": "float", "low": 0.01, "high": 1.0, "log": True, "when": {"optimizer": "sgd"}},
        {"type": "float", "low": 1e-5, "high": 1e-3, "log": True, "when": {"optimizer": "adam"}},
    ],
    momentum={"type": "float", "low": 0.0, "high": 0.9, "step": 0.1, "when": {"optimizer": "sgd"}},
    d_steps={"type": "int", "low": 1, "high": 4},
    d_rate_ratio={"type": "float", "low": 0.5, "high": 2.0, "when": {"d_steps": [2, 3]}},
    fresh_noise={"type": "categorical", "choices": [True, False]},
)
LEVELS = {"learning_rate": 3, "momentum": 2, "d_steps": 4, "d_rate_ratio": 2}

finite = st.floats(-1e6, 1e6, allow_subnormal=False)


@st.composite
def float_domains(draw: st.DrawFn) -> FloatDomain:
    low, high = sorted((draw(finite), draw(finite)))
    log = draw(st.booleans())
    if log:
        low, high = sorted((abs(low) + 1e-6, abs(high) + 1e-6))
    return FloatDomain(type="float", low=low, high=high, log=log)


@st.composite
def int_domains(draw: st.DrawFn) -> IntDomain:
    low = draw(st.integers(1, 1000))
    log = draw(st.booleans())
    step = 1 if log else draw(st.integers(1, 7))
    high = low + step * draw(st.integers(0, 50))
    return IntDomain(type="int", low=low, high=high, log=log, step=step)


@given(float_domains() | int_domains(), st.integers(1, 12))
def test_levels_lie_in_their_domain_in_order_from_end_to_end(
    domain: FloatDomain | IntDomain, count: int
) -> None:
    levels = domain.spread(count)
    assert all(domain.canonical("x", level) == level for level in levels)
    assert list(levels) == sorted(set(levels))
    assert len(levels) <= count
    if count > 1:
        assert (levels[0], levels[-1]) == (domain.low, domain.high)


@given(st.floats(1e-6, 1.0), st.floats(2.0, 1e6), st.integers(3, 9))
def test_levels_are_evenly_spaced(low: float, high: float, count: int) -> None:
    def gaps(values: list[float]) -> list[float]:
        return [b - a for a, b in itertools.pairwise(values)]

    linear = gaps(list(FloatDomain(type="float", low=low, high=high).spread(count)))
    geometric = FloatDomain(type="float", low=low, high=high, log=True).spread(count)
    assert linear == pytest.approx([linear[0]] * (count - 1))
    logs = gaps([math.log(value) for value in geometric])
    assert logs == pytest.approx([logs[0]] * (count - 1), rel=1e-6)


def test_levels_read_as_one_would_write_them() -> None:
    assert FloatDomain(type="float", low=0.01, high=1.0, log=True).spread(3) == (0.01, 0.1, 1.0)
    assert FloatDomain(type="float", low=0.0, high=0.6).spread(3) == (0.0, 0.3, 0.6)
    assert FloatDomain(type="float", low=0.0, high=0.6).spread(1) == (0.3,)
    assert FloatDomain(type="float", low=0.01, high=1.0, log=True).spread(1) == (0.1,)
    assert FloatDomain(type="float", low=0.1, high=0.7, step=0.2).spread(9) == (0.1, 0.3, 0.5, 0.7)
    assert IntDomain(type="int", low=1, high=4).spread(9) == (1, 2, 3, 4)
    assert IntDomain(type="int", low=10, high=1000, log=True).spread(3) == (10, 100, 1000)


@pytest.mark.parametrize(
    ("domain", "value", "message"),
    [
        (FloatDomain(type="float", low=0.0, high=1.0), True, "must be a number, but got x=True"),
        (FloatDomain(type="float", low=0.0, high=1.0), float("nan"), "`0.0 <= x <= 1.0` must hold, but got x=nan"),
        (FloatDomain(type="float", low=0.0, high=1.0, step=0.25), 0.3, "`x = 0.0 + k * 0.25` must hold, but got x=0.3"),
        (IntDomain(type="int", low=0, high=4), 1.5, "must be a whole number, but got x=1.5"),
        (IntDomain(type="int", low=0, high=4), "1", "must be a whole number, but got x='1'"),
        (IntDomain(type="int", low=0, high=4, step=2), 3, "`x = 0 + k * 2` must hold, but got x=3"),
    ],
)  # fmt: skip
def test_a_value_outside_is_refused(
    domain: FloatDomain | IntDomain, value: object, message: str
) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the whole message is compared
        domain.canonical("x", value)
    assert str(caught.value) == message


def test_values_become_plain_and_canonical() -> None:
    point = {"optimizer": "sgd", "learning_rate": 1, "momentum": 0.1 + 0.2, "d_steps": 1.0, "fresh_noise": True}  # fmt: skip
    params = canonical_point(BRANCHED, point)
    assert params == point | {"momentum": 0.3}
    assert {name: type(value) for name, value in params.items()} == {
        "optimizer": str,
        "learning_rate": float,
        "momentum": float,
        "d_steps": int,
        "fresh_noise": bool,
    }


def test_the_order_is_that_of_dependence_however_the_space_was_written() -> None:
    order = dependency_order(BRANCHED)
    assert order == dependency_order(dict(reversed(list(BRANCHED.items()))))
    assert order.index("optimizer") < min(order.index("learning_rate"), order.index("momentum"))
    assert order.index("d_steps") < order.index("d_rate_ratio")


def well_formed(space: Space, params: Params) -> bool:
    return canonical_point(space, params) == params  # raises on what is missing or inactive


@given(
    st.dictionaries(
        st.sampled_from(["learning_rate", "d_dropout", "g_dropout"]),
        st.tuples(float_domains() | int_domains(), st.integers(1, 5)),
        min_size=1,
    )
)
@settings(max_examples=50)
def test_a_grid_without_conditions_is_the_product_of_its_levels(
    drawn: Mapping[str, tuple[FloatDomain | IntDomain, int]],
) -> None:
    space = {name: (domain,) for name, (domain, _) in drawn.items()}
    levels = {name: count for name, (_, count) in drawn.items()}
    cells = grid_cells(space, levels)
    kept = [{cell_key({"x": v}) for v in domain.spread(count)} for domain, count in drawn.values()]
    assert len(cells) == math.prod(map(len, kept))  # levels that print alike are one
    assert len({cell_key(cell) for cell in cells}) == len(cells)
    assert all(well_formed(space, cell) for cell in cells)


def test_a_grid_holds_the_active_parameters_of_each_branch_only() -> None:
    cells = grid_cells(BRANCHED, LEVELS)
    sgd, adam, ratio, noise = 3 * 2, 3, 2 + 2 * 2, 2  # ratio: two of four steps have two ratios
    assert len(cells) == (sgd + adam) * ratio * noise
    assert all(well_formed(BRANCHED, cell) for cell in cells)
    assert len({cell_key(cell) for cell in cells}) == len(cells)


def test_listed_levels_go_to_the_branches_they_lie_in() -> None:
    cells = grid_cells(BRANCHED, LEVELS | {"learning_rate": (0.1, 0.5, 1e-4)})
    rates = {(cell["optimizer"], cell["learning_rate"]) for cell in cells}
    assert rates == {("sgd", 0.1), ("sgd", 0.5), ("adam", 1e-4)}


@given(st.permutations(range(20)), st.integers(0, 2**32), st.sets(st.integers(0, 19)))
def test_random_order_is_a_permutation_by_the_seed_alone(
    shuffle: list[int], seed: int, dropped: set[int]
) -> None:
    cells = grid_cells(BRANCHED, LEVELS)[:20]
    ordered = random_order(cells, seed)
    assert sorted(map(cell_key, ordered)) == sorted(map(cell_key, cells))
    assert random_order([cells[i] for i in shuffle], seed) == ordered
    gone = [cells[i] for i in dropped]
    kept = [cell for cell in cells if cell not in gone]
    assert random_order(kept, seed) == [cell for cell in ordered if cell not in gone]


def test_another_seed_gives_another_order() -> None:
    cells = grid_cells(BRANCHED, LEVELS)
    assert random_order(cells, 0) != random_order(cells, 1)


def test_corners_pair_every_end_with_every_other() -> None:
    space = space_of(
        d_dropout={"type": "float", "low": 0.0, "high": 0.5},
        g_dropout={"type": "float", "low": 0.1, "high": 0.6},
        d_steps={"type": "int", "low": 1, "high": 3},
    )
    corners = list(corner_points(space))
    for first, second in (("d_dropout", "g_dropout"), ("g_dropout", "d_steps")):
        pairs = {(point[first], point[second]) for point in corners}
        assert len(pairs) == 4
    branched = list(corner_points(BRANCHED))
    assert all(well_formed(BRANCHED, point) for point in branched)
    assert {point["learning_rate"] for point in branched} == {0.01, 1.0, 1e-5, 1e-3}


def told(
    params: Params, state: TrialStateName = "COMPLETED", value: float | None = 0.0, **more: Any
) -> FrozenTrial:
    return to_frozen_trial(BRANCHED, params, state, value, **more)


def history(count: int) -> list[FrozenTrial]:
    cells = random_order(grid_cells(BRANCHED, LEVELS), 7)[:count]
    return [told(cell, value=-float(position)) for position, cell in enumerate(cells)]


def proposal(name: OptunaSampler, seed: int, trials: list[FrozenTrial]) -> Params:
    return propose(rebuild_study(trials, make_sampler(name, seed)), BRANCHED)


@pytest.mark.parametrize("name", ["tpe", "nsga2", "random"])
@pytest.mark.parametrize("count", [0, 4, 13])
def test_proposals_lie_in_the_space_and_can_be_had_again(name: OptunaSampler, count: int) -> None:
    seen = set()
    for number in range(6):
        seed = proposal_seed(3, number)
        params = proposal(name, seed, history(count))
        assert well_formed(BRANCHED, params)
        assert all(type(value) in (float, int, str, bool) for value in params.values())
        proposal("tpe", 99, history(5))  # what is asked in between does not matter
        assert proposal(name, seed, history(count)) == params
        seen.add(cell_key(params))
    assert len(seen) == 6


def test_proposals_do_not_depend_on_how_the_space_was_written() -> None:
    reversed_space = dict(reversed(list(BRANCHED.items())))
    for seed in range(3):
        study = rebuild_study(history(12), make_sampler("tpe", seed))
        assert propose(study, reversed_space) == proposal("tpe", seed, history(12))


@given(st.integers(0, 2**63 - 1), st.integers(0, 10_000), st.integers(0, 5))
def test_each_proposal_has_its_own_seed(study_seed: int, number: int, attempt: int) -> None:
    seed = proposal_seed(study_seed, number, attempt)
    assert 0 <= seed < 2**32
    assert seed == proposal_seed(study_seed, number, attempt)
    others = [(study_seed + 1, number, attempt), (study_seed, number + 1, attempt), (study_seed, number, attempt + 1)]  # fmt: skip
    assume(all(seed != proposal_seed(*other) for other in others))
    assert len({proposal_seed(*other) for other in others}) == 3


def test_tpe_learns_from_the_history() -> None:
    """On a bowl its proposals end nearer to the bottom than random ones do."""
    space = space_of(learning_rate={"type": "float", "low": 0.0, "high": 1.0})

    def distance(name: OptunaSampler) -> float:
        trials: list[FrozenTrial] = []
        for number in range(30):
            sampler = make_sampler(name, proposal_seed(0, number))
            params = propose(rebuild_study(trials, sampler), space)
            offset = abs(float(params["learning_rate"]) - 0.7)
            trials.append(to_frozen_trial(space, params, "COMPLETED", -(offset**2)))
        return sum(math.sqrt(-float(trial.value or 0.0)) for trial in trials[15:]) / 15

    assert distance("tpe") < 0.5 * distance("random")


PARAMS: Params = {"optimizer": "adam", "learning_rate": 1e-4, "d_steps": 1, "fresh_noise": True}


@pytest.mark.parametrize(
    ("ours", "optunas", "value"),
    [
        ("RUNNING", TrialState.RUNNING, None),
        ("COMPLETED", TrialState.COMPLETE, 5.0),
        ("STOPPED", TrialState.PRUNED, None),
        ("INFEASIBLE", TrialState.COMPLETE, -INFEASIBLE_VALUE),
        ("FAILED", TrialState.FAIL, None),
    ],
)
def test_states_are_told_so_that_nothing_misleads(
    ours: TrialStateName, optunas: TrialState, value: float | None
) -> None:
    curve = {50.0: -100.0, 100.0: float("nan"), 150.0: 5.0, 200.0: 3.0}
    given = None if ours == "INFEASIBLE" else 5.0
    trial = told(PARAMS, ours, given, intermediate_values=curve)
    assert (trial.state, trial.value if value is not None else None) == (optunas, value)
    assert trial.intermediate_values == {50_000: -100.0, 150_000: 5.0, 200_000: 5.0}
    assert trial.params == {
        "optimizer": "adam",
        "learning_rate[optimizer=adam]": 1e-4,
        "d_steps": 1,
        "fresh_noise": True,
    }
    assert rebuild_study([trial], make_sampler("tpe", 0)).trials[0].state == optunas


def test_the_best_is_never_an_infeasible_trial_nor_one_that_was_stopped() -> None:
    for direction, worse in (("maximize", -1e6), ("minimize", 1e6)):
        way: Direction = "maximize" if direction == "maximize" else "minimize"
        trials = [
            told(PARAMS, "INFEASIBLE", None, direction=way),
            told(PARAMS, "STOPPED", None, intermediate_values={50.0: -worse}, direction=way),
            told(PARAMS, "COMPLETED", worse, direction=way),
        ]
        study = rebuild_study(trials, make_sampler("tpe", 0), way)
        assert study.best_trial.number == 2


def test_a_completed_trial_needs_its_value() -> None:
    with pytest.raises(ValueError, match="`value` of a COMPLETED trial must be finite, but got"):
        told(PARAMS, "COMPLETED", float("nan"))


@given(float_domains() | int_domains(), st.integers(0, 2**32 - 1))
@settings(max_examples=25)
def test_distributions_hold_what_their_domain_holds(
    domain: FloatDomain | IntDomain, seed: int
) -> None:
    shape = distribution(domain)
    assert all(shape._contains(shape.to_internal_repr(level)) for level in domain.spread(5))
    study = rebuild_study([], make_sampler("random", seed))
    value = propose(study, {"x": (domain,)})["x"]
    assert domain.canonical("x", value) == value


def test_branches_are_exclusive_choices() -> None:
    domain = active_domain(BRANCHED["learning_rate"], {"optimizer": "adam"})
    assert domain is BRANCHED["learning_rate"][1]
    assert active_domain(BRANCHED["momentum"], {"optimizer": "adam"}) is None
    assert active_domain(BRANCHED["d_rate_ratio"], {"d_steps": True}) is None


def test_optuna_says_nothing_while_studies_are_rebuilt(capfd: pytest.CaptureFixture[str]) -> None:
    proposal("tpe", 0, history(12))
    assert capfd.readouterr() == ("", "")
    assert optuna.logging.get_verbosity() == optuna.logging.ERROR
