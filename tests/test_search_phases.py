"""The phases of a study in virtual time: cut by the clock, killed, extended, gone on with."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from closed_form import ClosedFormRuns, open_history, study
from fake_pool import FakeClock, Turn, drive, take_turn
from hypothesis import given, settings
from hypothesis import strategies as st

from search.cell import cell_key
from search.confirming import claims, opening
from search.events import (
    Checkpointed,
    ConfirmationOpened,
    Event,
    Extended,
    Measured,
    Proposed,
    Purpose,
    RaceOpened,
    Replicated,
    SessionClosed,
    SessionOpened,
    Started,
)
from search.journal import Journal
from search.ledger import Ledger
from search.lines import Lines
from search.phases import Phases
from search.proposer import Proposer
from search.refold import Refold
from search.requests import Enqueue, ask
from search.run_state import RunState
from search.stop_request import StopRequest, StudyInterrupted
from search.study import StudySpec

TICK = FakeClock.TICK
LINES = Lines(untrained=-1e9, real_data=1e9)
PLENTY = 10_000 * TICK
CONFIRM = {"top": 2, "seeds": 3}
RACE = {"seeds": 3, "adaptive": True}
ASHA = {"kind": "asha", "grace_kimg": 100.0}
SHADOWED = ASHA | {"shadow": 1.0}
WHOLE = Turn()


def spec_of(ticks: int, trials: int = 7, **changes: Any) -> StudySpec:
    budget = {"kimg_per_trial": 400.0, "measure_kimg": 100.0, "trials": trials}
    sections: dict[str, Any] = {"budget": budget | {"time": ticks * TICK}, "confirm": CONFIRM}
    return study(grid=11, model=0, **(sections | changes))


@dataclass
class Driven:
    """A study in one folder and one virtual time, taken up in turns."""

    spec: StudySpec
    folder: Path
    seed: int = 0
    noise: float = 20.0
    clock: FakeClock = field(default_factory=FakeClock)

    @property
    def runs(self) -> ClosedFormRuns:
        return ClosedFormRuns(folder=self.folder, seed_noise=self.noise)

    @property
    def events(self) -> list[Event]:
        return list(Journal.read(self.folder / "journal.jsonl"))

    @property
    def ledger(self) -> Ledger:
        return Ledger(self.events)

    @property
    def closed(self) -> str:
        """How the last session ended."""
        return [e.reason for e in self.events if isinstance(e, SessionClosed)][-1]

    def take(self, *turns: Turn) -> Ledger:
        drive(
            self.spec,
            self.folder,
            turns=turns or (WHOLE,),
            runs=self.runs,
            seed=self.seed,
            clock=self.clock,
        )
        return self.ledger

    def die_after(self, wanted: Callable[[Event], bool], turn: Turn = WHOLE) -> Ledger:
        """Takes it up until the first such event is written."""
        whole = Driven(self.spec, self.folder / "whole", self.seed)
        whole.take(turn)
        opened = next(i for i, e in enumerate(whole.events) if isinstance(e, SessionOpened))
        kill = next(i for i, event in enumerate(whole.events) if wanted(event)) - opened
        turn = turn._replace(kill_after=kill)
        assert not take_turn(
            self.spec, self.folder, turn, runs=self.runs, seed=self.seed, clock=self.clock
        )
        return self.ledger

    def asked(self, seconds: float | None) -> tuple[list[str], bool]:
        """Which purposes are run with so much time left, and whether any was cut."""
        found: list[str] = []

        def run(stop: StopRequest, purpose: Purpose) -> None:
            found.append(purpose)

        with open_history(self.folder, self.spec) as history:
            phases = Phases(
                self.spec,
                history,
                LINES,
                run,
                seconds_left=lambda: seconds,
                kept_back=lambda: 0.0,
                say=lambda line: None,
            )
            return found, phases.run()


def claimed_for(purpose: Purpose) -> Callable[[Event], bool]:
    return lambda event: isinstance(event, Replicated) and event.purpose == purpose


def runs_for(ledger: Ledger, purpose: Purpose) -> list[RunState]:
    return [run for run in ledger.runs if run.purpose == purpose]


def cut(runs: Sequence[RunState]) -> list[RunState]:
    return [run for run in runs if run.reason == "time_budget"]


def test_within_a_confirmation_the_search_goes_on_no_more(tmp_path: Path) -> None:
    """However little is kept back by then; and that the clock had ended it is remembered."""
    study = Driven(spec_of(60, trials=12), tmp_path)
    before = study.die_after(claimed_for("confirmation"), Turn(kept_back=30 * TICK))
    assert 2 < len(before.trials) < 12  # the plan has more
    ledger = study.take()
    assert len(ledger.trials) == len(before.trials)
    assert sum(isinstance(event, ConfirmationOpened) for event in study.events) == 1
    assert [run.state for run in runs_for(ledger, "confirmation")] == ["COMPLETED"] * 6
    assert study.closed == "time_budget"


def test_what_is_kept_back_follows_the_pace_that_is_measured(tmp_path: Path) -> None:
    """By the plan half of the time is the confirmation's; trials turn out to be much faster."""
    spec = spec_of(60)
    kept = [PLENTY]
    remaining: list[float | None] = []

    def run(stop: StopRequest, purpose: Purpose) -> None:
        remaining.append(stop.remaining_seconds)
        proposed = Proposer(spec).propose(history.ledger)
        assert proposed is not None
        history.append(proposed)
        history.append(Started(number=0, attempt=0, node="n", device="cuda:0", pid=1))
        kept[0] = 5 * TICK
        remaining.append(stop.remaining_seconds)
        history.append(Measured(number=0, kimg=100.0, elapsed_seconds=1.0, metrics={}))
        remaining.append(stop.remaining_seconds)
        stop.ask("interrupted")

    with open_history(tmp_path, spec) as history:
        phases = Phases(
            spec,
            history,
            LINES,
            run,
            seconds_left=lambda: 60 * TICK,
            kept_back=lambda: kept[0],
            say=lambda line: None,
        )
        with pytest.raises(StudyInterrupted):
            phases.run()
    assert remaining == [30 * TICK, 30 * TICK, 55 * TICK]


