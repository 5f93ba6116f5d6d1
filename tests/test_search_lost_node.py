"""Machines that are gone before Ray knows it: who listens there says so."""

import platform
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from ray.tune.experiment import Trial

from search.attempt import cause_of
from search.lost_node import is_lost


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("search.lost_node.PATIENCE_SECONDS", 0.2)
    monkeypatch.setattr("search.lost_node.LOOK_SECONDS", 0.05)


@contextmanager
def raylet() -> Iterator[int]:
    """A port that somebody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def node(port: int, *, alive: bool = True, host: str = "worker") -> dict[str, Any]:
    return {
        "NodeManagerHostname": host,
        "NodeManagerAddress": "127.0.0.1",
        "NodeManagerPort": port,
        "Alive": alive,
    }


def test_a_machine_is_lost_once_nobody_listens_there() -> None:
    with raylet() as port:
        assert not is_lost("worker", lambda: [node(port)])
        assert is_lost("worker", lambda: [node(port, alive=False)])  # Ray says so
        back = [node(1, alive=False), node(port)]
        assert not is_lost("worker", lambda: back)
    assert is_lost("worker", lambda: [node(port)])


def test_a_machine_that_ends_a_little_later_is_waited_for() -> None:
    with raylet() as port:
        looks = iter([True, True, False])
        assert is_lost("worker", lambda: [node(port, alive=next(looks))])


def test_the_drivers_own_machine_and_unknown_ones_are_not_lost() -> None:
    assert not is_lost(platform.node(), lambda: [node(1, host=platform.node())])
    assert not is_lost("unknown", lambda: [node(1)])
    assert not is_lost(None, lambda: [node(1)])


def test_a_process_that_died_with_its_machine_was_pre_empted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    died = tmp_path / "error.txt"
    died.write_text("The actor died unexpectedly before finishing this task.")
    trial = cast("Trial", SimpleNamespace(error_file=str(died)))
    asked: list[str | None] = []

    def lost(host: str | None) -> bool:
        asked.append(host)
        return host == "gone"

    monkeypatch.setattr("search.attempt.is_lost", lost)
    assert [cause_of(trial, host).kind for host in ("here", "gone")] == ["machine", "preempted"]
    died.write_text("search.seat.RunFaultError: RuntimeError: boom")
    assert cause_of(trial, "gone").kind == "code"
    assert asked == ["here", "gone"]  # only where it may be the machine
