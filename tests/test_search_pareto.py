"""Several objectives: the front is the one by definition, its values are of one generator each."""

# ruff: noqa: E501 - an exact message is one line

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal

import pytest
from closed_form import open_history, study
from hypothesis import given
from hypothesis import strategies as st
from test_search_samplers import SPACE, work_off
from tiny_events import proposed
from tiny_study import content

from search.events import Ended, Event, Measured, SessionOpened, Started
from search.grid import all_cells
from search.ledger import Ledger
from search.lines import Lines
from search.objective import Aim, Metric, ObjectiveSection
from search.outcome import winner_of
from search.pareto import front_of, pareto_front, values_of
from search.proposer import Proposer
from search.study import SpecError, StudySpec

POOLED: Final = "validation_log_likelihood"
ACCURACY: Final = "label_accuracy"
UNTRAINED = -50.0


def aims(*directions: Literal["maximize", "minimize"]) -> list[Aim]:
    metrics: tuple[Metric, ...] = ("sharpness", "memorization_ratio", POOLED)
    pairs = zip(metrics, directions, strict=False)
    return [Aim(metric=metric, direction=direction) for metric, direction in pairs]


def dominates(left: Sequence[float], right: Sequence[float], ways: Sequence[Aim]) -> bool:
    gains = [
        a - b if aim.direction == "maximize" else b - a
        for a, b, aim in zip(left, right, ways, strict=True)
    ]
    return min(gains) >= 0 and max(gains) > 0


POINTS = st.lists(st.lists(st.integers(0, 4), min_size=3, max_size=3), max_size=12)


@given(POINTS, st.lists(st.sampled_from(["maximize", "minimize"]), min_size=3, max_size=3))
def test_the_front_is_what_no_point_dominates(points: list[list[float]], ways: list[Any]) -> None:
    wanted = [
        i
        for i, one in enumerate(points)
        if not any(dominates(p, one, aims(*ways)) for p in points)
    ]
    assert pareto_front(points, aims(*ways)) == wanted


@given(POINTS)
def test_one_objective_has_its_best_and_their_equals(points: list[list[float]]) -> None:
    firsts = [[point[0]] for point in points]
    best = max(firsts, default=None)
    assert pareto_front(firsts, aims("maximize")) == [
        i for i, point in enumerate(firsts) if point == best
    ]


def spec_of(stages: list[dict[str, Any]], trials: int, **changes: Any) -> StudySpec:
    budget = {"kimg_per_trial": 400.0, "measure_kimg": 100.0, "trials": trials}
    objective = {"also": [{"metric": "recall"}]}
    return study(**{"stages": stages, "budget": budget, "objective": objective, **changes})


def two_valleys(params: Mapping[str, Any]) -> tuple[float, float]:
    """Schaffer's problem (1985) in log10 of the rate, with a loss that both share."""
    x = params["learning_rate"]
    shared = (params["d_dropout"] - 0.3) ** 2 + 0.1 * (params["d_steps"] - 2) ** 2
    return -((10 * x - 1) ** 2) - shared, -((10 * x - 3) ** 2) - shared


def test_a_study_finds_the_front_of_a_problem_in_closed_form(tmp_path: Path) -> None:
    space = {
        "learning_rate": {"type": "float", "low": 0.05, "high": 0.4, "step": 0.05},
        "d_dropout": {"type": "categorical", "choices": [0.0, 0.3, 0.5]},
        "d_steps": {"type": "int", "low": 1, "high": 3},
    }
    stage = {"kind": "model", "sampler": "nsga2", "trials": 54}  # of 72 cells
    spec = spec_of([stage], 54, space=space)
    proposer = Proposer(spec)
    with open_history(tmp_path, spec) as history:
        while (proposal := proposer.propose(history.ledger)) is not None:
            history.append(proposal)
            first, second = two_valleys(proposal.params)
            metrics = {POOLED: first, "recall": second}
            number = proposal.number
            history.append(Started(number=number, attempt=0, node="n", device="cpu", pid=1))
            history.append(
                Measured(number=number, kimg=400.0, elapsed_seconds=1.0, metrics=metrics)
            )
            history.append(Ended(number=number, state="COMPLETED"))
        found = front_of(history.ledger, spec.objective, UNTRAINED)
        trials = history.ledger.trials
    cells = all_cells(spec.space)
    assert cells is not None
    every = [two_valleys(cell) for cell in cells]
    brute = {p for p in every if not any(dominates(q, p, spec.objective.aims) for q in every)}
    assert {tuple(one.values.values()) for one in found} == brute
    assert len(brute) == 5  # rates from 0.1 to 0.3
    assert all(two_valleys(trials[one.number].params) in brute for one in found)


