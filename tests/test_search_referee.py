import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from closed_form import open_history, study

from search.cause import Cause
from search.early_stopping import EarlyStopping
from search.events import Event, RunKey, SessionOpened
from search.failure_streak import FIRST, LATER, StudyFailedError
from search.history import History
from search.lost_attempt import MAX_FRUITLESS, MAX_FRUITLESS_PREEMPTIONS
from search.proposer import Proposer
from search.referee import Referee
from search.run_queue import RunQueue
from search.scheduling import Halving
from search.seat import Place
from search.stop_request import StopRequest
from search.trial_run import Progress

METRIC = "validation_log_likelihood"
HALVING = EarlyStopping(
    rule=Halving(metric=METRIC, direction="maximize", rungs=(100.0,), reduction_factor=3)
)


@pytest.fixture
def history(tmp_path: Path) -> Iterator[History]:
    """Four trials proposed."""
    spec = study()
    with open_history(tmp_path, spec) as history:
        for _ in range(4):
            proposed = Proposer(spec).propose(history.ledger)
            assert proposed is not None
            history.append(proposed)
        yield history


def running(history: History, stop: StopRequest | None = None) -> Referee:
    referee = Referee(history, stop or StopRequest(), RunQueue("search"), HALVING)
    for number in history.ledger.trials:
        start(referee, number)
    return referee


TAKEN = Cause("preempted", "its node was taken away")
DIED = Cause("machine", "its process died")


def start(referee: Referee, number: int, *, restored: bool = False) -> None:
    place = Place(node="n", device="cpu", pid=1)
    referee.started(RunKey(number), place, pack=1, restored=restored)


def lose(referee: Referee, number: int, cause: Cause) -> None:
    """Loses a running trial and each further attempt at it."""
    for _ in range(MAX_FRUITLESS):
        referee.lost(RunKey(number), cause)
        start(referee, number)
    referee.lost(RunKey(number), cause)


def at(kimg: float, value: float | None = None, *, done: bool = False) -> Progress:
    metrics = None if value is None else {METRIC: value}
    return Progress(kimg=kimg, elapsed_seconds=kimg, metrics=metrics, done=done)


def test_a_trial_below_the_cut_is_stopped(history: History) -> None:
    referee = running(history)
    assert not referee.progressed(RunKey(0), at(100, 1.0))
    assert referee.progressed(RunKey(1), at(100, 0.0))
    referee.finished(RunKey(1))
    trial = history.ledger.trials[1]
    assert (trial.state, trial.reason) == ("STOPPED", "asha")


def test_an_early_trial_is_judged_again_by_later_ones(history: History) -> None:
    referee = running(history)
    assert not referee.progressed(RunKey(0), at(100, 0.0))
    assert not referee.progressed(RunKey(1), at(100, 1.0))
    assert not referee.progressed(RunKey(2), at(100, 2.0))
    assert not referee.progressed(RunKey(0), at(150))  # only at a measurement
    assert referee.progressed(RunKey(0), at(200, 0.5))


def test_the_full_budget_is_completed_even_when_late_or_poor(history: History) -> None:
    stop = StopRequest(seconds=0.0)
    referee = running(history, stop)
    assert referee.progressed(RunKey(0), at(400, -9.0, done=True))
    referee.finished(RunKey(0))
    assert history.ledger.trials[0].state == "COMPLETED"


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_metric_that_is_not_finite_makes_a_trial_infeasible(
    history: History, value: float
) -> None:
    referee = running(history)
    assert referee.progressed(RunKey(0), at(100, value))
    assert not referee.may_be_resumed(RunKey(0))
    referee.finished(RunKey(0))
    trial = history.ledger.trials[0]
    assert trial.state == "INFEASIBLE"
    assert trial.reason == f"{METRIC} is {value} at 100 kimg"
    assert trial.measurements == []


def test_an_interrupt_leaves_trials_to_be_resumed(history: History) -> None:
    stop = StopRequest()
    referee = running(history, stop)
    stop.ask("interrupted")
    assert referee.progressed(RunKey(0), at(50))
    assert referee.may_be_resumed(RunKey(0))
    referee.checkpointed(RunKey(0), 50.0, Path("tune/00000-00/checkpoint_000000"))
    referee.finished(RunKey(0))
    assert len(history.ledger.unfinished()) == 4


