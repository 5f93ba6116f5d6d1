"""What a search waits for before it settles what trials get; time passes by sleeping alone."""

import time

import pytest

from search.autoscaling import Promise
from search.joining import JOIN_SECONDS, LATE_SECONDS, Joined, await_promised

NOBODY = Joined(0, 0.0)
WITHOUT, WITH = Joined(1, 0.0), Joined(1, 4.0)


class Clock:
    """The real one, moved on by sleeps that do not take place."""

    def __init__(self) -> None:
        self.slept_seconds = 0.0

    def sleep(self, seconds: float) -> None:
        self.slept_seconds += seconds

    def monotonic(self) -> float:
        return self.slept_seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("search.joining.time.sleep", clock.sleep)
    monkeypatch.setattr("search.joining.time.monotonic", clock.monotonic)
    return clock


def waited(
    clock: Clock,
    arrivals: dict[float, Joined],
    *,
    gpus: bool = True,
    workers: int = 2,
    age_seconds: float = 0.0,
) -> tuple[float, list[str]]:
    """How many seconds were waited, and what was said, where these had joined by then."""
    said: list[str] = []

    def look() -> Joined:
        return [joined for at, joined in arrivals.items() if at <= clock.slept_seconds][-1]

    promise = Promise(workers, time.time() - age_seconds)
    await_promised(promise, look, said.append, gpus=gpus)
    return clock.slept_seconds, said


@pytest.mark.parametrize("gpus", [True, False])
def test_nobody_waits_where_a_fitting_worker_is_there(clock: Clock, gpus: bool) -> None:
    assert waited(clock, {0: WITH}, gpus=gpus) == (0.0, [])


def test_a_search_that_begins_before_its_workers_waits_for_them(clock: Clock) -> None:
    seconds, said = waited(clock, {0: NOBODY, 100: WITHOUT, 200: WITH})
    assert 200 <= seconds < 205
    assert len(said) == 1
    assert "waiting for a worker with a GPU: 0 of 2 have joined" in said[0]
    assert "at most 15 min" in said[0]


def test_without_a_wish_for_gpus_any_worker_will_do(clock: Clock) -> None:
    seconds, _ = waited(clock, {0: NOBODY, 100: WITHOUT, 200: WITH}, gpus=False)
    assert 100 <= seconds < 105


def test_where_all_are_there_no_gpu_is_waited_for(clock: Clock) -> None:
    assert waited(clock, {0: Joined(2, 0.0)}) == (0.0, [])


@pytest.mark.parametrize(
    ("age_seconds", "patience_seconds"),
    [(0.0, JOIN_SECONDS), (800.0, 100.0), (1e6, LATE_SECONDS), (-1e6, JOIN_SECONDS)],
)
def test_the_wait_has_an_end_that_is_told(
    clock: Clock, age_seconds: float, patience_seconds: float
) -> None:
    seconds, said = waited(clock, {0: NOBODY, 10: WITHOUT}, age_seconds=age_seconds)
    assert abs(seconds - patience_seconds) < 5
    assert "goes on without" in said[-1]
    assert "1 of 2 has joined" in said[-1]
