import pytest

from search.events import Event, Measured, Retried, Started
from search.pace import Pace


def started(number: int, seconds: float, attempt: int = 0, from_kimg: float = 0.0) -> Event:
    return Started(
        number=number,
        attempt=attempt,
        from_kimg=from_kimg,
        node="n",
        device="cuda:0",
        pid=1,
        session_seconds=seconds,
    )


def measured(number: int, kimg: float, seconds: float) -> Event:
    # Its own training is no more than a part of what it takes.
    return Measured(
        number=number, kimg=kimg, elapsed_seconds=0.1, metrics={}, session_seconds=seconds
    )


def pace_of(*events: Event) -> float | None:
    pace = Pace()
    for event in events:
        pace.take(event)
    return pace.seconds_per_kimg


def test_it_is_the_wall_time_of_all_runs_over_what_they_trained() -> None:
    assert pace_of(started(0, 5.0)) is None
    both = [started(0, 5.0), started(1, 10.0), measured(0, 10.0, 25.0), measured(1, 5.0, 40.0)]
    assert pace_of(*both) == pytest.approx((20 + 30) / 15)
    assert pace_of(*both, measured(0, 20.0, 45.0)) == pytest.approx((40 + 30) / 25)


def test_an_attempt_counts_from_its_checkpoint_and_a_wait_in_between_not_at_all() -> None:
    lost = Retried(number=0, cause="c", session_seconds=30.0)
    events = [started(0, 0.0), measured(0, 10.0, 20.0), lost, started(0, 900.0, 1, 10.0)]
    assert pace_of(*events) == pytest.approx(2.0)
    assert pace_of(*events, measured(0, 30.0, 930.0)) == pytest.approx((20 + 30) / 30)


def test_what_another_session_began_says_nothing() -> None:
    assert pace_of(measured(0, 10.0, 25.0)) is None
