"""Shadows: stopped trials that are trained on, by which nothing else changes."""

import math
from pathlib import Path
from typing import Any

import pytest
from closed_form import ClosedFormRuns, Fault, study
from fake_pool import drive
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest
from tiny_schedulers import SCHEDULERS, noisy

from search.events import Replicated
from search.ledger import Ledger, LedgerError
from search.record import read_measurements, read_runs, read_trials, write_record
from search.record_rows import TrialRecord
from search.replay import replay
from search.shadow import (
    FalseKills,
    describe_shadow,
    shadowed,
    wilson_interval,
)
from search.study import SpecError, StudySpec
from search.trial import TrialState

METRIC = "validation_log_likelihood"
RULES = ("asha", "promotion", "median")


def spec_of(name: str, shadow: float = 1.0, **sections: Any) -> StudySpec:
    return study(grid=9, model=0, scheduler=SCHEDULERS[name] | {"shadow": shadow}, **sections)


def stopped(ledger: Ledger) -> list[TrialState]:
    return [trial for trial in ledger.trials.values() if trial.state == "STOPPED"]


def rows(ledger: Ledger) -> list[TrialRecord]:
    """All that the record says of trials, but when it happened."""
    others = {"dataset_digest": "d", "protocol_digest": "p"}
    times = {"started_at": None, "ended_at": None}
    records = [
        TrialRecord.of(trial, METRIC, "maximize", **others) for trial in ledger.trials.values()
    ]
    return [type(one)(**(vars(one) | times)) for one in records]


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("seeds", [1, 2])
@settings(max_examples=5, deadline=None)
@given(
    seed=st.integers(0, 1000),
    kills=st.lists(st.integers(1, 60), max_size=4),
    workers=st.integers(1, 4),
)
def test_every_stopped_run_is_continued_once_through_any_kills(
    tmp_path_factory: pytest.TempPathFactory,
    name: str,
    seeds: int,
    seed: int,
    kills: list[int],
    workers: int,
) -> None:
    folder = tmp_path_factory.mktemp(name)
    spec = spec_of(name, replication={"seeds": seeds})
    runs = noisy(folder)
    events = drive(spec, folder, kills, runs=runs, seed=seed, workers=workers)
    ledger = Ledger(events)
    assert stopped(ledger)
    assert ledger.unfinished() == []
    for trial in ledger.trials.values():
        halted = [run for run in trial.search_runs if run.state == "STOPPED"]
        assert list(trial.shadows) == [run.replicate for run in halted]
        for run in halted:
            shadow = trial.shadows[run.replicate]
            assert (shadow.state, shadow.seed, shadow.fold) == ("COMPLETED", run.seed, run.fold)
            # It is the run's own course gone on with, as if nobody had stopped it.
            assert [m.kimg for m in shadow.measurements] == [100.0, 200.0, 300.0, 400.0]
            values = [m.metrics for m in run.measurements]
            whole = [m.metrics for m in shadow.measurements]
            for before, after in zip(values, whole, strict=False):
                assert (before[METRIC], before["state"]) == (after[METRIC], after["state"])


def test_it_goes_on_from_the_checkpoint_of_the_stopped_run(tmp_path: Path) -> None:
    ledger = Ledger(drive(spec_of("asha"), tmp_path))
    for trial in stopped(ledger):
        shadow = trial.shadows[0]
        assert shadow.attempts == 1
        assert shadow.from_kimg == trial.first.total_kimg > 0
        assert shadow.measurements[-1].metrics["loaded_kimg"] == shadow.from_kimg


def test_it_begins_anew_where_that_checkpoint_is_lost(tmp_path: Path) -> None:
    """With the same seed the course is the same."""
    whole = Ledger(drive(spec_of("asha"), tmp_path / "whole", seed=3))
    spec = spec_of("asha", shadow=0.0)
    before = Ledger(drive(spec, tmp_path / "lost", seed=3))
    for trial in stopped(before):
        checkpoint = trial.first.checkpoint
        assert checkpoint is not None
        (tmp_path / "lost" / checkpoint.path).rename(tmp_path / f"away-{trial.number}")
    lost = Ledger(drive(spec_of("asha"), tmp_path / "lost", seed=3))
    assert stopped(lost)
    for trial in stopped(lost):
        ours, other = trial.shadows[0], whole.trials[trial.number].shadows[0]
        assert (ours.from_kimg, ours.state) == (0.0, "COMPLETED")
        states = [[m.metrics["state"] for m in run.measurements] for run in (ours, other)]
        assert states[0] == states[1]


@pytest.mark.parametrize("name", RULES)
def test_nothing_that_is_said_of_trials_changes(tmp_path: Path, name: str) -> None:
    plain, told = (
        Ledger(drive(spec_of(name, share), tmp_path / f"{share}", seed=5)) for share in (0.0, 1.0)
    )
    assert rows(plain) == rows(told)
    assert [t.eligible for t in plain.trials.values()] == [
        t.eligible for t in told.trials.values()
    ]
    best, same = plain.incumbent(METRIC), told.incumbent(METRIC)
    assert best is not None
    assert same is not None
    assert best.number == same.number
    assert any(trial.shadows for trial in told.trials.values())


