"""Population based training: the worst become changed copies of the best, whatever is killed."""

import math
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from closed_form import ClosedFormRuns, Fault, pace, study
from fake_pool import drive
from hypothesis import given, settings
from hypothesis import strategies as st

from search.domains import CategoricalDomain, FloatDomain, IntDomain, Params
from search.events import Checkpointed, Event, Proposed, Started
from search.explore import changeable, guided, perturbed
from search.ledger import Ledger, LedgerError
from search.replay import replay
from search.space import Space, active_domain, canonical_point
from search.study import SpecError, StudySpec
from search.time_varying_gp import TimeVaryingGP
from search.trial import TrialState

METRIC = "validation_log_likelihood"
PBT: dict[str, Any] = {"kind": "pbt", "interval_kimg": 100.0}
PB2 = PBT | {"kind": "pb2"}
POPULATION, LEVELS = 8, (100.0, 200.0, 300.0)


def spec_of(scheduler: dict[str, Any] = PBT, seed: int = 0, **sections: Any) -> StudySpec:
    return study(grid=POPULATION - 1, model=0, seed=seed, scheduler=scheduler, **sections)


def growing(folder: Path, **changes: Any) -> ClosedFormRuns:
    return ClosedFormRuns(folder=folder, grows=True, **changes)


def told(ledger: Ledger) -> list[tuple[Any, ...]]:
    """All that was decided, but when."""
    return [
        (t.number, t.stage, t.params, t.seed, t.state, t.reason, t.replaces)
        + ((t.donor.number, t.donor.kimg) if t.donor else ())
        + tuple((m.kimg, m.metrics[METRIC], m.metrics["state"]) for m in t.measurements)
        for t in ledger.trials.values()
    ]


def exploits(ledger: Ledger) -> list[TrialState]:
    return [trial for trial in ledger.trials.values() if trial.stage == "exploit"]


def at(trial: TrialState, kimg: float) -> float:
    return next(m.metrics[METRIC] for m in trial.measurements if m.kimg == kimg)


@settings(max_examples=15, deadline=None)
@given(
    scheduler=st.sampled_from([PBT, PB2]),
    seed=st.integers(0, 1000),
    kills=st.lists(st.integers(1, 60), max_size=5),
    workers=st.integers(1, 5),
)
def test_the_same_is_decided_in_any_order_through_any_kills(
    tmp_path_factory: pytest.TempPathFactory,
    scheduler: dict[str, Any],
    seed: int,
    kills: list[int],
    workers: int,
) -> None:
    """One checkpoint of a run is kept, and donors train on: none that is needed is missing."""
    folder, spec = tmp_path_factory.mktemp("population"), spec_of(scheduler)
    plain = Ledger(drive(spec, folder / "plain", runs=growing(folder)))
    events = drive(
        spec, folder / "killed", kills, runs=growing(folder), seed=seed, workers=workers
    )
    ledger = Ledger(events)
    assert told(ledger) == told(plain)
    assert ledger.unfinished() == []
    assert len(ledger.cells) == len(ledger.trials) == POPULATION + 2 * len(LEVELS)
    begins_where_a_state_was_saved(events)


def begins_where_a_state_was_saved(events: list[Event]) -> None:
    saved: dict[int, float] = {}
    for event in events:
        if isinstance(event, Proposed) and event.donor is not None:
            saved[event.number] = event.donor.kimg
        if isinstance(event, Started):
            assert event.from_kimg == saved.get(event.number, 0.0)
        if isinstance(event, Checkpointed):
            saved[event.number] = event.kimg


