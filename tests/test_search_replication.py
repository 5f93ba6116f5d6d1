"""Trials of several runs: judged by their means, each run once, whatever is killed when."""

from dataclasses import replace
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import pytest
from closed_form import Fault, open_history, study
from fake_pool import FakePool, drive
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_schedulers import SCHEDULERS, noisy

from search.cell import cell_key
from search.early_stopping import early_stopping
from search.events import (
    Checkpointed,
    Ended,
    Event,
    Measured,
    Paused,
    Promoted,
    Proposed,
    RunKey,
    SessionOpened,
    Started,
)
from search.ledger import Ledger
from search.scheduling import course
from search.study import SpecError, StudySpec
from search.trial_run import Progress

METRIC = "validation_log_likelihood"


def spec_of(name: str, **replication: int) -> StudySpec:
    replication = replication or {"seeds": 3}
    return study(grid=7, model=0, scheduler=SCHEDULERS[name], replication=replication)


def check_whole(ledger: Ledger, replicates: int = 3) -> None:
    """Every run exists once and has ended; every trial as its runs say."""
    assert len(ledger.trials) == len(ledger.cells) == 8
    assert ledger.unfinished() == []
    for trial in ledger.trials.values():
        assert list(trial.runs) == list(range(replicates))
        assert len({run.seed for run in trial.runs.values()}) == replicates


def stays_on_record(events: list[Event]) -> None:
    """No attempt begins anywhere but where the record says that a state was saved."""
    saved: dict[RunKey, float] = {}
    for event in events:
        if isinstance(event, Started):
            assert event.from_kimg == saved.get(event.run, 0.0)
        if isinstance(event, Checkpointed):
            saved[event.run] = event.kimg


@pytest.mark.parametrize("name", SCHEDULERS)
@settings(max_examples=6, deadline=None)
@given(
    seed=st.integers(0, 1000),
    kills=st.lists(st.integers(1, 60), max_size=4),
    workers=st.integers(1, 5),
)
def test_every_run_exists_once_in_any_order_through_any_kills(
    tmp_path_factory: pytest.TempPathFactory,
    name: str,
    seed: int,
    kills: list[int],
    workers: int,
) -> None:
    folder = tmp_path_factory.mktemp(name)
    spec = spec_of(name)
    events = drive(
        spec,
        folder,
        kills,
        runs=noisy(folder, points=name == "paired"),
        seed=seed,
        workers=workers,
    )
    ledger = Ledger(events)
    check_whole(ledger)
    stays_on_record(events)
    counts = ledger.count_by_state()
    assert counts["COMPLETED"] + counts["STOPPED"] == 8
    assert counts["COMPLETED"] >= 1
    if name == "none":
        assert counts["STOPPED"] == 0


def test_the_objective_is_the_mean_of_the_runs(tmp_path: Path) -> None:
    ledger = Ledger(drive(spec_of("none"), tmp_path, runs=noisy(tmp_path)))
    for trial in ledger.trials.values():
        scored = trial.objective(METRIC)
        assert scored is not None
        values = [max(m.metrics[METRIC] for m in run.measurements) for run in trial.search_runs]
        assert scored.value == pytest.approx(fmean(values))
        assert scored.standard_error == pytest.approx(stdev(values) / 3**0.5)
        assert scored.points_error == 1.0  # of three runs on the same points, as of one
        assert scored.replicates == 3


def test_folds_are_independent_points(tmp_path: Path) -> None:
    spec = spec_of("none", seeds=2, folds=4)
    ledger = Ledger(drive(spec, tmp_path, runs=noisy(tmp_path)))
    trial = ledger.trials[0]
    assert [run.fold for run in trial.runs.values()] == [0, 1, 2, 3, 0, 1, 2, 3]
    scored = trial.objective(METRIC)
    assert scored is not None
    assert scored.points_error == pytest.approx(1.0 / 4**0.5)


