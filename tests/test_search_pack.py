from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from closed_form import ClosedFormLanes, ClosedFormRun, ClosedFormRuns, Fault

from search.pack import best_pack, settled_pack

TRIAL = {
    "number": 0,
    "replicate": 0,
    "seed": 1,
    "threads": 1,
    "fold": None,
    "noise_draw": 0,
    "params": {"learning_rate": 0.1, "d_dropout": 0.3},
}


def never(room: int) -> int:
    raise AssertionError("nothing is probed where it is settled already")


def test_what_the_study_says_holds_anywhere() -> None:
    for gpus in (0.0, 0.0625):
        assert settled_pack(4, gpus, None, never) == 4
        assert settled_pack(1, gpus, 8, never) == 1


def test_auto_is_one_where_there_is_nothing_to_share() -> None:
    assert settled_pack("auto", 0.0, None, never) == 1
    assert settled_pack("auto", 0.0, 16, never) == 1  # it had a GPU, and has none now
    assert settled_pack("auto", 1.0, None, never) == 1
    assert settled_pack("auto", 2.0, None, never) == 1


def test_auto_is_probed_once_and_kept_on_resume() -> None:
    for gpus, room in ((0.0625, 16), (1 / 3, 3), (0.4, 2), (0.001, 64)):
        assert settled_pack("auto", gpus, None, lambda found: found) == room
    assert settled_pack("auto", 0.0625, 8, never) == 8


class Clock:
    """Time that passes as the lanes of a device with these speeds would have it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, speeds: dict[int, float]) -> None:
        self.now, self.speeds = 0.0, speeds
        self.opened: list[ClosedFormRun] = []
        monkeypatch.setattr("search.pack.time.monotonic", lambda: self.now)

    def __call__(self, device: str, capacity: int) -> ClosedFormLanes:
        lanes = ClosedFormRuns(Path(), 1e9, 1e9, fused=True)(device, capacity)
        begin = lanes.open

        def noted(trial: Any) -> ClosedFormRun:
            self.opened.append(begin(trial))
            return self.opened[-1]

        def advance(runs: Sequence[ClosedFormRun], num_steps: int) -> None:
            if self.speeds[len(runs)] == 0:
                raise MemoryError
            self.now += num_steps * len(runs) / self.speeds[len(runs)]

        lanes.open = noted  # type: ignore[method-assign]
        lanes.advance = advance  # type: ignore[method-assign]
        return lanes


@pytest.mark.parametrize(
    ("speeds", "room", "best"),
    [
        ({1: 100, 2: 100, 4: 104, 8: 99}, 8, 1),
        ({1: 100, 2: 190, 4: 380, 8: 700, 16: 900}, 16, 16),
        ({1: 100, 2: 190, 4: 380, 8: 390, 16: 385}, 16, 4),
        ({1: 100, 2: 190, 4: 380, 8: 0, 16: 0}, 16, 4),  # memory
        ({1: 100, 2: 190, 4: 380, 6: 500}, 6, 6),  # what is asked for, also if no power of two
    ],
)
def test_the_smallest_of_the_fast_packs_is_chosen(
    monkeypatch: pytest.MonkeyPatch, speeds: dict[int, float], room: int, best: int
) -> None:
    clock = Clock(monkeypatch, speeds)
    assert best_pack(clock, "cuda:0", TRIAL, room) == best
    assert all(run.closed for run in clock.opened)
    assert clock.now < 4 * len(speeds)  # seconds


def test_runs_that_go_one_after_another_gain_nothing(tmp_path: Path) -> None:
    lanes = ClosedFormRuns(tmp_path, faults={0: Fault("raise", 0)})
    assert best_pack(lanes, "cpu", TRIAL, 16) == 1


def test_what_not_even_one_trial_can_do_is_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(MemoryError):
        best_pack(Clock(monkeypatch, {1: 0}), "cuda:0", TRIAL, 4)