@pytest.mark.parametrize("kind", ["pbt", "pb2"])
def test_the_worst_quarter_is_replaced_by_copies_of_the_best(tmp_path: Path, kind: str) -> None:
    spec = spec_of(PBT | {"kind": kind})
    ledger = Ledger(drive(spec, tmp_path, runs=growing(tmp_path)))
    for level in LEVELS:
        born = [trial for trial in exploits(ledger) if trial.first.inherited_kimg == level]
        gone = [ledger.trials[trial.replaces or 0] for trial in born]
        alive = [
            trial
            for trial in ledger.trials.values()
            if any(m.kimg == level for m in trial.measurements)
        ]
        ranked = sorted(alive, key=lambda trial: at(trial, level))
        assert len(alive) == POPULATION
        assert {t.number for t in gone} == {t.number for t in ranked[:2]}
        for trial in born:
            assert trial.donor is not None
            assert trial.donor.number in {t.number for t in ranked[-2:]}
            assert trial.measurements[0].kimg == level + 100.0
        assert all((t.state, t.reason, t.total_kimg) == ("STOPPED", kind, level) for t in gone)
    assert ledger.count_by_state()["COMPLETED"] == POPULATION


def test_a_copy_begins_with_what_its_donor_had_learnt(tmp_path: Path) -> None:
    ledger = Ledger(drive(spec_of(), tmp_path, runs=growing(tmp_path)))
    assert exploits(ledger)
    for trial in exploits(ledger):
        assert trial.donor is not None
        had = at(ledger.trials[trial.donor.number], trial.donor.kimg)
        for before, measured in pairwise([had, *(m.metrics[METRIC] for m in trial.measurements)]):
            assert measured - before == pytest.approx(100 * pace(trial.params))


def test_exploiting_pays(tmp_path: Path) -> None:
    """The worst of a population that exploits is far ahead of the worst of one that does not."""
    worst = {}
    for name, scheduler in (("pbt", PBT), ("none", {"kind": "none"})):
        folder = tmp_path / name
        spec = spec_of(scheduler)
        ledger = Ledger(drive(spec, folder, runs=growing(tmp_path)))
        whole = [t for t in ledger.trials.values() if t.state == "COMPLETED"]
        ends = sorted(at(trial, 400.0) for trial in whole)
        worst[name] = sum(ends) / len(ends)
    assert worst["pbt"] > 1.3 * worst["none"]


def test_one_that_diverged_is_replaced(tmp_path: Path) -> None:
    faults = {0: Fault("infeasible", 150.0)}
    ledger = Ledger(drive(spec_of(), tmp_path, runs=growing(tmp_path, faults=faults)))
    heir = next(trial for trial in exploits(ledger) if trial.replaces == 0)
    assert ledger.trials[0].state == "INFEASIBLE"
    assert heir.first.inherited_kimg == 200.0
    assert ledger.unfinished() == []


def test_a_population_of_which_all_fail_ends(tmp_path: Path) -> None:
    faults = {number: Fault("nan", 100.0 if number else 200.0) for number in range(POPULATION)}
    ledger = Ledger(drive(spec_of(), tmp_path, runs=growing(tmp_path, faults=faults)))
    assert ledger.unfinished() == []


def test_a_space_with_nothing_new_to_offer_lets_the_worst_go_on(tmp_path: Path) -> None:
    rates = {"type": "categorical", "choices": [0.01, 0.1]}
    space = {"learning_rate": rates, "d_dropout": {"type": "categorical", "choices": [0.1, 0.3]}}
    stages = [{"kind": "random_grid", "trials": 4}]
    budget = {"kimg_per_trial": 400.0, "measure_kimg": 100.0, "trials": 4}
    spec = spec_of(space=space, stages=stages, budget=budget)
    ledger = Ledger(drive(spec, tmp_path, runs=growing(tmp_path)))
    assert ledger.count_by_state()["COMPLETED"] == len(ledger.trials) == 4


@pytest.mark.parametrize("kind", ["pbt", "pb2"])
def test_a_shadow_of_the_replaced_is_trained_on(tmp_path: Path, kind: str) -> None:
    spec = spec_of(PBT | {"kind": kind, "shadow": 1.0})
    ledger = Ledger(drive(spec, tmp_path, runs=growing(tmp_path)))
    gone = [trial for trial in ledger.trials.values() if trial.state == "STOPPED"]
    assert len(gone) == 2 * len(LEVELS)
    for trial in gone:
        assert at_end(trial) == pytest.approx(at(trial, trial.kimg) + rest(trial))


