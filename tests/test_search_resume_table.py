"""Every sampler with every scheduler: killed by SIGKILL in the middle, then the same cells."""

import os
import signal
from pathlib import Path
from typing import Any

import pytest
from closed_form import open_history, study
from fake_pool import drive, phases
from tiny_schedulers import SCHEDULERS

from search.events import Event, Proposed
from search.journal import Journal
from search.ledger import Ledger
from search.study import StudySpec

GRID = {"learning_rate": 4, "d_dropout": 3}
POINTS = [{"learning_rate": 10.0**-power, "d_dropout": 0.1 * power} for power in range(4)]
STAGES: dict[str, dict[str, Any]] = {
    "manual": {"kind": "manual", "points": POINTS},
    "random_grid": {"kind": "random_grid", "levels": GRID, "trials": 8},
    "full_grid": {"kind": "full_grid", "levels": GRID, "trials": 8},
    **{
        sampler: {"kind": "model", "sampler": sampler, "trials": 8}
        for sampler in ("random", "sobol", "tpe", "gp", "cmaes", "nsga2")
    },
}
EVERY_SCHEDULER = SCHEDULERS | {
    "shadow": {"kind": "asha", "grace_kimg": 100.0, "shadow": 0.5},
    "pbt": {"kind": "pbt", "interval_kimg": 100.0},
    "pb2": {"kind": "pb2", "interval_kimg": 100.0},
}


def spec_of(sampler: str, scheduler: str) -> StudySpec:
    stages = [STAGES[sampler]]
    trials = stages[0].get("trials", len(POINTS))
    budget = {"kimg_per_trial": 400.0, "measure_kimg": 100.0, "trials": trials}
    return study(stages=stages, budget=budget, scheduler=EVERY_SCHEDULER[scheduler])


def killed_in_the_middle(spec: StudySpec, folder: Path, events: int) -> None:
    """Searches in a process of its own, which kills itself after so many events."""
    child = os.fork()
    if child == 0:
        with open_history(folder, spec) as history:
            left = [events]

            def listen(event: Event) -> None:
                left[0] -= 1
                if left[0] == 0:
                    os.kill(os.getpid(), signal.SIGKILL)

            history.listen(listen)
            phases(spec, history, workers=1).run()
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status)
    assert os.WTERMSIG(status) == signal.SIGKILL


def cells(events: list[Event]) -> list[str]:
    return [event.cell for event in events if isinstance(event, Proposed)]


@pytest.mark.parametrize("scheduler", EVERY_SCHEDULER)
@pytest.mark.parametrize("sampler", STAGES)
def test_a_killed_study_tries_what_it_would_have_tried(
    tmp_path: Path, sampler: str, scheduler: str
) -> None:
    spec = spec_of(sampler, scheduler)
    straight = drive(spec, tmp_path / "straight", workers=1)
    folder = tmp_path / "killed"
    killed_in_the_middle(spec, folder, len(straight) // 2)
    before = Journal.read(folder / "journal.jsonl")
    assert len(before) < len(straight)
    resumed = drive(spec, folder, workers=1)
    assert cells(resumed) == cells(straight)
    ends = [(t.number, t.state, t.reason) for t in Ledger(resumed).trials.values()]
    assert ends == [(t.number, t.state, t.reason) for t in Ledger(straight).trials.values()]