def test_a_shadow_that_diverges_counts_against_nobody(tmp_path: Path) -> None:
    spec = spec_of("asha")
    first = Ledger(drive(spec, tmp_path / "first", seed=5))
    number, replicate = stopped(first)[0].number, len(stopped(first)[0].search_runs)
    faults = {(number, replicate): Fault("infeasible", 350.0)}
    runs = ClosedFormRuns(folder=tmp_path / "second", faults=faults)
    ledger = Ledger(drive(spec, tmp_path / "second", runs=runs, seed=5))
    trial = ledger.trials[number]
    assert trial.shadows[0].state == "INFEASIBLE"
    assert (trial.state, trial.eligible) == ("STOPPED", True)
    found = FalseKills.of(spec, ledger, None)
    assert found.shadowed == found.stopped == len(stopped(ledger))


def test_those_that_are_stopped_later_are_shadowed_too(tmp_path: Path) -> None:
    """A study that is extended does not mind the shadows of before."""
    spec = spec_of("asha")
    drive(spec_of("asha", 0.0), tmp_path, seed=1)
    once = Ledger(drive(spec, tmp_path, seed=1))
    twice = Ledger(drive(spec, tmp_path, seed=1))
    assert sum(len(t.runs) for t in once.trials.values()) == sum(
        len(t.runs) for t in twice.trials.values()
    )


@pytest.mark.parametrize(("gain", "untrained", "false_kills"), [(0, -1e9, 0), (1e4, -1e9, 1)])
def test_false_kills_are_those_that_would_have_won(
    tmp_path: Path, gain: float, untrained: float, false_kills: int
) -> None:
    spec = spec_of("asha")
    ledger = Ledger(drive(spec, tmp_path))
    late = stopped(ledger)[1].shadows[0].measurements
    scored = {METRIC: late[-1].metrics[METRIC] + gain}
    late[-1] = late[-1].model_copy(update={"metrics": late[-1].metrics | scored})
    found = FalseKills.of(spec, ledger, untrained)
    count = len(stopped(ledger))
    assert (found.stopped, found.shadowed, found.false_kills) == (count, count, false_kills)
    assert FalseKills.of(spec, ledger, 1e6).false_kills == 0  # no better than untrained


@pytest.mark.parametrize(("successes", "trials"), [(0, 1), (0, 20), (1, 3), (10, 20), (7, 7)])
def test_the_interval_is_wilsons(successes: int, trials: int) -> None:
    expected = binomtest(successes, trials).proportion_ci(0.95, method="wilson")
    assert wilson_interval(successes, trials) == pytest.approx((expected.low, expected.high))


def test_the_share_is_kept_by_a_hash_of_seed_and_number() -> None:
    for share in (0.0, 0.05, 0.5, 1.0):
        count = sum(shadowed(7, number, share) for number in range(10_000))
        assert abs(count - 10_000 * share) <= 4 * math.sqrt(10_000 * share * (1 - share))
    first, other = ([shadowed(seed, n, 0.5) for n in range(64)] for seed in (1, 2))
    assert first != other


def test_the_record_shows_them_by_their_purpose(tmp_path: Path) -> None:
    ledger = Ledger(drive(spec_of("asha"), tmp_path))
    write_record(ledger, tmp_path, "d", "p", {})
    shadows = [run for run in read_runs(tmp_path) if run.purpose == "shadow"]
    assert {(run.number, run.continues) for run in shadows} == {
        (trial.number, 0) for trial in stopped(ledger)
    }
    assert {row.state for row in read_trials(tmp_path)} == {"COMPLETED", "STOPPED"}
    keys = [(m.number, m.replicate, m.kimg) for m in read_measurements(tmp_path)]
    assert len(set(keys)) == len(keys)


def test_only_a_stopped_run_is_continued_and_only_once(tmp_path: Path) -> None:
    events = drive(spec_of("asha"), tmp_path)
    ledger = Ledger(events)
    trial = stopped(ledger)[0]
    claim = Replicated(
        number=trial.number, replicate=2, purpose="shadow", seed=trial.seed, continues=0
    )
    with pytest.raises(LedgerError, match="continued already"):
        ledger.apply(claim)
    whole = next(t for t in ledger.trials.values() if t.state == "COMPLETED")
    claim = Replicated(
        number=whole.number, replicate=1, purpose="shadow", seed=whole.seed, continues=0
    )
    with pytest.raises(LedgerError, match="no run of the search that was stopped"):
        ledger.apply(claim)
    with pytest.raises(ValueError, match="must say which run it continues"):
        Replicated(number=0, replicate=1, purpose="shadow", seed=0)


@pytest.mark.parametrize("kills", [(), (40, 60, 20)])
def test_a_replay_claims_the_same_shadows(tmp_path: Path, kills: tuple[int, ...]) -> None:
    events = drive(spec_of("asha", replication={"seeds": 2}), tmp_path, kills)
    found = replay(tmp_path, train=False, tolerance=1e-3, say=print)
    assert (found.verdict, found.first_difference) == ("equal", None)
    claimed = [event for event in events if isinstance(event, Replicated)]
    assert found.equal("decision")[0] > len(claimed) > 0


def test_it_is_said_in_a_line() -> None:
    entry = FalseKills(stopped=40, shadowed=3, false_kills=1).to_mapping()
    assert "1 would have won: 33 % false kills (95 % interval 6 to 79 %)" in describe_shadow(entry)
    none = FalseKills(stopped=4, shadowed=0, false_kills=0).to_mapping()
    assert none["false_kill_rate"] is none["interval"] is None
    assert describe_shadow(none) == "shadow: none of 4 stopped trials was trained on"


def test_a_study_that_stops_nobody_has_no_shadows() -> None:
    with pytest.raises(SpecError, match="shadow"):
        study(scheduler={"kind": "none", "shadow": 0.1})
    with pytest.raises(SpecError, match="shadow"):
        study(scheduler=SCHEDULERS["asha"] | {"shadow": 1.5})