def at_end(trial: TrialState) -> float:
    return trial.shadows[0].measurements[-1].metrics[METRIC]


def rest(trial: TrialState) -> float:
    return (400.0 - trial.kimg) * pace(trial.params)


@pytest.mark.parametrize("scheduler", [PBT, PB2], ids=["pbt", "pb2"])
@pytest.mark.parametrize("kills", [(), (30, 60, 20)])
def test_a_replay_decides_the_same(
    tmp_path: Path, kills: tuple[int, ...], scheduler: dict[str, Any]
) -> None:
    faults = {3: Fault("infeasible", 150.0)}
    drive(spec_of(scheduler), tmp_path, kills, runs=growing(tmp_path, faults=faults))
    found = replay(tmp_path, train=False, tolerance=1e-3, say=print)
    assert (found.verdict, found.first_difference) == ("equal", None)
    # Three times two exploits and six ends, but for the one that ended by itself.
    assert found.equal("decision")[0] > 6 + 5


SPACE: Space = {
    "learning_rate": (FloatDomain(type="float", low=0.01, high=1.0, log=True),),
    "d_dropout": (FloatDomain(type="float", low=0.0, high=0.6, step=0.1),),
    "momentum": (FloatDomain(type="float", low=0.0, high=0.9),),
    "momentum_epochs": (IntDomain(type="int", low=1, high=9, step=2),),
    "optimizer": (CategoricalDomain(type="categorical", choices=("sgd", "adam")),),
    "adam_beta1": (
        CategoricalDomain(
            type="categorical", choices=(0.0, 0.5, 0.9), when={"optimizer": ("adam",)}
        ),
    ),
    "g_init_range": (FloatDomain(type="float", low=0.01, high=0.1),),
}


@pytest.mark.parametrize("kind", ["pbt", "pb2"])
@given(
    seed=st.integers(0, 10_000),
    optimizer=st.sampled_from(["sgd", "adam"]),
    rate=st.floats(0.01, 1.0),
    dropout=st.integers(0, 6),
    momentum=st.floats(0.0, 0.9),
    epochs=st.sampled_from([1, 3, 5, 7, 9]),
    beta=st.sampled_from([0.0, 0.5, 0.9]),
)
def test_what_is_explored_stays_in_its_domain_and_branch(
    kind: str,
    seed: int,
    optimizer: str,
    rate: float,
    dropout: int,
    momentum: float,
    epochs: int,
    beta: float,
) -> None:
    point = {
        "learning_rate": rate,
        "d_dropout": round(dropout * 0.1, 1),
        "momentum": momentum,
        "momentum_epochs": epochs,
        "optimizer": optimizer,
        "g_init_range": 0.05,
    }
    point |= {"adam_beta1": beta} if optimizer == "adam" else {}
    params = canonical_point(SPACE, point)
    for found in explored(kind, params, np.random.default_rng(seed)):
        assert canonical_point(SPACE, found) == found
        assert found.keys() == params.keys()
        assert (found["optimizer"], found["g_init_range"]) == (optimizer, 0.05)


def explored(kind: str, params: Params, rng: np.random.Generator) -> list[Params]:
    if kind == "pbt":
        return [perturbed(SPACE, params, rng)]
    times = np.repeat([0.0, 1.0], 4)
    process = TimeVaryingGP.fit(rng.random((8, len(SPACE))), times, rng.standard_normal(8))
    every = guided(SPACE, params, process, 2.0, rng.random((2, len(SPACE))), rng)
    return list(islice(every, 5))