@pytest.mark.parametrize("name", ["asha", "hyperband", "paired"])
def test_a_rung_judges_means_and_stops_all_runs(tmp_path: Path, name: str) -> None:
    spec = spec_of(name)
    runs = noisy(tmp_path, points=name == "paired")
    events = drive(spec, tmp_path, runs=runs, workers=2)
    ledger = Ledger(events)
    stopped = [trial for trial in ledger.trials.values() if trial.state == "STOPPED"]
    assert stopped
    for trial in stopped:
        assert {run.state for run in trial.runs.values()} == {"STOPPED"}
        assert trial.reason == spec.scheduler.kind
    # No trial is stopped before all its runs stand at a rung.
    seen = Ledger()
    for event in events:
        if isinstance(event, Ended) and event.state == "STOPPED":
            one = course(seen.trials[event.number], METRIC)
            assert one.kimg >= 100.0
        seen.apply(event)


def test_a_run_waits_for_its_siblings_while_others_want_its_place(tmp_path: Path) -> None:
    events = drive(spec_of("asha"), tmp_path, runs=noisy(tmp_path), workers=1)
    assert any(isinstance(event, Paused) for event in events)
    seen = Ledger()
    for event in events:
        if isinstance(event, Measured) and event.kimg > 100.0:
            siblings = seen.trials[event.number].search_runs
            assert min(run.total_kimg for run in siblings) >= 100.0
        seen.apply(event)


def test_no_worker_idles_for_a_sibling(tmp_path: Path) -> None:
    spec = study(grid=1, model=0, scheduler=SCHEDULERS["asha"], replication={"seeds": 3})
    events = drive(spec, tmp_path, runs=noisy(tmp_path), workers=9)
    assert not any(isinstance(event, Paused) for event in events)


@pytest.mark.parametrize("kind", ["infeasible", "nan", "raise"])
@pytest.mark.parametrize("name", SCHEDULERS)
def test_one_bad_run_ends_its_trial(tmp_path: Path, name: str, kind: Any) -> None:
    runs = noisy(tmp_path, faults={(0, 1): Fault(kind, 100.0)})
    ledger = Ledger(drive(spec_of(name), tmp_path, (30,), runs=runs))
    check_whole(ledger)
    trial = ledger.trials[0]  # the best of all by its formula
    assert trial.state == ("FAILED" if kind == "raise" else "INFEASIBLE")
    assert trial.runs[1].state == trial.state
    others = {trial.runs[0].state, trial.runs[2].state}
    assert others <= {"STOPPED", "COMPLETED"}
    best = ledger.incumbent(METRIC)
    assert best is not None
    assert best.number != 0


@pytest.mark.parametrize("kills", [(), (4, 3, 5), (5, 6, 1, 9)])
def test_a_run_has_two_retries_in_all_through_any_kills(
    tmp_path: Path, kills: tuple[int, ...]
) -> None:
    faults = {0: Fault("raise", 50.0)}
    ledger = Ledger(drive(spec_of("none"), tmp_path, kills, runs=noisy(tmp_path, faults=faults)))
    lost = ledger.trials[0].first
    assert (lost.state, lost.retries) == ("FAILED", 2)
    assert lost.attempts >= 3


def test_promotion_takes_the_best_on_and_pauses_the_rest(tmp_path: Path) -> None:
    spec = study(grid=11, model=0, scheduler=SCHEDULERS["promotion"])
    events = drive(spec, tmp_path, (9, 20))
    ledger = Ledger(events)
    assert ledger.count_by_state()["COMPLETED"] == 1
    best = ledger.incumbent(METRIC)
    assert best is not None
    assert best.params == {"learning_rate": 0.1, "d_dropout": 0.3}
    # The best third of all is taken on, and whom the first to come let through.
    order = sorted(ledger.trials.values(), key=lambda t: t.curve()[100.0][METRIC], reverse=True)
    assert all(trial.kimg >= 300.0 for trial in order[:4])
    assert sum(trial.kimg == 100.0 for trial in order) >= 5
    waited = [event for event in events if isinstance(event, Paused)]
    assert len(waited) >= 12


