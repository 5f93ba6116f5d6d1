"""The time left of a study of 9 trials of 40 kimg, three of which pass 4 kimg, one 12 and 36."""

from pathlib import Path
from typing import Any, Literal

import pytest
from tiny_events import proposed
from tiny_study import content

from search.calibration import Calibration
from search.cell import cell_key
from search.estimate import Estimate, estimate
from search.events import (
    Checkpointed,
    ConfirmationOpened,
    Donor,
    Ended,
    Event,
    Extended,
    Measured,
    Proposed,
    Replicated,
    RunKey,
    SessionOpened,
    Started,
)
from search.ledger import Ledger
from search.plan import describe_rest
from search.study import StudySpec
from search.time_left import TimeLeft

CALIBRATION = Calibration(
    seconds_per_kimg=1.0, seconds_per_measurement=0.0, state_bytes=0, generator_bytes=0
)


def spec(**changes: Any) -> StudySpec:
    sections: dict[str, Any] = {
        "stages": [{"kind": "model", "trials": 9}],
        "scheduler": {"kind": "asha", "grace_kimg": 4.0, "reduction_factor": 3},
        "budget": {"kimg_per_trial": 40.0, "measure_kimg": 2.0, "trials": 9},
    }
    return StudySpec.from_mapping(content(Path("any.npz"), **(sections | changes)))


SPEC = spec()
KIMG = 9 * 4 + 3 * 8 + 1 * 24 + 1 * 4  # of the whole plan


def cost(of: StudySpec = SPEC) -> Estimate:
    return estimate(of, CALIBRATION, concurrent=2)


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


def started(number: int, replicate: int, from_kimg: float = 0.0) -> Started:
    return Started(
        number=number,
        replicate=replicate,
        attempt=0,
        from_kimg=from_kimg,
        node="here",
        device="cpu",
        pid=1,
    )


def confirmation(replicate: int) -> Replicated:
    return Replicated(
        number=0, replicate=replicate, purpose="confirmation", seed=replicate, noise_draw=replicate
    )


def exploit(number: int, donor: int, replaces: int) -> Proposed:
    params = {"learning_rate": 0.01 * (number + 1) + 0.001}
    return Proposed(
        number=number,
        stage="exploit",
        stage_index=0,
        params=params,
        cell=cell_key(params),
        seed=number,
        donor=Donor(number=donor, kimg=20.0, path=f"tune/{donor}"),
        replaces=replaces,
    )


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


def test_the_confirmation_that_is_planned_counts() -> None:
    confirmed = spec(confirm={"top": 2, "seeds": 3})
    book = ledger()
    left = TimeLeft(confirmed, book, cost(confirmed), None)
    # Six trainings in full by two at a time, 1 s a kimg, after the search.
    assert left.seconds(0.0, {}) == pytest.approx(KIMG / 2 + 3 * 40)
    for event in (*trial(0, 4.0, "STOPPED"), *trial(1, 2.0)):
        book.apply(event)
    # 7 kimg in 70 s.
    expected = 10 * (8 * KIMG / 9 - 3 + 6 * 40)
    assert left.seconds(70.0, {RunKey(1): 3.0}) == pytest.approx(expected)


def test_the_last_of_an_odd_number_of_confirmations_trains_by_itself() -> None:
    confirmed = spec(confirm={"top": 1, "seeds": 3})
    book = ledger()
    left = TimeLeft(confirmed, book, cost(confirmed), None)
    assert left.seconds(0.0, {}) == pytest.approx(KIMG / 2 + 2 * 40)
    for event in trial(0, 4.0, "STOPPED"):
        book.apply(event)
    # 4 kimg in 40 s by two, so 20 s a kimg each, and two rounds of 40 kimg.
    assert left.seconds(40.0, {}) == pytest.approx(10 * 8 * KIMG / 9 + 20 * 2 * 40)


def test_a_run_of_the_confirmation_trains_to_its_end() -> None:
    confirmed = spec(confirm={"top": 1, "seeds": 2})
    book = ledger(trial(0, 40.0, "COMPLETED"), *(trial(n, 4.0, "STOPPED") for n in range(1, 9)))
    book.apply(ConfirmationOpened(numbers=(0,), seeds=2))
    left = TimeLeft(confirmed, book, cost(confirmed), None)
    assert left.seconds(0.0, {}) == pytest.approx(40)  # both at a time, none claimed yet
    for replicate in (1, 2):
        book.apply(confirmation(replicate))
        book.apply(started(0, replicate))
    # No rung thins them: 20 kimg in 40 s, 30 and 30 to go.
    running = {RunKey(0, 1): 10.0, RunKey(0, 2): 10.0}
    assert left.seconds(40.0, running) == pytest.approx(60 * 40 / 20)
    book.apply(SessionOpened(pid=2))
    resumed = TimeLeft(confirmed, book, cost(confirmed), None)
    assert resumed.seconds(0.0, {}) == pytest.approx(40)


