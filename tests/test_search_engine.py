"""The engine's laws, without Ray: a trial's course is the one it has alone, whoever is beside."""

import itertools
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from closed_form import ClosedFormLanes, ClosedFormRun, ClosedFormRuns, Fault
from test_search_gan_run import TRIAL, make_runs

from search.engine import Engine, EngineError, LaneLostError
from search.seat import OwnSeat
from search.trial_run import MakeLanes, Progress

STEP_SECONDS = 60.0


def trial(number: int, **params: Any) -> dict[str, Any]:
    chosen = {"learning_rate": 0.1, "d_dropout": 0.3} | params
    return {"number": number, "replicate": 0, "seed": 7 + number, "threads": 1, "params": chosen}


def finish(
    engine: Engine, config: Mapping[str, Any], folder: Path | None = None
) -> list[Progress]:
    """Every answer up to the end, as a trial's actor asks for them."""
    lane = engine.open(config, folder)
    found: list[Progress] = []
    while not (found and (found[-1].done or found[-1].infeasible)):
        found.append(engine.step(lane, STEP_SECONDS))
    engine.close(lane)
    return found


def alone(runs: MakeLanes, config: Mapping[str, Any]) -> list[Progress]:
    """The same in a process of its own."""
    seat = OwnSeat(runs)
    seat.open(config, None)
    found: list[Progress] = []
    while not (found and (found[-1].done or found[-1].infeasible)):
        found.append(seat.step(STEP_SECONDS))
    return found


def together(engine: Engine, configs: Sequence[Mapping[str, Any]]) -> list[list[Progress]]:
    with ThreadPoolExecutor(len(configs)) as pool:
        return list(pool.map(lambda config: finish(engine, config), configs))


class Watched:
    """A maker that keeps the lanes it made."""

    def __init__(self, runs: ClosedFormRuns) -> None:
        self.runs = runs
        self.opened: dict[int, ClosedFormRun] = {}

    def __call__(self) -> ClosedFormLanes:
        self.lanes = self.runs("cpu", 4)
        begin = self.lanes.open

        def noted(config: Mapping[str, Any]) -> ClosedFormRun:
            run = self.opened[config["number"]] = begin(config)
            return run

        self.lanes.open = noted  # type: ignore[method-assign, assignment]
        return self.lanes

    def wait_until_ahead(self, number: int) -> ClosedFormRun:
        """Waits until a trial has run ahead as far as it may."""
        run = self.opened[number]
        deadline = time.monotonic() + 30
        while run.steps_left and time.monotonic() < deadline:
            time.sleep(0.001)
        assert run.steps_left == 0
        return run


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("kind", ["infeasible", "raise", "nan"])
def test_a_course_is_the_same_in_any_company(tmp_path: Path, kind: Any, fused: bool) -> None:
    runs = ClosedFormRuns(tmp_path, faults={9: Fault(kind, 130)}, fused=fused)
    expected = alone(runs, trial(1))
    assert [p.kimg for p in expected] == [100, 200, 300, 400]
    for company in ([], [0, 2, 3], [3, 2, 0]):
        engine = Engine(lambda: runs("cpu", 4), 4)
        numbers = [1, *company] if company[:1] != [3] else [*company, 1]
        courses = together(engine, [trial(number) for number in numbers])
        assert courses[numbers.index(1)] == expected

    engine = Engine(lambda: runs("cpu", 4), 4)
    with ThreadPoolExecutor(3) as pool:
        bad = pool.submit(finish, engine, trial(9))
        silent = engine.open(trial(8), None)  # and never a step
        first = pool.submit(finish, engine, trial(0))
        assert pool.submit(finish, engine, trial(1)).result() == expected  # joins late
        assert first.result() == alone(runs, trial(0))
        if kind == "raise":
            with pytest.raises(RuntimeError, match="boom in trial 9"):
                bad.result()
        else:
            # NaN among metrics never equals itself, so states are compared.
            assert str(bad.result()) == str(alone(runs, trial(9)))
    assert engine.step(silent, STEP_SECONDS) == alone(runs, trial(8))[0]