@pytest.mark.parametrize(("sampler", "trials"), [("tpe", 40), ("nsga2", 80)])
def test_samplers_of_several_objectives_search_near_the_front(
    sampler: str, trials: int, tmp_path: Path
) -> None:
    """It is where more dropout costs the one and gains the other: from 0.4 to 0.6."""

    def share(name: str) -> float:
        stage = {"kind": "model", "sampler": name, "trials": trials}
        spec = spec_of([stage], trials, space=SPACE)
        with open_history(tmp_path / name, spec) as history:
            late = work_off(history, spec)[trials // 2 :]
        return sum(float(p.params["d_dropout"]) >= 0.39 for p in late) / len(late)

    assert share(sampler) > share("random") + 0.2


@pytest.mark.parametrize("sampler", ["tpe", "nsga2", "gp", "sobol", "random"])
def test_proposals_follow_from_the_record_alone(sampler: str, tmp_path: Path) -> None:
    trials = 9 if sampler == "gp" else 14  # of a second each
    spec = spec_of([{"kind": "model", "sampler": sampler, "trials": trials}], trials, space=SPACE)
    with open_history(tmp_path / "straight", spec) as history:
        expected = work_off(history, spec)
    found = []
    for most in (7, 1, 100):
        with open_history(tmp_path / "broken", spec) as history:
            found += work_off(history, spec, most)
    assert [p.cell for p in found] == [p.cell for p in expected]


def course(number: int, *measured: tuple[float, float], state: str = "COMPLETED") -> list[Event]:
    events: list[Event] = [
        proposed(number),
        Started(number=number, attempt=0, node="n", device="cpu", pid=1),
    ]
    for kimg, (pooled, accuracy) in enumerate(measured, start=1):
        metrics = {POOLED: pooled, ACCURACY: accuracy}
        events.append(Measured(number=number, kimg=kimg, elapsed_seconds=kimg, metrics=metrics))
    return [*events, Ended(number=number, state=state, reason="for a reason")]


def ledger(*courses: list[Event]) -> Ledger:
    return Ledger([SessionOpened(pid=1), *(event for events in courses for event in events)])


BOTH = ObjectiveSection(also=(Aim(metric=ACCURACY),))


def test_values_are_those_of_the_generator_that_is_kept() -> None:
    trials = ledger(course(0, (1.0, 0.9), (3.0, 0.2), (2.0, 0.8)), course(1)).trials
    assert values_of(trials[0], BOTH) == (3.0, 0.2)
    assert values_of(trials[1], BOTH) is None
    unknown = ObjectiveSection(also=(Aim(metric="recall"),))
    assert values_of(trials[0], unknown) is None


def test_only_who_may_win_is_on_the_front_the_best_by_the_first_objective_first() -> None:
    trials = ledger(
        course(0, (1.0, 0.9)),
        course(1, (5.0, 0.1)),
        course(2, (9.0, 0.95), state="INFEASIBLE"),
        course(3, (9.0, 0.95), state="FAILED"),
        course(4, (-60.0, 1.0)),
        course(5, (0.5, 0.8)),
        course(6, (3.0, 0.5), state="STOPPED"),
    )
    front = front_of(trials, BOTH, UNTRAINED)
    assert [(one.number, tuple(one.values.values())) for one in front] == [
        *((1, (5.0, 0.1)), (6, (3.0, 0.5)), (0, (1.0, 0.9)))
    ]
    assert list(front[0].values) == [POOLED, ACCURACY]
    bounded = BOTH.model_copy(update={"constraints": ("label_accuracy >= 0.4",)})
    assert [one.number for one in front_of(trials, bounded, UNTRAINED)] == [6, 0]
    assert front_of(ledger(), BOTH, UNTRAINED) == []


def test_the_winner_is_the_front_s_best_by_the_first_objective(tmp_path: Path) -> None:
    lines = Lines(untrained=UNTRAINED, real_data=200.0)
    trials = ledger(course(0, (5.0, 0.1)), course(1, (5.0, 0.2)), course(2, (4.0, 0.9)))
    objective = {"also": [{"metric": ACCURACY}]}
    spec = StudySpec.from_mapping(
        content(tmp_path / "x.npz", objective=objective, scheduler={"kind": "none"})
    )
    winner = winner_of(spec, trials, lines)
    assert winner is not None
    assert winner.number == 1  # equals by the first: the one that is not dominated
    assert winner_of(spec, ledger(course(0, (-60.0, 0.9))), lines) is None
    assert [one.number for one in front_of(trials, spec.objective, UNTRAINED)] == [1, 2]


def test_a_study_of_several_objectives_is_read_as_it_was_written() -> None:
    spec = spec_of([{"kind": "model", "trials": 3}], 3)
    assert StudySpec.from_mapping(spec.model_dump(mode="json")) == spec
    assert [aim.metric for aim in spec.objective.aims] == [POOLED, "recall"]
    assert study().objective.aims == (Aim(metric=POOLED),)


HALVING = {"kind": "asha", "grace_kimg": 100.0}
REFUSED = [
    ({"scheduler": HALVING}, "scheduler.kind: `kind: none` must hold where `objective.also` is given, for a trial behind by one metric may be ahead by another, but got kind=asha"),
    ({"stages": [{"kind": "model", "sampler": "cmaes", "trials": 3}]}, "stages.0.sampler: `sampler: nsga2` (or tpe, gp, sobol, random) must hold where `objective.also` is given, but got cmaes"),
    ({"objective": {"also": [{"metric": "recall"}, {"metric": POOLED}]}}, "objective.also.1.metric: metrics must differ, but validation_log_likelihood is there twice"),
    ({"objective": {"also": [{"metric": "frechet_distance"}]}}, "objective.also.0.direction: `direction` must be minimize where `metric` is frechet_distance, of which less is better, but got maximize"),
    ({"objective": {"also": [{"metrc": "recall"}]}}, "objective.also.0.metric: this key is required, but it is missing\nobjective.also.0.metrc: unknown key; did you mean `metric`?"),
    ({"objective": {"also": ["recall"]}}, "objective.also.0: must be a mapping, but got 'recall'"),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "message"), REFUSED, ids=[row[1][:40] for row in REFUSED])
def test_what_several_objectives_cannot_have_is_refused(
    changes: dict[str, Any], message: str
) -> None:
    changes = dict(changes)
    with pytest.raises(SpecError) as caught:
        spec_of(changes.pop("stages", [{"kind": "model", "trials": 3}]), 3, **changes)
    assert str(caught.value) == message
