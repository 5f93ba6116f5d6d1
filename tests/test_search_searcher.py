from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from closed_form import open_history, study

from search.cell import cell_key
from search.events import Checkpointed, Ended, Proposed, Retried, SessionOpened, Started
from search.history import History
from search.journal import Journal
from search.proposer import Proposer, trial_seed
from search.run_queue import RunQueue
from search.searcher import StudySearcher
from search.stop_request import StopRequest
from search.study import StudySpec


def start(history: History, number: int) -> None:
    attempt = history.ledger.trials[number].first.attempts
    history.append(Started(number=number, attempt=attempt, node="n", device="cpu", pid=1))


def end(history: History, number: int) -> None:
    history.append(Ended(number=number, state="STOPPED", reason="asha"))


def work_off(history: History, spec: StudySpec, most: int = 1000) -> list[Proposed]:
    """Proposes and ends trials one after another."""
    proposer = Proposer(spec)
    made: list[Proposed] = []
    while len(made) < most and (proposed := proposer.propose(history.ledger)):
        history.append(proposed)
        end(history, proposed.number)
        made.append(proposed)
    return made


@pytest.fixture
def history(tmp_path: Path) -> Iterator[History]:
    with open_history(tmp_path, study()) as history:
        yield history


def test_stages_come_in_order_and_a_manual_point_on_the_grid_is_not_run_again(
    history: History,
) -> None:
    made = work_off(history, study(grid=11, model=5))
    assert [p.stage for p in made] == ["manual"] + 11 * ["random_grid"] + 5 * ["model"]
    assert [p.stage_index for p in made] == [0] + 11 * [1] + 5 * [2]
    assert [p.number for p in made] == list(range(17))
    assert len({p.cell for p in made}) == 17
    rates = {p.params["learning_rate"] for p in made[:12]}
    assert len(rates) == 4  # all twelve cells of the grid: the manual point is one of them


def test_proposals_follow_from_the_record_alone(tmp_path: Path) -> None:
    spec = study(grid=4, model=6)
    with open_history(tmp_path / "straight", spec) as straight:
        expected = work_off(straight, spec)
    for most in (1, 5, 2, 100):  # a new driver each time
        with open_history(tmp_path / "broken", spec) as broken:
            work_off(broken, spec, most)
    events = Journal.read(tmp_path / "broken" / "journal.jsonl")
    found = [e for e in events if isinstance(e, Proposed)]
    same = {"cell", "seed", "number", "stage"}
    assert [p.model_dump(include=same) for p in found] == [
        p.model_dump(include=same) for p in expected
    ]


def test_another_seed_gives_another_order_and_other_proposals(tmp_path: Path) -> None:
    cells = []
    for seed in (0, 1):
        spec = study(grid=4, model=2, seed=seed)
        with open_history(tmp_path / str(seed), spec) as history:
            cells.append([p.cell for p in work_off(history, spec)])
    assert cells[0][0] == cells[1][0]
    assert not set(cells[0][-2:]) & set(cells[1][-2:])


def test_a_finite_space_is_searched_to_its_end(history: History) -> None:
    space = {
        "learning_rate": {"type": "float", "low": 0.1, "high": 0.3, "step": 0.1},
        "d_dropout": {"type": "categorical", "choices": [0.0, 0.5]},
        "d_steps": {"type": "int", "low": 1, "high": 3},
    }
    spec = study(
        space=space,
        stages=[{"kind": "model", "trials": 18}],
        budget={"kimg_per_trial": 400.0, "measure_kimg": 100.0, "trials": 18},
    )
    history.append(SessionOpened(extra_trials=32, pid=1))
    made = work_off(history, spec)
    assert len(made) == len({p.cell for p in made}) == 3 * 2 * 3


def test_extra_trials_go_to_the_last_stage(history: History) -> None:
    spec = study(grid=2, model=1)
    assert len(work_off(history, spec)) == 4
    history.append(SessionOpened(extra_trials=3, pid=1))
    assert [p.stage for p in work_off(history, spec)] == 3 * ["model"]


def test_seeds_of_trials_are_stable_and_differ() -> None:
    assert trial_seed(0, 0) == 3051931488724851722
    seeds = {trial_seed(s, n, r) for s in range(5) for n in range(50) for r in range(3)}
    assert len(seeds) == 750
    assert all(0 <= seed < 2**63 for seed in seeds)


def searcher(history: History, stop: StopRequest | None = None) -> StudySearcher:
    return StudySearcher(
        Proposer(study()),
        history,
        RunQueue("search"),
        history.folder,
        max_concurrent=2,
        threads=1,
        stop=stop or StopRequest(),
    )


def config(suggested: dict[str, Any] | str | None) -> dict[str, Any]:
    assert isinstance(suggested, dict)
    return suggested


def test_a_proposal_is_recorded_before_tune_sees_it(history: History) -> None:
    given = config(searcher(history).suggest("a"))
    trial = history.ledger.trials[given["number"]]
    assert cell_key(given["params"]) == trial.cell
    assert given["seed"] == trial.seed
    assert given["resume_from"] is None
    assert given["folder"] == "00000-00-000"


def test_nothing_is_proposed_before_there_is_room(history: History) -> None:
    one = searcher(history)
    first, _ = config(one.suggest("a")), config(one.suggest("b"))
    assert one.suggest("c") is None
    end(history, first["number"])
    one.on_trial_complete("a")
    assert config(one.suggest("c"))["number"] == 2


def test_unfinished_trials_come_first_with_their_checkpoints(history: History) -> None:
    first = searcher(history)
    first.suggest("a"), first.suggest("b")
    for number in (0, 1):
        start(history, number)
        path = f"tune/{number:05d}-00/checkpoint_000000"
        history.append(Checkpointed(number=number, kimg=100.0, path=path))
    (history.folder / "tune/00000-00/checkpoint_000000").mkdir(parents=True)
    history.append(SessionOpened(pid=1))
    resumed = searcher(history)
    with_folder, without = config(resumed.suggest("a")), config(resumed.suggest("b"))
    assert [with_folder["number"], without["number"]] == [0, 1]
    assert with_folder["resume_from"] == str(history.folder / "tune/00000-00/checkpoint_000000")
    assert with_folder["folder"] == "00000-00-001"
    assert without["resume_from"] is None
    assert resumed.suggest("c") is None


def test_a_run_that_is_handed_out_again_has_the_retries_that_are_left(history: History) -> None:
    first = searcher(history)
    assert config(first.suggest("a"))["retries_left"] == 2
    for left in (1, 0, 0):  # never below 0: that many is without end to Tune
        start(history, 0)
        history.append(Retried(number=0, cause="machine lost"))
        history.append(SessionOpened(pid=1))
        assert config(searcher(history).suggest("a"))["retries_left"] == left


def test_the_search_ends_with_the_stages_or_with_a_stop(history: History) -> None:
    stop = StopRequest()
    one = searcher(history, stop)
    for _ in range(8):
        end(history, config(one.suggest("a"))["number"])
        one.on_trial_complete("a")
    assert one.suggest("a") == "FINISHED"
    stopped = searcher(history, stop)
    stop.ask("interrupted")
    assert stopped.suggest("a") == "FINISHED"