def test_who_never_calls_again_is_parked_and_nothing_of_it_is_measured(tmp_path: Path) -> None:
    watched = Watched(ClosedFormRuns(tmp_path))
    engine = Engine(watched, 4)
    lane = engine.open(trial(0), None)
    assert engine.step(lane, STEP_SECONDS).kimg == 100
    assert finish(engine, trial(1)) == alone(watched.runs, trial(1))
    run = watched.wait_until_ahead(0)
    watched.lanes.chunks.clear()
    assert finish(engine, trial(2)) == alone(watched.runs, trial(2))
    assert run.kimg == 200  # one interval ahead, and no further
    assert run.due == run.steps  # not measured: that would have set the next aim
    assert {number for chunk in watched.lanes.chunks for number in chunk} == {2}


def test_what_is_saved_is_the_answer_not_the_run_ahead(tmp_path: Path) -> None:
    watched = Watched(ClosedFormRuns(tmp_path))
    expected = alone(watched.runs, trial(0))
    engine = Engine(watched, 1)
    lane = engine.open(trial(0), None)
    assert engine.step(lane, STEP_SECONDS) == expected[0]
    watched.wait_until_ahead(0)
    engine.save(lane, tmp_path)
    engine.close(lane)  # stopped: the run-ahead is gone with its lane
    resumed = finish(Engine(watched, 1), trial(0), tmp_path)
    loaded = [(p.metrics or {}).get("loaded_kimg") for p in resumed]
    assert loaded == [100, 100, 100]
    assert [(p.kimg, (p.metrics or {})["state"]) for p in resumed] == [
        (p.kimg, (p.metrics or {})["state"]) for p in expected[1:]
    ]


def test_the_clock_answers_between_measurements(tmp_path: Path) -> None:
    runs = ClosedFormRuns(tmp_path, kimg_per_trial=100, pace=100)
    engine = Engine(lambda: runs("cpu", 1), 1)
    lane = engine.open(trial(0), None)
    progress = engine.step(lane, 0.1)
    assert progress.metrics is None
    assert 0 < progress.kimg < 100
    time.sleep(0.2)  # it runs ahead
    engine.save(lane, tmp_path)
    other = OwnSeat(runs)
    other.open(trial(0), tmp_path)
    assert other.step(0.0).kimg == progress.kimg
    assert engine.step(lane, STEP_SECONDS).metrics is not None


def test_signatures_take_turns_and_never_mix(tmp_path: Path) -> None:
    watched = Watched(ClosedFormRuns(tmp_path, pace=2000))
    configs = [trial(number, units=number % 2) for number in range(4)]
    courses = together(Engine(watched, 4), configs)
    assert courses == [alone(watched.runs, config) for config in configs]
    chunks = watched.lanes.chunks
    assert all(len({number % 2 for number in chunk}) == 1 for chunk in chunks)
    assert any(len(chunk) == 2 for chunk in chunks)
    # While both wait neither goes twice: seen where all four are on their way.
    middle = [chunk[0] % 2 for chunk in chunks][4:12]
    assert sum(a != b for a, b in itertools.pairwise(middle)) >= 4


@pytest.mark.parametrize("fused", [False, True])
def test_who_waits_comes_first_and_company_is_free_where_fused(
    tmp_path: Path, fused: bool
) -> None:
    watched = Watched(ClosedFormRuns(tmp_path, kimg_per_trial=100, pace=200, fused=fused))
    engine = Engine(watched, 2)
    lane = engine.open(trial(1), None)
    engine.open(trial(0), None)  # behind the other, and silent
    engine.step(lane, STEP_SECONDS)
    last = [chunk for chunk in watched.lanes.chunks if 1 in chunk][-1]
    assert last == ([1, 0] if fused else [1])


def test_a_trial_that_is_opened_again_takes_its_place(tmp_path: Path) -> None:
    runs = ClosedFormRuns(tmp_path)
    engine = Engine(lambda: runs("cpu", 2), 2)
    old = engine.open(trial(0), None)
    engine.step(old, STEP_SECONDS)
    assert finish(engine, trial(0)) == alone(runs, trial(0))
    with pytest.raises(LaneLostError):
        engine.step(old, STEP_SECONDS)
    with pytest.raises(LaneLostError):
        engine.save(old, tmp_path)
    engine.close(old)