def test_a_search_that_came_to_its_end_is_not_cut_by_a_later_phase(tmp_path: Path) -> None:
    study = Driven(spec_of(500), tmp_path)
    study.take()
    assert study.asked(0.0) == ([], False)


def test_within_the_shadows_nothing_else_is_run(tmp_path: Path) -> None:
    study = Driven(spec_of(500, scheduler=SHADOWED), tmp_path)
    study.die_after(claimed_for("shadow"))
    assert study.asked(100.0) == (["shadow"], False)
    assert study.asked(0.0) == (["shadow"], True)


@pytest.mark.parametrize(
    "extension",
    [
        SessionOpened(pid=1, extra_trials=1),
        SessionOpened(pid=1, extra_seconds=1.0),
        Extended(trials=1, request="a"),
        Extended(seconds=1.0, request="a"),
    ],
)
def test_what_is_added_begins_the_search_again(tmp_path: Path, extension: Event) -> None:
    """Its new end is recorded, though the best be the same."""
    study = Driven(spec_of(500), tmp_path)
    ledger = study.take()
    assert ledger.search_over
    assert opening(study.spec, ledger, LINES) is None
    ledger.apply(SessionOpened(pid=1))
    assert ledger.search_over
    ledger.apply(extension)
    assert not ledger.search_over
    again = opening(study.spec, ledger, LINES, out_of_time=True)
    assert again is not None
    assert ledger.confirmation is not None
    assert again.numbers == ledger.confirmation.numbers
    ledger.apply(again)
    assert ledger.search_over
    assert ledger.confirmation.out_of_time
    assert claims(study.spec, ledger) == []


def test_a_request_that_waits_begins_the_search_again(tmp_path: Path) -> None:
    study = Driven(spec_of(500), tmp_path)
    study.take()
    ask(tmp_path, Enqueue(params={"learning_rate": 0.02, "d_dropout": 0.45}))
    assert study.asked(100.0) == (["search"], False)