def test_numbers_move_by_a_fifth_and_choices_to_a_neighbour() -> None:
    params = canonical_point(
        SPACE,
        {
            "learning_rate": 0.1,
            "d_dropout": 0.3,
            "momentum": 0.5,
            "momentum_epochs": 5,
            "optimizer": "adam",
            "adam_beta1": 0.0,
            "g_init_range": 0.05,
        },
    )
    found = [perturbed(SPACE, params, np.random.default_rng(seed)) for seed in range(400)]
    moved = [math.isclose(one["momentum"], 0.4) for one in found]  # type: ignore[arg-type]
    assert 0.28 < np.mean(moved) < 0.47  # half of three quarters
    rates = [one["learning_rate"] for one in found]
    anew = [not any(math.isclose(r, e) for e in (0.08, 0.12)) for r in rates]  # type: ignore[arg-type]
    assert 0.18 < np.mean(anew) < 0.32
    assert {one["momentum_epochs"] for one in found} == {1, 3, 5, 7, 9}
    assert {one["adam_beta1"] for one in found} == {0.0, 0.5, 0.9}
    assert active_domain(SPACE["adam_beta1"], found[0]) is not None


def test_what_no_checkpoint_can_take_is_not_changed() -> None:
    names = {"d_dropout", "learning_rate", "momentum", "momentum_epochs", "adam_beta1"}
    assert set(changeable(SPACE)) == names


@pytest.mark.parametrize(
    ("sections", "complaint"),
    [
        ({"scheduler": {"kind": "pbt"}}, "`interval_kimg` must be given"),
        ({"scheduler": PBT | {"interval_kimg": 150.0}}, "a multiple of `measure_kimg`"),
        ({"scheduler": PBT | {"interval_kimg": 400.0}}, "`interval_kimg < kimg_per_trial`"),
        ({"scheduler": {"kind": "none", "interval_kimg": 1.0}}, "needs `kind: pbt` or `pb2`"),
        ({"scheduler": {"kind": "pb2"}}, "`interval_kimg` must be given where `kind` is pb2"),
        ({"scheduler": PB2 | {"interval_kimg": 150.0}}, "a multiple of `measure_kimg`"),
        ({"scheduler": PB2, "replication": {"seeds": 2}}, "`kind: pb2` needs `seeds: 1`"),
        ({"scheduler": PB2, "confirm": {"top": 1, "seeds": 3}}, "with `kind: pb2`, whose winner"),
        (
            {
                "scheduler": PB2,
                "space": {
                    name: {"type": "categorical", "choices": [0.1, 0.3]}
                    for name in ("learning_rate", "d_dropout")
                },
                "stages": [{"kind": "random_grid", "trials": 2}],
                "budget": {"kimg_per_trial": 400.0, "measure_kimg": 100.0, "trials": 2},
            },
            "`kind: pb2` needs a searched number that may change in training",
        ),
        ({"scheduler": PBT, "replication": {"seeds": 2}}, "needs `seeds: 1` and `folds: 1`"),
        ({"scheduler": PBT, "confirm": {"top": 1, "seeds": 3}}, "whose winner is a lineage"),
    ],
)
def test_what_a_population_cannot_have_is_refused(
    sections: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(SpecError, match=complaint):
        study(**sections)


def test_an_exploit_needs_a_donor_that_is_there(tmp_path: Path) -> None:
    events = drive(spec_of(), tmp_path, runs=growing(tmp_path))
    place = next(i for i, e in enumerate(events) if isinstance(e, Proposed) and e.donor)
    exploit = events[place]
    assert isinstance(exploit, Proposed)
    assert exploit.donor is not None
    before = Ledger(events[:place])
    for change in (
        {"donor": exploit.donor.model_copy(update={"kimg": 50.0})},
        {"donor": exploit.donor.model_copy(update={"number": 99})},
        {"replaces": 99},
    ):
        with pytest.raises(LedgerError):
            before.check(exploit.model_copy(update=change))
    before.apply(exploit)
    begins = Started(number=exploit.number, attempt=0, node="n", device="cpu", pid=1)
    with pytest.raises(LedgerError, match="that of a checkpoint"):
        before.check(begins)  # from 0 kimg it would be another trial
    with pytest.raises(ValueError, match="has a donor"):
        Proposed.model_validate(exploit.model_dump() | {"donor": None})
