"""After the search: races for those who cannot be told apart, confirmation on fresh seeds."""

from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
from closed_form import ClosedFormRuns, Fault, study
from fake_pool import drive
from hypothesis import example, given, settings
from hypothesis import strategies as st

from search.confirming import (
    claims,
    confirmed,
    confirmed_entry,
    kept_back_at_pace,
    opening,
)
from search.events import (
    ConfirmationOpened,
    Ended,
    Event,
    LookedAtTest,
    Proposed,
    Replicated,
    RunKey,
    SessionOpened,
    Started,
)
from search.ledger import Ledger, LedgerError
from search.lines import Lines
from search.notices import notices_of
from search.outcome import winner_of
from search.racing import undecided
from search.study import SpecError, StudySpec

LINES = Lines(untrained=-1e9, real_data=1e9)
METRIC = "validation_log_likelihood"


def spec_of(**changes: Any) -> StudySpec:
    return study(grid=5, model=0, **({"confirm": {"top": 3, "seeds": 4}} | changes))


def noisy(folder: Path, **changes: Any) -> ClosedFormRuns:
    return ClosedFormRuns(folder=folder, **({"seed_noise": 20.0} | changes))


@settings(max_examples=8, deadline=None)
@given(
    seed=st.integers(0, 1000),
    kills=st.lists(st.integers(1, 80), max_size=4),
    adaptive=st.booleans(),
)
@example(seed=0, kills=[27, 43], adaptive=True)  # within the claims of a round
def test_every_run_of_every_phase_exists_once_through_any_kills(
    tmp_path_factory: pytest.TempPathFactory, seed: int, kills: list[int], adaptive: bool
) -> None:
    folder = tmp_path_factory.mktemp("phases")
    spec = spec_of(replication={"seeds": 3, "adaptive": True}) if adaptive else spec_of()
    ledger = Ledger(drive(spec, folder, kills, runs=noisy(folder), seed=seed))
    assert ledger.unfinished() == []
    straight = tmp_path_factory.mktemp("straight")
    same = Ledger(drive(spec, straight, runs=noisy(straight)))
    assert ledger.confirmation is not None
    assert same.confirmation is not None
    assert ledger.confirmation.numbers == same.confirmation.numbers
    assert [run.key for run in ledger.runs] == [run.key for run in same.runs]
    assert confirmed_entry(spec, ledger) == confirmed_entry(spec, same)


def test_the_best_are_trained_on_seeds_and_noise_of_their_own(tmp_path: Path) -> None:
    spec = spec_of()
    ledger = Ledger(drive(spec, tmp_path, runs=noisy(tmp_path)))
    ranking = [trial.number for trial in ledger.ranking(METRIC)]
    assert ledger.confirmation is not None
    assert list(ledger.confirmation.numbers) == ranking[:3]
    seeds = {run.seed for run in ledger.runs}
    assert len(seeds) == len(ledger.runs) == 6 + 3 * 4
    for number in ranking[:3]:
        fresh = ledger.trials[number].confirmations
        assert [run.noise_draw for run in fresh] == [1, 2, 3, 4]
        assert {run.state for run in fresh} == {"COMPLETED"}
    entry = confirmed_entry(spec, ledger)
    assert entry is not None
    for one in entry["ranking"]:
        fresh = ledger.trials[one["number"]].confirmations
        bests = [run.best(METRIC) for run in fresh]
        mean = fmean(best.metrics[METRIC] for best in bests if best is not None)
        assert one["mean"] == pytest.approx(mean)
    assert sum(one["probability_best"] for one in entry["ranking"]) == pytest.approx(1.0)
    assert entry["winners_curse"] > 0
    # The search's own objective is untouched by it.
    alone = Ledger(drive(spec_of(confirm={}), tmp_path / "alone", runs=noisy(tmp_path)))
    objectives = [(t.objective(METRIC), t.state) for t in alone.trials.values()]
    assert [(t.objective(METRIC), t.state) for t in ledger.trials.values()] == objectives


def test_a_trial_that_diverges_on_a_fresh_seed_cannot_win(tmp_path: Path) -> None:
    spec = spec_of()
    runs = noisy(tmp_path, seed_noise=1.0, faults={(0, 2): Fault("infeasible", 100.0)})
    ledger = Ledger(drive(spec, tmp_path, runs=runs))
    confirmation = confirmed(spec, ledger)
    assert confirmation is not None
    assert confirmation.standings[-1].number == 0  # the best of all by its formula
    assert confirmation.standings[-1].diverged == 1
    assert confirmation.winner is not None
    assert confirmation.winner.number != 0
    assert ledger.trials[0].state == "COMPLETED"