@pytest.mark.parametrize("folds", [1, 2])
def test_a_race_that_the_clock_cut_is_made_up_for(tmp_path: Path, folds: int) -> None:
    """By runs of the same round, once there is time: it has used up no seed."""
    spec = spec_of(29 * folds, confirm={}, replication=RACE | {"folds": folds})
    study = Driven(spec, tmp_path, noise=100.0)
    first = study.take()
    lost = cut(runs_for(first, "race"))
    assert lost
    assert len(study.take().runs) == len(first.runs)  # a turn without time claims nothing
    ledger = study.take(Turn(extra_seconds=PLENTY), Turn())
    assert study.closed == "finished"
    assert len({run.seed for run in ledger.runs}) == len(ledger.runs)
    whole = [run for run in runs_for(ledger, "race") if run.state == "COMPLETED"]
    assert len(whole) + len(lost) == len(runs_for(ledger, "race"))
    for number in {run.number for run in lost}:
        counts = Counter(run.fold for run in whole if run.number == number)
        assert len(counts) == folds
        assert len(set(counts.values())) == 1
    # As if there had been time at once.
    spec = spec_of(1000, confirm={}, replication=RACE | {"folds": folds})
    straight = Driven(spec, tmp_path / "straight", noise=100.0).take()
    most = [
        max(Counter(run.number for run in race).values())
        for race in (whole, runs_for(straight, "race"))
    ]
    assert most == [2 * folds] * 2


def test_shadows_that_the_clock_cut_are_made_up_for(tmp_path: Path) -> None:
    study = Driven(spec_of(20, confirm={}, scheduler=SHADOWED), tmp_path)
    first = study.take()
    lost = cut(runs_for(first, "shadow"))
    assert lost
    assert len(study.take().runs) == len(first.runs)
    ledger = study.take(Turn(extra_seconds=PLENTY), Turn())
    assert study.closed == "finished"
    assert cut(runs_for(ledger, "shadow")) == lost
    for trial in ledger.trials.values():
        halted = [run for run in trial.search_runs if run.reason == "asha"]
        assert list(trial.shadows) == [run.replicate for run in halted]
        for run in halted:
            shadow = trial.shadows[run.replicate]
            assert (shadow.state, shadow.seed) == ("COMPLETED", run.seed)
            assert [m.kimg for m in shadow.measurements] == [100.0, 200.0, 300.0, 400.0]


def test_no_confirmation_is_claimed_where_no_time_is_left(tmp_path: Path) -> None:
    study = Driven(spec_of(12), tmp_path)
    ledger = study.take(Turn(), Turn(), Turn())
    assert ledger.confirmation is not None
    assert runs_for(ledger, "confirmation") == []
    assert study.closed == "time_budget"


@pytest.mark.parametrize("ticks", [500, 1])
def test_what_was_saved_in_full_is_completed(tmp_path: Path, ticks: int) -> None:
    """Though its driver died before it said so; whether or not there is time left."""
    study = Driven(spec_of(500, confirm={}, scheduler=ASHA), tmp_path)
    before = study.die_after(lambda e: isinstance(e, Checkpointed) and e.kimg == 400.0)
    (run,) = [run for run in before.unfinished() if run.total_kimg == 400.0]
    Driven(spec_of(ticks, confirm={}, scheduler=ASHA), tmp_path, clock=study.clock).take()
    after = study.ledger.run(run.key)
    assert (after.state, after.attempts) == ("COMPLETED", run.attempts)


@pytest.mark.parametrize("confirm", [CONFIRM, {}])
def test_a_cell_that_no_time_was_left_for_is_the_first_of_a_later_session(
    tmp_path: Path, confirm: dict[str, int]
) -> None:
    """It was claimed when its driver died, and the next driver had no time."""
    study = Driven(spec_of(30, trials=9, confirm=confirm), tmp_path)
    before = study.die_after(lambda e: isinstance(e, Proposed) and e.number == 4)
    waiting = before.trials[4].first
    assert waiting.attempts == 0
    study.clock.seconds = 30 * TICK
    ledger = study.take(WHOLE, WHOLE)
    assert study.closed == "time_budget"
    assert [run.key for run in ledger.unfinished()] == [waiting.key]
    ledger = study.take(Turn(extra_seconds=PLENTY))
    assert ledger.trials[4].state == "COMPLETED"
    begun = [e.number for e in study.events if isinstance(e, Started)]
    assert begun.index(4) < begun.index(5)
    assert study.closed == "finished"