@pytest.mark.parametrize("name", ["asha", "promotion", "hyperband", "median"])
def test_the_only_trial_is_never_stopped(tmp_path: Path, name: str) -> None:
    spec = study(grid=1, model=0, scheduler=SCHEDULERS[name])
    spec = spec.model_copy(update={"budget": spec.budget.model_copy(update={"trials": 1})})
    ledger = Ledger(drive(spec, tmp_path))
    assert [trial.state for trial in ledger.trials.values()] == ["COMPLETED"]


def test_trials_claim_all_their_runs_at_once(tmp_path: Path) -> None:
    events = drive(spec_of("none", seeds=2, folds=3), tmp_path, (2, 3), runs=noisy(tmp_path))
    proposed = [event for event in events if isinstance(event, Proposed)]
    assert {len(event.further_seeds) for event in proposed} == {5}
    check_whole(Ledger(events), 6)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"replication": {"adaptive": True}}, "`adaptive` needs `seeds` above 1"),
        (
            {"scheduler": {**SCHEDULERS["median"], "mode": "promotion"}},
            "`mode: promotion` needs `kind: asha`",
        ),
    ],
)
def test_what_makes_no_sense_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        study(**changes)


def test_a_run_whose_trial_stops_while_it_saves_is_ended(tmp_path: Path) -> None:
    spec = spec_of("asha", seeds=2)
    with open_history(tmp_path, spec) as history:
        pool = FakePool(spec, history, noisy(tmp_path), workers=2)
        pool._fill()
        first, second = RunKey(0, 0), RunKey(0, 1)
        at = Progress(kimg=100.0, elapsed_seconds=1.0, metrics={METRIC: 1.0})
        assert pool.referee.progressed(first, at)  # it waits for its sibling, and is being saved
        assert pool.referee.progressed(second, replace(at, metrics=None, infeasible="loss is nan"))
        pool.searcher.on_trial_complete("t2")
        pool.referee.finished(second)
        pool.searcher.on_trial_complete("t1")
        pool.referee.finished(first)
        assert history.ledger.trials[0].state == "INFEASIBLE"
        assert history.ledger.unfinished() == []


def test_who_has_ended_holds_up_no_promotion(tmp_path: Path) -> None:
    """The best at the first rung is stopped by request: the next in its place goes on."""
    spec = study(grid=11, model=0, scheduler=SCHEDULERS["promotion"])
    events: list[Event] = []
    for number in range(9):
        values = {100.0: 10.0 - number}
        events += course_events(spec, number, values)
    stopping = early_stopping(spec, tmp_path)
    assert stopping is not None
    assert stopping.waiting is not None
    ledger = Ledger([SessionOpened(pid=1), *events])
    first = stopping.waiting.decision(ledger)
    assert isinstance(first, Promoted)
    assert first.number == 0
    ledger.apply(Ended(number=0, state="STOPPED", reason="by request"))
    second = stopping.waiting.decision(ledger)
    assert isinstance(second, Promoted)
    assert second.number == 1


def course_events(spec: StudySpec, number: int, values: dict[float, float]) -> list[Event]:
    """A trial that was measured, and waits."""
    params: dict[str, float | int | str | bool] = {"learning_rate": 0.1, "d_dropout": number / 20}
    here = {"number": number}
    events: list[Event] = [
        Proposed(
            **here,
            stage="random_grid",
            stage_index=1,
            params=params,
            cell=cell_key(params),
            seed=number,
        ),
        Started(**here, attempt=0, node="n", device="cpu", pid=1),
    ]
    for kimg, value in values.items():
        metrics = {METRIC: value}
        events.append(Measured(**here, kimg=kimg, elapsed_seconds=1.0, metrics=metrics))
        events.append(Checkpointed(**here, kimg=kimg, path=f"tune/{number}"))
    return [*events, Paused(**here)]
