"""The command line against a journal without a driver, and against one that takes turns."""

import json
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from closed_form import open_history, study

from search.command_line import DONE, USER_ERROR
from search.events import (
    Checkpointed,
    Ended,
    Event,
    Measured,
    Proposed,
    SessionClosed,
    Started,
)
from search.history import JOURNAL_NAME, History
from search.journal import Journal
from search.ledger import Ledger
from search.proposer import Proposer
from search.referee import Referee
from search.requests import Enqueue, read_request, waiting
from search.run_queue import RunQueue
from search.steer import main
from search.steering import Steering
from search.stop_request import StopRequest

BUDGET = {"kimg_per_trial": 400.0, "measure_kimg": 100.0, "trials": 7, "time": 3600.0}
SPEC = study(grid=4, model=2, budget=BUDGET)
METRIC = "validation_log_likelihood"


def begin(folder: Path) -> History:
    """Three trials: one completed, one that trains, one that waits."""
    history = open_history(folder, SPEC)
    for _ in range(3):
        proposed = Proposer(SPEC).propose(history.ledger)
        assert proposed is not None
        history.append(proposed)
    for number, kimgs in ((0, (100.0, 400.0)), (1, (100.0,))):
        history.append(Started(number=number, attempt=0, node="here", device="cpu", pid=1))
        for kimg in kimgs:
            metrics = {METRIC: -number - 1 / kimg, "standard_error": 0.5}
            history.append(
                Measured(number=number, kimg=kimg, elapsed_seconds=kimg, metrics=metrics)
            )
    history.append(Checkpointed(number=1, kimg=150.0, path="tune/any"))
    history.append(Ended(number=0, state="COMPLETED"))
    return history


@pytest.fixture
def idle(tmp_path: Path) -> Path:
    """A study whose driver has put it down."""
    with begin(tmp_path / "out") as history:
        history.append(SessionClosed(reason="interrupted"))
    return tmp_path / "out"


@contextmanager
def driven(folder: Path) -> Iterator[None]:
    """A driver that takes its turns, and ends a trial that must stop soon after."""
    done = threading.Event()

    def drive() -> None:
        with open_history(folder, SPEC) as history:
            stop = StopRequest(60.0)
            referee = Referee(history, stop, RunQueue("search"))
            steering = Steering(SPEC, history, stop, referee.end_stopped)
            opened.set()
            while not done.is_set():
                steering.turn()
                time.sleep(0.05)

    opened = threading.Event()
    thread = threading.Thread(target=drive)
    thread.start()
    opened.wait(10)
    try:
        yield
    finally:
        done.set()
        thread.join()


def events(folder: Path) -> list[Event]:
    return Journal.read(folder / JOURNAL_NAME)


def read(folder: Path) -> Ledger:
    return Ledger(events(folder))


def steer(folder: Path, *words: str) -> int:
    return main([str(folder), *words])