def test_what_was_saved_at_its_full_budget_is_completed_however_poor(history: History) -> None:
    """Its driver was killed before it could say so; others have come further since."""
    referee = running(history)
    for number, value in enumerate([3.0, 2.0, 0.0]):
        referee.progressed(RunKey(number), at(100, value))
        referee.progressed(RunKey(number), at(400, value, done=True))
        path = Path(f"tune/{number:05d}-00/checkpoint_000000")
        referee.checkpointed(RunKey(number), 400.0, path)
    history.append(SessionOpened(pid=2))
    Referee(history, StopRequest(0.0), RunQueue("search"), HALVING).settle(kimg_per_trial=400.0)
    ends = [(run.state, run.total_kimg) for run in history.ledger.runs]
    assert ends == [("COMPLETED", 400.0)] * 3 + [("RUNNING", 0.0)]


def test_the_end_of_the_time_ends_every_trial(history: History) -> None:
    referee = running(history, StopRequest(seconds=0.0))
    assert referee.progressed(RunKey(0), at(50))
    referee.finished(RunKey(0))
    referee.close_unfinished("search", "time_budget")
    ends = {(t.state, t.reason) for t in history.ledger.trials.values()}
    assert ends == {("STOPPED", "time_budget")}


def test_what_was_never_begun_stays_claimed_at_the_end_of_the_time(history: History) -> None:
    """For its cell is tried no more once it has ended."""
    referee = Referee(history, StopRequest(seconds=0.0), RunQueue("search"))
    start(referee, 1)
    referee.close_unfinished("search", "time_budget")
    states = [trial.state for trial in history.ledger.trials.values()]
    assert states == ["RUNNING", "STOPPED", "RUNNING", "RUNNING"]
    assert RunQueue("search").ready(history.ledger) == RunKey(0)


def test_but_not_where_another_run_of_its_trial_has_ended(tmp_path: Path) -> None:
    spec = study(replication={"seeds": 3})
    with open_history(tmp_path, spec) as history:
        proposed = Proposer(spec).propose(history.ledger)
        assert proposed is not None
        history.append(proposed)
        referee = Referee(history, StopRequest(seconds=0.0), RunQueue("search"))
        place = Place(node="n", device="cpu", pid=1)
        referee.started(RunKey(0, 1), place, pack=1, restored=False)
        referee.close_unfinished("search", "time_budget")
        assert {(run.state, run.reason) for run in history.ledger.runs} == {
            ("STOPPED", "time_budget")
        }


def test_the_clock_runs_from_the_first_start(history: History) -> None:
    stop = StopRequest(seconds=0.05, begun=False)
    referee = Referee(history, stop, RunQueue("search"))
    time.sleep(0.1)
    assert not referee.stopping
    start(referee, 0)
    time.sleep(0.1)
    assert referee.stopping


def test_a_lost_attempt_is_not_ruled_by_what_it_last_said(history: History) -> None:
    referee = running(history)
    assert referee.progressed(RunKey(0), at(400, 1.0, done=True))
    referee.lost(RunKey(0), DIED)  # while it saved
    assert history.ledger.trials[0].state == "RUNNING"
    assert referee.running == {RunKey(1), RunKey(2), RunKey(3)}


def test_a_broken_record_stops_everything_and_is_written_no_more(history: History) -> None:
    def full(event: Event) -> None:
        raise OSError("no space left on device")

    referee = running(history)
    history.listen(full)
    assert referee.progressed(RunKey(0), at(100, 1.0))
    assert isinstance(referee.fault, OSError)
    assert referee.progressed(RunKey(1), at(50))
    assert history.ledger.trials[1].measurements == []


def test_trials_that_all_fail_are_not_used_up(history: History) -> None:
    referee = running(history)
    for number in range(FIRST):
        assert not referee.stopping
        lose(referee, number, Cause("code", "ValueError: other data here"))
    assert isinstance(referee.fault, StudyFailedError)
    assert "ValueError: other data here" in str(referee.fault)


def test_failures_after_a_measurement_do_not_stop_the_study(history: History) -> None:
    referee = running(history)
    referee.progressed(RunKey(3), at(100, 1.0))
    for number in range(FIRST):
        lose(referee, number, Cause("code", "RuntimeError: boom"))
    assert not referee.stopping


def test_a_machine_that_is_taken_away_is_no_failure_of_the_trial(history: History) -> None:
    referee = running(history)
    for _ in range(MAX_FRUITLESS_PREEMPTIONS):
        referee.lost(RunKey(0), TAKEN)
        start(referee, 0)
    trial = history.ledger.trials[0]
    assert not trial.first.ended
    lose(referee, 0, DIED)
    assert (trial.state, trial.reason) == ("FAILED", DIED.text)
    assert trial.first.losses == {
        "preempted": MAX_FRUITLESS_PREEMPTIONS,
        "machine": MAX_FRUITLESS,
    }
    assert trial.retries == MAX_FRUITLESS_PREEMPTIONS + MAX_FRUITLESS
    for _ in range(MAX_FRUITLESS_PREEMPTIONS):
        referee.lost(RunKey(1), TAKEN)
        start(referee, 1)
    referee.lost(RunKey(1), TAKEN)
    assert (
        history.ledger.trials[1].reason
        == f"pre-empted 10 times before it got any further: {TAKEN.text}"
    )