turns = st.builds(
    Turn,
    kill_after=st.none() | st.integers(1, 120),
    extra_trials=st.sampled_from([0, 0, 0, 1]),
    extra_seconds=st.sampled_from([0.0, 0.0, 10 * TICK, 20 * TICK]),
    kept_back=st.sampled_from([0.0, 0.0, 10 * TICK, 20 * TICK]),
)


@settings(max_examples=5, deadline=None)
@given(
    first=st.lists(turns, min_size=1, max_size=4),
    ticks=st.integers(5, 60),
    seed=st.integers(0, 1000),
    folds=st.sampled_from([1, 1, 2]),
    scheduler=st.sampled_from([{"kind": "none"}, SHADOWED]),
)
def test_every_phase_is_whole_through_kills_cuts_and_extensions(
    tmp_path_factory: pytest.TempPathFactory,
    first: list[Turn],
    ticks: int,
    seed: int,
    folds: int,
    scheduler: dict[str, Any],
) -> None:
    replication = RACE | {"folds": folds}
    spec = spec_of(ticks, trials=5, scheduler=scheduler, replication=replication)
    study = Driven(spec, tmp_path_factory.mktemp("turns"), seed, noise=50.0)
    check_cells(study.take(*first), spec)
    ledger = study.take(Turn(extra_seconds=PLENTY), Turn())
    assert study.closed == "finished"
    assert ledger.unfinished() == []
    check_cells(ledger, spec)
    check_confirmation(ledger)
    check_made_up_for(ledger)
    check_order(study.events)
    refold = Refold(spec, study.folder, {}, LINES)
    for line, event in enumerate(study.events, start=1):
        refold.take(line, event)
    assert [one for one in refold.judgements if not one.equal] == []


def check_cells(ledger: Ledger, spec: StudySpec) -> None:
    """Nothing that was begun runs on, no cell is there twice, and no seed but of a shadow."""
    assert [run for run in ledger.unfinished() if run.attempts or run.purpose != "search"] == []
    cells = {cell_key(trial.params) for trial in ledger.trials.values()}
    assert len(cells) == len(ledger.trials) <= spec.budget.trials + ledger.extra_trials
    fresh = [run.seed for run in ledger.runs if run.purpose != "shadow"]
    assert len(set(fresh)) == len(fresh)


def check_confirmation(ledger: Ledger) -> None:
    """Top times seeds are whole, each once."""
    whole = [r for r in runs_for(ledger, "confirmation") if r.state == "COMPLETED"]
    seeds = Counter((run.number, run.noise_draw) for run in whole)
    assert set(seeds.values()) == {1}
    assert ledger.confirmation is not None
    wanted = {(n, draw) for n in ledger.confirmation.numbers for draw in (1, 2, 3)}
    assert len(wanted) == CONFIRM["top"] * CONFIRM["seeds"]
    assert wanted <= set(seeds)


def check_made_up_for(ledger: Ledger) -> None:
    """The last round of the race and all shadows are whole, each run of them once."""
    raced = [ledger.run(key) for key in ledger.raced]
    whole = Counter((run.number, run.fold) for run in raced if run.state == "COMPLETED")
    assert set(whole.values()) <= {1}
    assert ledger.race is None or {number for number, _ in whole} == set(ledger.race.numbers)
    shadows = [run for run in runs_for(ledger, "shadow") if run.state == "COMPLETED"]
    halted = [
        run.key
        for trial in ledger.trials.values()
        for run in trial.search_runs
        if trial.reason == "asha" and run.state == "STOPPED"
    ]
    assert sorted((run.number, run.continues) for run in shadows) == halted


def check_order(events: Sequence[Event]) -> None:
    """Once a confirmation is opened nothing is searched until something is added."""
    over = False
    for event in events:
        if isinstance(event, SessionOpened) and (event.extra_trials or event.extra_seconds):
            over = False
        elif over:
            assert not isinstance(event, Proposed | RaceOpened | ConfirmationOpened)
            assert not claimed_for("race")(event)
        over = over or isinstance(event, ConfirmationOpened)