def test_a_running_driver_answers(idle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with driven(idle):
        assert steer(idle, "enqueue", "learning_rate=0.02", "d_dropout=0.45") == DONE
        assert steer(idle, "enqueue", "--point", "{learning_rate: 0.03, d_dropout: 0}") == DONE
        assert steer(idle, "stop", "2", "--reason", "too slow") == DONE
        assert steer(idle, "extend", "--trials", "+3", "--time-budget", "+1h30m") == DONE
    assert capsys.readouterr().out.splitlines() == [
        "enqueued as trial 3",
        "enqueued as trial 4",
        "trial 2 stops at its next result, by request: too slow",
        "trial 2 ended STOPPED (by request: too slow) after 0 kimg",
        "extended by 3 trials and 5400 s",
    ]
    ledger = read(idle)
    assert ledger.trials[3].params == {"learning_rate": 0.02, "d_dropout": 0.45}
    assert ledger.trials[4].params == {"learning_rate": 0.03, "d_dropout": 0.0}
    assert (ledger.extra_trials, ledger.extra_seconds) == (3, 5400.0)
    assert waiting(idle) == []


def test_without_a_driver_a_request_waits(idle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (idle / JOURNAL_NAME).read_bytes()
    assert steer(idle, "enqueue", "learning_rate=0.02", "d_dropout=0.45") == DONE
    said = capsys.readouterr().out
    assert "no driver runs this study, so this waits for the next --resume" in said
    assert "enqueued as trial 3" in said
    (path,) = waiting(idle)
    assert str(path) in said
    # What waits is reckoned with: the same again would be a configuration tried twice.
    assert steer(idle, "enqueue", "learning_rate=0.02", "d_dropout=0.45") == USER_ERROR
    assert "this one is trial 3 already (enqueued, RUNNING)" in capsys.readouterr().err
    assert steer(idle, "stop", "3") == DONE
    assert steer(idle, "stop", "3") == USER_ERROR
    assert (idle / JOURNAL_NAME).read_bytes() == before
    with driven(idle):
        deadline = time.monotonic() + 10
        while waiting(idle) and time.monotonic() < deadline:
            time.sleep(0.05)
    trial = read(idle).trials[3]
    assert (trial.stage, trial.state, trial.reason) == ("enqueued", "STOPPED", "by request")


def test_a_point_like_a_trial_with_one_thing_changed(
    idle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    params = read(idle).trials[1].params
    assert steer(idle, "enqueue", "--like", "1", "d_dropout=0.25") == DONE
    assert steer(idle, "enqueue", "--like", "1", "--point", "{d_dropout: 0.35}") == DONE
    asked = [read_request(path) for path in waiting(idle)]
    assert asked == [Enqueue(params={**params, "d_dropout": value}) for value in (0.25, 0.35)]
    capsys.readouterr()
    assert steer(idle, "enqueue", "--like", "1", "d_dropout=null") == USER_ERROR
    assert "d_dropout: must be given at every point" in capsys.readouterr().err


def test_it_says_where_no_time_would_be_left(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    budget = {**BUDGET, "time": 60.0}
    with open_history(tmp_path, study(grid=4, model=2, budget=budget)) as history:
        proposed = Proposer(SPEC).propose(history.ledger)
        assert proposed is not None
        history.append(proposed)
        begun = Started(number=0, attempt=0, node="here", device="cpu", pid=1)
        history.append(begun.model_copy(update={"session_seconds": 10.0}))
        history.append(SessionClosed(session_seconds=110.0, reason="time_budget"))
    assert steer(tmp_path, "extend", "--time-budget", "+30s") == DONE
    note = "NOTE: by then no time is left; extend --time-budget by more than 10 s"
    assert note in capsys.readouterr().out
    assert steer(tmp_path, "extend", "--time-budget", "+30s") == DONE
    assert "NOTE" not in capsys.readouterr().out


@pytest.mark.parametrize("scheduler", [{"kind": "none"}, {"kind": "pbt", "interval_kimg": 100.0}])
def test_it_says_that_more_time_is_nothing_to_what_the_clock_has_ended(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], scheduler: dict[str, Any]
) -> None:
    timed = study(grid=4, model=2, budget={**BUDGET, "time": 60.0}, scheduler=scheduler)
    with open_history(tmp_path, timed) as history:
        for number in range(2):
            proposed = Proposer(timed).propose(history.ledger)
            assert proposed is not None
            history.append(proposed)
            history.append(Ended(number=number, state="STOPPED", reason="time_budget"))
        history.append(SessionClosed(reason="time_budget"))
    assert steer(tmp_path, "extend", "--time-budget", "+1h") == DONE
    said = capsys.readouterr().out
    assert "NOTE: the time budget has ended 2 trials (0, 1) for good" in said
    assert ("begin another study" in said) == (scheduler["kind"] == "pbt")


def test_a_driver_that_does_not_answer_in_time(
    idle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with open_history(idle, SPEC):
        assert steer(idle, "extend", "--trials", "+1", "--wait", "0") == DONE
    said = capsys.readouterr().out
    assert f"asked, and not answered yet: process {os.getpid()} on " in said
    assert len(waiting(idle)) == 1


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("stop 9", "there is no trial 9; its trials are 0 to 2"),
        ("stop 0", "trial 0 ended COMPLETED already"),
        ("stop -1", "must be that of a trial, but got -1"),
        ("stop one", "invalid int value"),
        ("enqueue", "learning_rate: must be given at every point, but it is missing"),
        ("enqueue learning_rate=9 d_dropout=0", "learning_rate=9"),
        ("enqueue learning_rate=0.1 d_dropout=0.3", "this one is trial 0 already"),
        ("enqueue learning_rat=0.1", "did you mean `learning_rate`?"),
        ("enqueue learning_rate", "must look like learning_rate=0.1"),
        ("enqueue learning_rate=1e-2 d_dropout=0", "write 1.0e-2"),
        ("enqueue learning_rate=0.1 learning_rate=0.2", "must be given once"),
        ("enqueue --like 9 d_dropout=0", "--like: there is no trial 9; known: 0 to 2"),
        ("enqueue --like 0", "this one is trial 0 already"),
        ("enqueue --point [1]", "--point: must be one mapping"),
        ("enqueue --point {a", "must be YAML"),
        ("extend", "give --trials +N, --time-budget +T or both"),
        ("extend --trials 5", "--trials: is added to the budget, so write +5 for 5 trials more"),
        ("extend --trials +0", "--trials: must be a whole number above zero such as +20"),
        (
            "extend --time-budget 1h",
            "--time-budget: is added to the budget, so write +1h for an hour",
        ),
        ("extend --time-budget +soon", "--time-budget: must be a duration such as"),
        ("dance", "invalid choice"),
    ],
)
def test_a_mistake_is_one_message_and_leaves_nothing(
    idle: Path, capsys: pytest.CaptureFixture[str], words: str, says: str
) -> None:
    assert steer(idle, *words.split()) == USER_ERROR
    out, err = capsys.readouterr()
    assert says in err
    assert "Traceback" not in err
    assert out == ""
    assert waiting(idle) == []


def test_a_study_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("status", "stop 0"):
        assert steer(tmp_path, *command.split()) == USER_ERROR
        assert f"{tmp_path}: must be the folder of a study" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_the_status_of_a_running_study(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with begin(tmp_path) as history:
        before = {path: path.read_bytes() for path in tmp_path.iterdir()}
        assert steer(tmp_path, "status", "--json") == DONE
        found = json.loads(capsys.readouterr().out)
        assert steer(tmp_path, "status") == DONE
        words = capsys.readouterr().out
        spent = history.ledger.spent_seconds
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before
    assert found["driver"].startswith(f"process {os.getpid()} on ")
    assert found["closed"] is None
    assert found["planned"] == 7
    assert found["trials"] == {
        **{"running": 2, "completed": 1, "stopped": 0, "infeasible": 0, "failed": 0}
    }
    shown = [(t["number"], t["training"], t["kimg"]) for t in found["unfinished"]]
    assert shown == [(1, True, 150.0), (2, False, 0.0)]
    best = found["best"]
    assert (best["number"], best["objective"], best["kimg"]) == (0, -1 / 400, 400.0)
    assert found["elapsed_seconds"] == spent
    assert found["kimg_per_hour"] == pytest.approx(3600 * 500 / spent)
    assert found["time_left_seconds"] == pytest.approx(3600 - spent)
    assert "training  trial 1 (random_grid) at 150 kimg on cpu of here" in words
    assert "waiting   trial 2 (random_grid) at 0 kimg" in words
    assert "trials    1 completed, of 7" in words


def test_the_status_of_one_that_was_put_down_or_killed(
    idle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    steer(idle, "extend", "--trials", "+1")
    capsys.readouterr()
    assert steer(idle, "status") == DONE
    said = capsys.readouterr().out
    assert "(not running: interrupted)" in said
    assert "asked     extend --trials +1 (waits)" in said
    open_history(idle, SPEC).close()  # opens a session and does not close it
    assert steer(idle, "status") == DONE
    assert "(not running: killed)" in capsys.readouterr().out


def test_looking_at_the_lock_keeps_no_driver_from_it(idle: Path) -> None:
    path, done = idle / JOURNAL_NAME, threading.Event()

    def look() -> None:
        while not done.is_set():
            Journal.writer(path)
            time.sleep(0.001)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        for _ in range(50):
            Journal.open(path, create=False).close()
    finally:
        done.set()
        thread.join()
    assert Journal.writer(path) is None


def test_a_proposal_of_an_older_journal_has_no_request(idle: Path) -> None:
    path = idle / JOURNAL_NAME
    path.write_text(path.read_text().replace(',"request":null', ""))
    proposed = [event for event in events(idle) if isinstance(event, Proposed)]
    assert [event.request for event in proposed] == [None] * 3