ALONE = {"top": 1, "seeds": 3}


@pytest.mark.parametrize("kills", [(), (5, 30, 4, 9), (34, 1, 1, 3)])
def test_where_the_only_one_diverges_the_next_in_rank_is_confirmed(
    tmp_path: Path, kills: tuple[int, ...]
) -> None:
    spec = spec_of(confirm=ALONE)
    faults = {(0, 2): Fault("infeasible", 100.0)}
    runs = noisy(tmp_path, seed_noise=1.0, faults=faults)
    ledger = Ledger(drive(spec, tmp_path, kills, runs=runs))
    first, second, *_ = (trial.number for trial in ledger.ranking(METRIC))
    assert ledger.confirmation is not None
    assert (first, ledger.confirmation.numbers) == (0, (first, second))
    fresh = {n: len(trial.confirmations) for n, trial in ledger.trials.items()}
    assert {n: count for n, count in fresh.items() if count} == {first: 3, second: 3}
    winner = winner_of(spec, ledger, LINES)
    assert winner is not None
    assert winner.number == second
    (notice,) = notices_of(spec, ledger, winner, scored=True)
    assert f"trial {first} diverged on a fresh seed" in notice
    assert f"trial {second}, the next in rank, was confirmed in its place" in notice
    entry = confirmed_entry(spec, ledger)
    assert entry is not None
    assert (entry["seeds"], entry["ranking"][0]["number"]) == (3, second)


def test_where_all_diverge_on_fresh_seeds_that_is_said(tmp_path: Path) -> None:
    spec = spec_of(confirm=ALONE)
    faults = {(number, 1): Fault("infeasible", 100.0) for number in range(6)}
    ledger = Ledger(drive(spec, tmp_path, runs=noisy(tmp_path, faults=faults)))
    assert {len(trial.confirmations) for trial in ledger.trials.values()} == {3}
    assert winner_of(spec, ledger, LINES) is None
    (notice,) = notices_of(spec, ledger, None, scored=True)
    assert notice.startswith("each of trials ")
    assert notice.endswith(", all that might win, diverged on a fresh seed")
    entry = confirmed_entry(spec, ledger)
    assert entry is not None
    assert (entry["mean"], entry["seeds"], entry["probability_best"]) == (None, 0, None)


@pytest.mark.parametrize("seeds_in_time", [0, 1])
def test_without_time_to_confirm_the_next_in_rank_is_named_unconfirmed(
    tmp_path: Path, seeds_in_time: int
) -> None:
    """The best diverged on its first fresh seed; of the others none, or too few, came in time."""
    spec = spec_of(confirm={"top": 3, "seeds": 3})
    faults = {(0, 1): Fault("infeasible", 100.0)}
    ledger = Ledger()
    for event in drive(spec, tmp_path, runs=noisy(tmp_path, seed_noise=1.0, faults=faults)):
        late = (
            isinstance(event, Ended)
            and event.state == "COMPLETED"
            and ledger.run(event.run).noise_draw > seeds_in_time
        )
        cut = {"state": "STOPPED", "reason": "time_budget"}
        ledger.apply(event.model_copy(update=cut) if late else event)
    first, second, *_ = (trial.number for trial in ledger.ranking(METRIC))
    winner = winner_of(spec, ledger, LINES)
    assert winner is not None
    assert (first, winner.number) == (0, second)
    (notice,) = notices_of(spec, ledger, winner, scored=True)
    assert "trial 0 diverged on a fresh seed" in notice
    assert f"trial {second}, the next in rank, is not confirmed" in notice


def test_a_confirmation_as_asked_for_needs_no_notice(tmp_path: Path) -> None:
    spec = spec_of()
    ledger = Ledger(drive(spec, tmp_path, runs=noisy(tmp_path)))
    assert notices_of(spec, ledger, winner_of(spec, ledger, LINES), scored=True) == []
    alone = spec_of(confirm={})
    assert notices_of(alone, ledger, None, scored=False) == []


def test_a_confirmation_opens_again_for_others_only(tmp_path: Path) -> None:
    spec = spec_of()
    ledger = Ledger(drive(spec, tmp_path, runs=noisy(tmp_path)))
    assert opening(spec, ledger, LINES) is None
    assert claims(spec, ledger) == []
    assert ledger.confirmation is not None
    first, *_ = ledger.confirmation.numbers
    other = next(n for n in ledger.trials if n not in ledger.confirmation.numbers)
    ledger.apply(ConfirmationOpened(numbers=(first, other), seeds=4))
    assert {claim.number for claim in claims(spec, ledger)} == {other}
    with pytest.raises(LedgerError, match="were never proposed"):
        ledger.apply(ConfirmationOpened(numbers=(99,), seeds=1))


