import os
import signal
import threading

import pytest

from search.stop_request import StopReason, StopRequest


def test_nothing_is_asked_at_first() -> None:
    stop = StopRequest()
    assert stop.reason is None
    assert stop.remaining_seconds is None


def test_the_clock_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    stop = StopRequest(seconds=60.0)
    assert stop.remaining_seconds == 60
    now = 159.0
    assert stop.reason is None
    now = 161.0
    assert stop.reason == "time_budget"
    assert stop.remaining_seconds == 0


def test_the_clock_waits_for_the_first_run(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    stop = StopRequest(seconds=60.0, begun=False)
    now = 1000.0
    assert (stop.reason, stop.remaining_seconds) == (None, 60.0)
    stop.extend(5.0)
    stop.begin()
    now = 1050.0
    stop.begin()  # once is enough
    assert stop.remaining_seconds == 15.0
    now = 1066.0
    assert stop.reason == "time_budget"
    assert StopRequest(seconds=0.0, begun=False).reason == "time_budget"


def test_what_is_kept_back_is_not_there_to_spend_until_it_is_less() -> None:
    stop = StopRequest(seconds=60.0, begun=False)
    stop.keep_back(40.0)
    assert stop.remaining_seconds == 20.0
    stop.keep_back(10.0)
    assert stop.remaining_seconds == 50.0
    free = StopRequest()
    free.keep_back(10.0)
    assert free.remaining_seconds is None


def test_a_user_counts_for_more_than_the_clock() -> None:
    stop = StopRequest(seconds=0.0)
    reasons = [stop.reason]
    orders: tuple[StopReason, ...] = ("interrupted", "time_budget")
    for reason in orders:
        stop.ask(reason)
        reasons.append(stop.reason)
    assert reasons == ["time_budget", "interrupted", "interrupted"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_asks_and_the_second_interrupts(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    stop = StopRequest()
    with stop.on_signals():
        os.kill(os.getpid(), number)
        assert stop.reason == "interrupted"
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), number)
    assert signal.getsignal(number) is before


def test_other_threads_cannot_take_signals_and_do_not_try() -> None:
    entered = []

    def enter() -> None:
        with StopRequest().on_signals():
            entered.append(True)

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert entered == [True]