def test_once_confirmed_nothing_is_left() -> None:
    confirmed = spec(confirm={"top": 1, "seeds": 1})
    book = ledger(*(trial(n, 40.0, "COMPLETED") for n in range(9)))
    book.apply(ConfirmationOpened(numbers=(0,), seeds=1))
    book.apply(confirmation(1))
    book.apply(started(0, 1))
    book.apply(Measured(number=0, replicate=1, kimg=40.0, elapsed_seconds=1.0, metrics={"a": 1.0}))
    book.apply(Ended(number=0, replicate=1, state="COMPLETED"))
    assert TimeLeft(confirmed, book, cost(confirmed), None).seconds(0.0, {}) == 0.0


def test_trials_that_the_clock_left_out_are_no_part_of_a_confirmation() -> None:
    confirmed = spec(confirm={"top": 1, "seeds": 2})
    book = ledger(trial(0, 40.0, "COMPLETED"))  # of nine
    book.apply(ConfirmationOpened(numbers=(0,), seeds=2, out_of_time=True))
    left = TimeLeft(confirmed, book, cost(confirmed), None)
    assert left.seconds(0.0, {}) == pytest.approx(40)


def test_a_shadow_has_trained_only_what_came_after_the_stop() -> None:
    book = ledger(*(trial(n, 4.0, "STOPPED") for n in range(9)))
    left = TimeLeft(SPEC, book, cost(), None)
    book.apply(Replicated(number=3, replicate=1, purpose="shadow", seed=3, continues=0))
    book.apply(started(3, 1, from_kimg=4.0))
    # 10 kimg in 100 s, 26 to go.
    assert left.seconds(100.0, {RunKey(3, 1): 14.0}) == pytest.approx(26 * 10)


def test_a_shadow_whose_checkpoint_is_gone_trains_all_of_it() -> None:
    book = ledger(*(trial(n, 4.0, "STOPPED") for n in range(9)))
    left = TimeLeft(SPEC, book, cost(), None)
    book.apply(Replicated(number=3, replicate=1, purpose="shadow", seed=3, continues=0))
    book.apply(started(3, 1))
    assert left.seconds(100.0, {RunKey(3, 1): 10.0}) == pytest.approx(30 * 10)


def test_an_exploit_has_trained_only_what_came_after_its_donor() -> None:
    population = spec(scheduler={"kind": "pbt", "interval_kimg": 20.0})
    book = ledger(*(trial(n, 18.0) for n in range(9)))
    left = TimeLeft(population, book, cost(population), None)
    for n in range(9):
        book.apply(Measured(number=n, kimg=20.0, elapsed_seconds=20.0, metrics={"a": 1.0}))
        book.apply(Checkpointed(number=n, kimg=20.0, path=f"tune/{n}"))
    book.apply(exploit(9, donor=0, replaces=8))
    book.apply(Ended(number=8, state="STOPPED"))
    # 18 kimg in 180 s; 20 to go of each place in the population.
    assert left.seconds(180.0, {}) == pytest.approx(10 * 9 * 20)


def test_exploits_are_no_trials_of_the_plan() -> None:
    population = spec(scheduler={"kind": "pbt", "interval_kimg": 20.0})
    book = ledger(*(trial(n, 20.0) for n in range(8)))
    book.apply(exploit(8, donor=0, replaces=7))
    book.apply(Ended(number=7, state="STOPPED"))
    left = TimeLeft(population, book, cost(population), None)
    assert left.seconds(0.0, {}) == pytest.approx((8 * 20 + 40) / 2)  # the ninth is to come


def test_a_rest_that_is_over_sooner_than_workers_start_is_still_left() -> None:
    book = ledger(*(trial(n, 4.0, "STOPPED") for n in range(8)), trial(8, 36.0))
    book.apply(SessionOpened(pid=2))
    left = TimeLeft(SPEC, book, cost(), None)
    assert left.seconds(0.0, {}) == pytest.approx(4 / 2)
    assert left.seconds(20.0, {}) == pytest.approx(4 / 2)
    assert left.seconds(20.0, {RunKey(8): 37.0}) == pytest.approx(3 / 2)


def test_what_is_left_of_a_study_in_words() -> None:
    book = ledger(*(trial(n, 4.0, "STOPPED") for n in range(8)), trial(8, 36.0))
    book.apply(SessionOpened(pid=2, extra_trials=6))
    said = describe_rest(SPEC, book, 2, TimeLeft(SPEC, book, cost(), None).seconds(0.0, {}))
    assert said == f"left        7 of 15 trials, 2 at a time: about {(4 + 6 * KIMG / 9) / 2:.0f} s"
