from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from closed_form import open_history, study

from search.arrivals import NOWHERE, PATIENCE_SECONDS, Arrivals
from search.events import RunKey, Started
from search.history import History
from search.proposer import Proposer
from search.referee import Referee
from search.run_queue import RunQueue
from search.seat import Place
from search.stop_request import StopRequest

HERE = Place(node="worker", device="cuda:3", pid=7)
CONFIG = {"resume_from": None, "threads": 2}
KEY = RunKey(0)


@dataclass
class Engine:
    """Answers once it has a place, or to who waits for longer than it takes."""

    place: Place | None = None
    seconds: float = 60.0

    def answer(self, patience_seconds: float) -> Place | None:
        return HERE if patience_seconds > self.seconds else self.place


@pytest.fixture
def history(tmp_path: Path) -> Iterator[History]:
    """One trial proposed."""
    spec = study()
    with open_history(tmp_path, spec) as history:
        proposed = Proposer(spec).propose(history.ledger)
        assert proposed is not None
        history.append(proposed)
        yield history


def arrivals(history: History) -> Arrivals:
    return Arrivals(Referee(history, StopRequest(), RunQueue("search")), pack=4)


def test_a_run_begins_once_its_engine_has_said_where_it_is(history: History) -> None:
    """Not when Tune asks, or all of Tune would wait, and the record would lack its device."""
    starts: list[Started] = []
    history.listen(lambda event: starts.append(event) if isinstance(event, Started) else None)
    coming, engine = arrivals(history), Engine()
    coming.expect(KEY, engine, CONFIG)
    coming.look()
    assert (starts, history.ledger.session_training) == ([], False)
    engine.place = HERE
    coming.look()
    coming.look()
    coming.settle(KEY)
    (started,) = starts
    assert (started.node, started.device) == ("worker", "cuda:3")
    assert (started.pack, started.threads) == (4, 2)


@pytest.mark.parametrize(
    ("seconds", "device"), [(PATIENCE_SECONDS - 1, "cuda:3"), (99.0, "unknown")]
)
def test_who_has_given_a_result_is_asked_with_patience(
    history: History, seconds: float, device: str
) -> None:
    coming = arrivals(history)
    coming.expect(KEY, Engine(seconds=seconds), CONFIG)
    coming.settle(KEY)
    assert history.ledger.run(KEY).device == device


def test_who_died_at_once_was_nowhere(history: History) -> None:
    coming = arrivals(history)
    coming.expect(KEY, Engine(NOWHERE), CONFIG)
    run = history.ledger.run(KEY)
    assert (run.attempts, run.node) == (1, "unknown")
