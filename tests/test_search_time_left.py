"""The time left of a study of 9 trials of 40 kimg, three of which pass 4 kimg, one 12 and 36."""

from pathlib import Path
from typing import Literal

import pytest
from tiny_events import proposed
from tiny_study import content

from search.calibration import Calibration
from search.estimate import Estimate, estimate
from search.events import (
    Checkpointed,
    Ended,
    Event,
    Extended,
    Measured,
    RunKey,
    SessionOpened,
    Started,
)
from search.ledger import Ledger
from search.study import StudySpec
from search.time_left import TimeLeft

CALIBRATION = Calibration(
    seconds_per_kimg=1.0, seconds_per_measurement=0.0, state_bytes=0, generator_bytes=0
)
SPEC = StudySpec.from_mapping(
    content(
        Path("any.npz"),
        stages=[{"kind": "model", "trials": 9}],
        scheduler={"kind": "asha", "grace_kimg": 4.0, "reduction_factor": 3},
        budget={"kimg_per_trial": 40.0, "measure_kimg": 2.0, "trials": 9},
    )
)
KIMG = 9 * 4 + 3 * 8 + 1 * 24 + 1 * 4  # of the whole plan


def cost() -> Estimate:
    return estimate(SPEC, CALIBRATION, concurrent=2)


def trial(
    number: int, kimg: float, state: Literal["STOPPED", "COMPLETED"] | None = None
) -> list[Event]:
    events: list[Event] = [
        proposed(number, {"learning_rate": 0.01 * (number + 1)}),
        Started(number=number, attempt=0, node="here", device="cpu", pid=1),
        Measured(number=number, kimg=kimg, elapsed_seconds=kimg, metrics={"a": 1.0}),
        Checkpointed(number=number, kimg=kimg, path=f"tune/{number}"),
    ]
    return events if state is None else [*events, Ended(number=number, state=state)]


def ledger(*trials: list[Event]) -> Ledger:
    return Ledger([SessionOpened(pid=1), *(event for events in trials for event in events)])


def test_at_first_it_is_the_plan() -> None:
    left = TimeLeft(SPEC, ledger(), cost(), None)
    assert left.seconds(0.0, {}) == pytest.approx(KIMG / 2)
    assert left.seconds(10.0, {RunKey(0): 1.0}) == pytest.approx(KIMG / 2 - 10)


def test_then_it_is_the_pace_whatever_was_planned() -> None:
    book = ledger()
    left = TimeLeft(SPEC, book, cost(), None)
    for event in trial(0, 4.0, "STOPPED"):
        book.apply(event)
    for event in trial(1, 2.0):
        book.apply(event)
    # 4 + 3 kimg took 70 s, so 10 s a kimg. Trial 1 is to train KIMG / 9 - 3 more, and 7 all of it.
    assert left.seconds(70.0, {RunKey(1): 3.0}) == pytest.approx(10 * (8 * KIMG / 9 - 3))


def test_a_trial_past_a_rung_goes_on_as_far_as_the_plan_has_it() -> None:
    book = ledger(*(trial(n, 4.0, "STOPPED") for n in range(8)))
    left = TimeLeft(SPEC, book, cost(), None)
    for event in trial(8, 12.0):
        book.apply(event)
    # It is the one of nine: all of the last 40 - 20 kimg at 0.2 kimg a second.
    assert left.seconds(100.0, {RunKey(8): 20.0}) == pytest.approx(20 / 0.2)


def test_a_resumed_turn_counts_from_the_checkpoints() -> None:
    book = ledger(trial(0, 4.0, "STOPPED"), trial(1, 10.0))
    book.apply(SessionOpened(pid=2))
    left = TimeLeft(SPEC, book, cost(), None)
    to_go = 2 + (24 + 4) / 3  # of trial 1 to the rung at 12, and of a third of one beyond
    rest = 7 * KIMG / 9
    assert left.seconds(0.0, {}) == pytest.approx((to_go + rest) / 2)
    # 1 kimg in 40 s
    assert left.seconds(40.0, {RunKey(1): 11.0}) == pytest.approx(40 * (to_go - 1 + rest))


def test_it_ends_with_the_time_budget_and_is_never_below_nothing() -> None:
    left = TimeLeft(SPEC, ledger(), cost(), 25.0)
    assert left.seconds(5.0, {}) == 20.0
    assert left.seconds(26.0, {}) == 0.0
    done = TimeLeft(SPEC, ledger(*(trial(n, 40.0, "COMPLETED") for n in range(9))), cost(), None)
    assert done.seconds(0.0, {}) == done.seconds(1000.0, {}) == 0.0


def test_what_is_asked_for_while_it_runs_counts() -> None:
    book = ledger()
    left = TimeLeft(SPEC, book, cost(), 25.0)
    book.apply(Extended(seconds=15.0, request="a"))
    assert left.seconds(5.0, {}) == 35.0
    free = TimeLeft(SPEC, book, cost(), None)
    book.apply(proposed(0, stage="enqueued"))
    book.apply(Extended(trials=9, request="b"))
    assert free.seconds(40.0, {}) == pytest.approx(KIMG / 2 - 40)  # as was planned, at first
    for event in trial(1, 4.0, "STOPPED"):
        book.apply(event)
    # 4 kimg in 80 s; to go are the enqueued one and 17 of the plan's, which are now 18.
    assert free.seconds(80.0, {}) == pytest.approx(20 * 18 * KIMG / 9)


def test_the_last_trial_trains_by_itself() -> None:
    book = ledger(*(trial(n, 4.0, "STOPPED") for n in range(7)))
    left = TimeLeft(SPEC, book, cost(), None)
    for event in (*trial(7, 38.0), *trial(8, 12.0)):
        book.apply(event)
    # 59 kimg in 59 s by two: half a kimg a second each, 19 of them for the later one.
    assert left.seconds(59.0, {RunKey(7): 38.0, RunKey(8): 21.0}) == pytest.approx(19 / 0.5)