def test_a_full_engine_gives_up_who_has_been_silent_for_longest(tmp_path: Path) -> None:
    runs = ClosedFormRuns(tmp_path)
    engine = Engine(lambda: runs("cpu", 2), 2)
    first, second = engine.open(trial(0), None), engine.open(trial(1), None)
    engine.step(first, STEP_SECONDS)
    assert finish(engine, trial(2)) == alone(runs, trial(2))
    assert engine.step(first, STEP_SECONDS).kimg == 200
    with pytest.raises(LaneLostError):
        engine.step(second, STEP_SECONDS)


def test_who_comes_to_a_full_engine_waits_for_a_lane_that_falls_silent(tmp_path: Path) -> None:
    runs = ClosedFormRuns(tmp_path, pace=500)
    engine = Engine(lambda: runs("cpu", 1), 1)
    lane = engine.open(trial(0), None)
    with ThreadPoolExecutor(1) as pool:
        step = pool.submit(engine.step, lane, STEP_SECONDS)
        time.sleep(0.05)
        assert finish(engine, trial(1)) == alone(runs, trial(1))
        assert step.result().kimg == 100


def test_a_step_of_a_lane_that_is_closed_ends(tmp_path: Path) -> None:
    engine = Engine(lambda: ClosedFormRuns(tmp_path, pace=100)("cpu", 1), 1)
    lane = engine.open(trial(0), None)
    with ThreadPoolExecutor(1) as pool:
        step = pool.submit(engine.step, lane, STEP_SECONDS)
        time.sleep(0.05)
        engine.close(lane)
        with pytest.raises(LaneLostError):
            step.result()


def test_a_trial_that_cannot_be_opened_costs_nobody_else(tmp_path: Path) -> None:
    runs = ClosedFormRuns(tmp_path)
    engine = Engine(lambda: runs("cpu", 1), 1)
    with pytest.raises(FileNotFoundError):
        engine.open(trial(0), tmp_path / "none")
    assert finish(engine, trial(1)) == alone(runs, trial(1))


def test_a_broken_engine_says_so_to_all(tmp_path: Path) -> None:
    lanes = ClosedFormRuns(tmp_path)("cpu", 2)
    broken = threading.Event()

    def fail(runs: object, num_steps: int) -> None:
        broken.wait(30)
        raise RuntimeError("illegal memory access")

    lanes.advance = fail  # type: ignore[method-assign]
    engine = Engine(lambda: lanes, 2)
    lane = engine.open(trial(0), None)
    with ThreadPoolExecutor(2) as pool:
        step = pool.submit(engine.step, lane, STEP_SECONDS)
        joining = pool.submit(engine.open, trial(1), None)
        time.sleep(0.05)
        broken.set()
        for call in (step, joining):
            with pytest.raises(EngineError, match="illegal memory access"):
                call.result()
    with pytest.raises(EngineError, match="illegal memory access"):
        engine.close(lane)

    def nothing() -> ClosedFormLanes:
        raise OSError("no data here")

    with pytest.raises(EngineError, match="no data here"):
        Engine(nothing, 1).open(trial(0), None)


@pytest.mark.usefixtures("worker_settings")
def test_a_gan_is_the_same_in_any_company(tmp_path: Path) -> None:
    runs = make_runs(tmp_path)
    changes: list[dict[str, Any]] = [{"learning_rate": rate} for rate in (0.1, 0.05, 0.02)]
    configs = [
        {
            **TRIAL,
            "number": number,
            "seed": number,
            "params": {"learning_rate": 0.1, "d_dropout": 0.2} | change,
        }
        for number, change in enumerate([*changes, {"batch_size": 15}])
    ]
    expected = [[(p.kimg, p.metrics) for p in alone(runs, config)] for config in configs]
    files = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*.*")}
    courses = together(Engine(lambda: runs("cpu", 4), 4), configs)
    assert [[(p.kimg, p.metrics) for p in course] for course in courses] == expected
    assert len(files) == 4 * (3 + 1)
    assert all(path.read_bytes() == content for path, content in files.items())
