from typing import Any

import pytest
from tiny_events import proposed

from search.backlog import Backlog
from search.couriers import deliver_in_order
from search.events import (
    Ended,
    Event,
    Measured,
    SessionClosed,
    SessionOpened,
    Started,
    StudyOpened,
)
from search.ledger import Ledger
from search.run_painter import Outcome


class Driver:
    """A ledger and what MLflow has not got of it."""

    def __init__(self) -> None:
        self.ledger = Ledger()
        digests = {"spec_digest": "s", "dataset_digest": "d", "protocol_digest": "p"}
        self.ledger.apply(StudyOpened(study="x", study_id="0", spec={}, **digests))
        self.ledger.apply(SessionOpened(pid=1))
        self.backlog = Backlog(self.ledger)
        self.backlog.took_study(self.backlog.study)

    def append(self, event: Event) -> None:
        self.ledger.apply(event)
        self.backlog.handle(event)

    def begin(self, number: int) -> None:
        self.append(proposed(number))
        self.append(
            Started(number=number, attempt=0, from_kimg=0.0, node="n", device="cpu", pid=1)
        )

    def measure(self, number: int, kimg: float) -> None:
        metrics = {"validation_log_likelihood": kimg}
        self.append(Measured(number=number, kimg=kimg, elapsed_seconds=1.0, metrics=metrics))

    def deliver(self, number: int) -> list[float]:
        trial, _ = self.backlog.latest(number)
        self.backlog.took(number, trial)
        return [m.kimg for m in trial.measurements]


def test_a_trial_waits_once_with_its_latest_state_and_the_longest_wait_comes_first() -> None:
    driver = Driver()
    for number in (0, 1, 2):
        driver.begin(number)
    driver.measure(1, 1.0)
    assert driver.backlog.round() == [0, 1, 2]
    assert driver.deliver(0) == []
    driver.measure(0, 1.0)
    driver.measure(0, 2.0)
    assert driver.backlog.round() == [1, 2, 0]
    assert driver.deliver(0) == [1.0, 2.0]


def test_what_changed_while_it_was_delivered_waits_again() -> None:
    driver = Driver()
    driver.begin(0)
    driver.measure(0, 1.0)
    before, _ = driver.backlog.latest(0)
    driver.measure(0, 2.0)
    assert [m.kimg for m in before.measurements] == [1.0]  # the copy stays as it was
    driver.backlog.took(0, before)
    assert driver.backlog.left == ["trial 0"]
    assert driver.deliver(0) == [1.0, 2.0]
    assert driver.backlog.is_idle


def test_what_was_refused_lets_the_others_go_first() -> None:
    driver = Driver()
    for number in (0, 1):
        driver.begin(number)
    driver.backlog.refused(0)
    assert driver.backlog.round() == [1, 0]


def test_a_session_that_closes_ends_the_study_and_what_has_not_ended() -> None:
    driver = Driver()
    for number in (0, 1):
        driver.begin(number)
    driver.append(Ended(number=0, state="COMPLETED"))
    for number in (0, 1):
        driver.deliver(number)
    closed = SessionClosed(reason="interrupted")
    driver.append(closed)
    assert driver.backlog.left == ["the study", "trial 1"]
    assert driver.backlog.study.closed == closed
    summary: dict[str, Any] = {"best": {"number": 0}}
    driver.backlog.add_outcome(Outcome(summary=summary, best_dir=None))
    assert driver.backlog.left == ["the study", "trial 0", "trial 1"]
    assert driver.backlog.study.closed == closed


def test_one_that_is_being_delivered_is_not_idle() -> None:
    backlog = Driver().backlog
    assert backlog.is_idle
    backlog.round()
    assert not backlog.wait_until_idle(0.0)
    backlog.end_round()
    assert backlog.wait_until_idle(0.0)


def test_progress_counts_what_is_taken() -> None:
    driver = Driver()
    driver.begin(0)
    before = driver.backlog.progress
    driver.backlog.refused(0)
    assert driver.backlog.progress == before
    driver.deliver(0)
    assert driver.backlog.progress == before + 1


@pytest.mark.parametrize("at_once", [1, 3])
def test_each_is_delivered_once_and_begun_in_order(at_once: int) -> None:
    begun: list[int] = []
    deliver_in_order(range(50), begun.append, at_once)
    assert sorted(begun) == list(range(50))
    assert at_once > 1 or begun == list(range(50))


def test_after_a_fault_nothing_more_is_begun() -> None:
    begun: list[int] = []

    def fails_at_three(number: int) -> None:
        begun.append(number)
        if number == 3:
            raise ConnectionError("away")

    with pytest.raises(ConnectionError, match="away"):
        deliver_in_order(range(50), fails_at_three, 1)
    assert begun == [0, 1, 2, 3]