def test_the_test_set_is_looked_at_once() -> None:
    look = LookedAtTest(number=0, replicates=(0,), scores={"test": {"log_likelihood": 1.0}})
    ledger = Ledger([SessionOpened(pid=1), look])
    with pytest.raises(LedgerError, match="looked at already, for trial 0"):
        ledger.apply(look)
    ledger.apply(look.model_copy(update={"again": True}))
    assert len(ledger.looks) == 2


def test_a_race_is_among_those_who_may_be_the_best() -> None:
    def alone(scores: dict[int, list[float]]) -> set[int]:
        return undecided({n: [(0, score) for score in own] for n, own in scores.items()})

    assert alone({0: [10.0, 10.1], 1: [5.0, 5.1], 2: [9.9, 10.15]}) == {0, 2}
    assert alone({0: [10.0, 10.1], 1: [5.0]}) == set()
    assert alone({0: [3.0], 1: [9.0], 2: [8.0]}) == {1, 2}  # nothing tells what chance is
    assert alone({0: [3.0]}) == alone({}) == set()


def race(events: list[Event]) -> list[Replicated]:
    return [e for e in events if isinstance(e, Replicated) and e.purpose == "race"]


def test_seeds_are_spent_where_the_best_cannot_be_told_apart(tmp_path: Path) -> None:
    replication = {"seeds": 5, "adaptive": True}
    spec = spec_of(replication=replication, confirm={})
    quiet = drive(spec, tmp_path / "a", runs=noisy(tmp_path / "a", seed_noise=0.01))
    noise = drive(spec, tmp_path / "b", runs=noisy(tmp_path / "b", seed_noise=100.0))
    assert {len(e.further_seeds) for e in noise if isinstance(e, Proposed)} == {0}
    assert len(race(quiet)) == 2  # what chance is, by the best two
    assert len(race(noise)) > len(race(quiet))
    most = max(len(trial.runs) for trial in Ledger(noise).trials.values())
    assert most <= 5


def test_a_race_adds_whole_rounds_of_folds(tmp_path: Path) -> None:
    replication = {"seeds": 3, "folds": 2, "adaptive": True}
    spec = spec_of(replication=replication, confirm={})
    events = drive(spec, tmp_path, runs=noisy(tmp_path))
    for trial in Ledger(events).trials.values():
        folds = [run.fold for run in trial.runs.values()]
        assert folds.count(0) == folds.count(1)


def test_one_seed_tells_nothing_from_chance() -> None:
    with pytest.raises(SpecError, match="`seeds >= 2` must hold where `top > 1`"):
        study(confirm={"top": 2, "seeds": 1})


def test_a_confirmation_that_the_clock_cut_is_made_up_for(tmp_path: Path) -> None:
    spec = spec_of()
    events = drive(spec, tmp_path, runs=noisy(tmp_path))
    ledger = Ledger()
    for event in events:
        last = isinstance(event, Ended) and event.run == RunKey(0, 3)
        ledger.apply(
            Ended(**RunKey(0, 3)._asdict(), state="STOPPED", reason="time_budget")
            if last
            else event
        )
    confirmation = confirmed(spec, ledger)
    assert confirmation is not None
    assert {one.number: one.seeds for one in confirmation.standings}[0] == 3
    (again,) = claims(spec, ledger)
    assert (again.number, again.replicate, again.noise_draw) == (0, 5, 3)


def test_all_trials_have_their_first_seed_before_any_has_its_second(tmp_path: Path) -> None:
    spec = spec_of()
    events = drive(spec, tmp_path, runs=noisy(tmp_path), workers=1)
    ledger = Ledger(events)
    starts = [ledger.run(e.run) for e in events if isinstance(e, Started)]
    draws = [run.noise_draw for run in starts if run.purpose == "confirmation"]
    assert draws == sorted(draws)


def test_time_is_kept_back_at_the_pace_that_runs_keep() -> None:
    """Three trials on four seeds in full: by the plan's pace, then by that of where they train."""
    spec = spec_of()
    kimg = spec.budget.kimg_per_trial
    assert kept_back_at_pace(spec, seconds_per_kimg=0.5, room=12) == 0.5 * kimg
    assert kept_back_at_pace(spec, seconds_per_kimg=0.5, room=5) == 3 * 0.5 * kimg
    timed = spec.model_copy(update={"budget": spec.budget.model_copy(update={"time": 100.0})})
    assert kept_back_at_pace(timed, seconds_per_kimg=0.5, room=1) == 50.0  # half of it at most