def test_a_trial_that_gets_further_between_its_losses_goes_on(history: History) -> None:
    referee = running(history)
    for index in range(5):
        kimg = 10.0 * (index + 1)
        referee.checkpointed(RunKey(0), kimg, Path(f"tune/00000-00-{index:03d}/checkpoint_000000"))
        referee.lost(RunKey(0), DIED)
        start(referee, 0, restored=True)
    assert not history.ledger.trials[0].first.ended
    for _ in range(MAX_FRUITLESS):
        referee.lost(RunKey(0), DIED)
        start(referee, 0, restored=True)
        # Saved anew, but where it was before.
        referee.checkpointed(RunKey(0), 50.0, Path("tune/00000-00-009/checkpoint_000000"))
    referee.lost(RunKey(0), DIED)
    assert history.ledger.trials[0].state == "FAILED"


def test_a_trial_that_kills_its_process_by_memory_twice_is_infeasible(history: History) -> None:
    referee = running(history)
    killed = Cause("out_of_memory", "its process was killed for want of memory")
    referee.lost(RunKey(0), killed)
    start(referee, 0)
    referee.lost(RunKey(0), DIED)  # which has nothing to do with it
    start(referee, 0)
    referee.lost(RunKey(0), killed)
    trial = history.ledger.trials[0]
    assert trial.state == "INFEASIBLE"
    assert trial.reason == f"out of memory 2 times before it got any further: {killed.text}"
    assert not referee.stopping


def test_memory_that_was_short_long_ago_says_nothing_of_a_trial(history: History) -> None:
    """Of a week's training, say, in which a neighbour took the memory now and then."""
    referee = running(history)
    killed = Cause("out_of_memory", "its process was killed for want of memory")
    for index in range(4):
        path = Path(f"tune/00000-00-{index:03d}/checkpoint_000000")
        referee.checkpointed(RunKey(0), 10.0 * (index + 1), path)
        referee.lost(RunKey(0), killed)
        start(referee, 0, restored=True)
    assert not history.ledger.trials[0].first.ended
    referee.lost(RunKey(0), killed)
    trial = history.ledger.trials[0]
    assert (trial.state, trial.first.losses["out_of_memory"]) == ("INFEASIBLE", 4)


def test_a_machine_that_fails_all_it_gets_ends_the_study_by_name(tmp_path: Path) -> None:
    spec = study(grid=LATER + 1)
    with open_history(tmp_path, spec) as history:
        referee = Referee(history, StopRequest(), RunQueue("search"))

        def propose(number: int, node: str) -> None:
            proposed = Proposer(spec).propose(history.ledger)
            assert proposed is not None
            assert proposed.number == number
            history.append(proposed)
            place = Place(node=node, device="cpu", pid=1)
            referee.started(RunKey(number), place, pack=1, restored=False)

        propose(0, "well")
        referee.progressed(RunKey(0), at(50, 1.0))
        for number in range(1, LATER + 1):
            assert not referee.stopping
            # What others measure meanwhile says nothing for this machine.
            referee.progressed(RunKey(0), at(50.0 + number, 1.0))
            propose(number, "broken")
            for attempt in range(MAX_FRUITLESS + 1):
                referee.lost(RunKey(number), Cause("code", "OSError: no such device"))
                if attempt < MAX_FRUITLESS:
                    place = Place(node="broken", device="cpu", pid=1)
                    referee.started(RunKey(number), place, pack=1, restored=False)
        assert isinstance(referee.fault, StudyFailedError)
        assert "machine broken" in str(referee.fault)
        assert "no such device" in str(referee.fault)


def test_a_full_disk_stops_the_study_and_ends_no_run(history: History) -> None:
    referee = running(history)
    full = Cause("storage", "OSError: [Errno 28] No space left on device")
    for _ in range(MAX_FRUITLESS):
        referee.lost(RunKey(0), full)
        assert not referee.stopping
        start(referee, 0)
    referee.lost(RunKey(0), full)
    assert isinstance(referee.fault, StudyFailedError)
    assert "make room in the output folder" in str(referee.fault)
    trial = history.ledger.trials[0]
    assert not trial.first.ended
    assert trial.first.losses == {"storage": MAX_FRUITLESS + 1}
    assert history.ledger.run(RunKey(0)) in history.ledger.unfinished()
