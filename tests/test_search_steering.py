import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from closed_form import ClosedFormRuns, open_history, study
from fake_pool import drive
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from search.answers import Answers, told
from search.cell import cell_key
from search.events import (
    Extended,
    Proposed,
    RequestRefused,
    RunKey,
    SessionOpened,
    StopAsked,
)
from search.history import JOURNAL_NAME, History
from search.journal import Journal
from search.ledger import Ledger, LedgerError
from search.proposer import Proposer, trial_seed
from search.referee import Referee
from search.requests import (
    REQUESTS_FOLDER,
    Enqueue,
    Extend,
    Request,
    RequestError,
    Stop,
    ask,
    read_request,
    waiting,
)
from search.run_queue import RunQueue
from search.searcher import StudySearcher
from search.seat import Place
from search.steering import Steering, answer_to, take_up_extensions
from search.stop_request import StopRequest
from search.trial_run import Progress

SPEC = study(grid=4, model=2)  # with the manual point seven trials
POINT: dict[str, Any] = {"learning_rate": 0.02, "d_dropout": 0.45}
METRIC = "validation_log_likelihood"


@pytest.fixture
def history(tmp_path: Path) -> Iterator[History]:
    with open_history(tmp_path, SPEC) as history:
        yield history


class Driver:
    """What a driver has at hand, without Ray; `turn` looks at once."""

    def __init__(self, history: History, seconds: float | None = None) -> None:
        self.history, self.asked, self.finished = history, 0, False
        self.names: dict[int, str] = {}  # by which Tune knows them
        self.stop = StopRequest(seconds)
        queue, proposer = RunQueue("search"), Proposer(SPEC)
        self.referee = Referee(history, self.stop, queue, proposer=proposer)
        self.referee.settle(SPEC.budget.kimg_per_trial)
        self.searcher = StudySearcher(
            proposer,
            history,
            queue,
            history.folder,
            max_concurrent=2,
            threads=1,
            stop=self.stop,
        )

    def turn(self) -> None:
        Steering(SPEC, self.history, self.stop, self.referee.end_stopped).turn()

    def hand_out(self) -> int:
        """Lets Tune have the next trial, which starts."""
        number = self.suggest()
        assert number is not None
        self.start(number)
        return number

    def suggest(self) -> int | None:
        """The number of the next trial, None where there is none now."""
        self.asked += 1
        given = self.searcher.suggest(f"t{self.asked}")
        if not isinstance(given, dict):
            assert given in (None, "FINISHED")
            self.finished = given is not None
            return None
        number: int = given["number"]
        self.names[number] = f"t{self.asked}"
        return number

    def start(self, number: int) -> None:
        place = Place(node="n", device="cpu", pid=1)
        self.referee.started(RunKey(number), place, pack=1, restored=False)

    def report(self, number: int, kimg: float, *, done: bool = False) -> bool:
        progress = Progress(kimg=kimg, elapsed_seconds=kimg, metrics={METRIC: -kimg}, done=done)
        stops = self.referee.progressed(RunKey(number), progress)
        if stops:
            self.searcher.on_trial_complete(self.names[number])
            self.referee.finished(RunKey(number))
        assert self.referee.fault is None
        return stops


def answers(folder: Path) -> list[Proposed | Extended | StopAsked | RequestRefused]:
    kinds = Proposed | Extended | StopAsked | RequestRefused
    events = Journal.read(folder / JOURNAL_NAME)
    return [event for event in events if isinstance(event, kinds) and event.request is not None]


def test_an_enqueued_point_comes_next_and_takes_nothing_from_the_plan(history: History) -> None:
    driver = Driver(history)
    first = driver.hand_out()
    path = ask(history.folder, Enqueue(params=POINT))
    driver.turn()
    trial = history.ledger.trials[1]
    assert (trial.stage, trial.params, trial.cell) == ("enqueued", POINT, cell_key(POINT))
    assert trial.seed == trial_seed(SPEC.seed, 1)
    assert not path.exists()
    assert history.ledger.added_trials == 1
    assert driver.hand_out() == 1
    for number in (first, 1):
        driver.report(number, 400, done=True)
    for _ in range(6):
        driver.report(driver.hand_out(), 400, done=True)
    assert driver.suggest() is None
    assert driver.finished
    assert history.ledger.count_by_stage() == {
        "manual": 1,
        "random_grid": 4,
        "full_grid": 0,
        "model": 2,
        "enqueued": 1,
    }


def test_a_study_whose_plan_is_used_up_waits_for_its_last_trial(history: History) -> None:
    driver = Driver(history)
    for _ in range(6):
        driver.report(driver.hand_out(), 400, done=True)
    last = driver.hand_out()
    assert driver.suggest() is None
    assert not driver.finished
    ask(history.folder, Enqueue(params=POINT))
    ask(history.folder, Extend(trials=1))
    driver.turn()
    enqueued = driver.hand_out()
    assert enqueued == last + 1
    driver.report(last, 400, done=True)
    more = driver.hand_out()
    assert history.ledger.trials[more].stage == "model"
    for number in (enqueued, more):
        driver.report(number, 400, done=True)
    assert driver.suggest() is None
    assert driver.finished


def test_a_running_trial_stops_at_its_next_result(history: History) -> None:
    driver = Driver(history)
    number = driver.hand_out()
    assert not driver.report(number, 100)
    ask(history.folder, Stop(number=number, reason="too slow"))
    driver.turn()
    assert history.ledger.trials[number].state == "RUNNING"
    assert driver.report(number, 200)
    trial = history.ledger.trials[number]
    assert (trial.state, trial.reason) == ("STOPPED", "by request: too slow")
    assert trial.total_kimg == 200


def test_a_trial_that_is_done_is_completed_whatever_was_asked(history: History) -> None:
    driver = Driver(history)
    number = driver.hand_out()
    ask(history.folder, Stop(number=number))
    driver.turn()
    driver.report(number, 400, done=True)
    assert history.ledger.trials[number].state == "COMPLETED"


def test_a_waiting_trial_is_stopped_at_once_with_what_was_saved(history: History) -> None:
    """What it measured past its checkpoint is nobody's to have again."""
    first = Driver(history)
    number = first.hand_out()
    first.report(number, 100)
    first.referee.checkpointed(RunKey(number), 100, Path("tune/00000-00/checkpoint_000000"))
    first.report(number, 200)
    history.append(SessionOpened(pid=2))
    ask(history.folder, Stop(number=number))
    second = Driver(history)
    second.turn()
    trial = history.ledger.trials[number]
    assert (trial.state, trial.reason, trial.total_kimg) == ("STOPPED", "by request", 100)
    assert second.hand_out() == 1


def test_one_that_tune_has_but_has_not_started_is_not_stopped_behind_its_back(
    history: History,
) -> None:
    driver = Driver(history)
    assert driver.suggest() == 0
    ask(history.folder, Stop(number=0))
    driver.turn()
    assert history.ledger.trials[0].state == "RUNNING"
    driver.start(0)
    assert driver.report(0, 100)


def test_all_runs_of_a_trial_stop_and_an_enqueued_point_has_as_many(tmp_path: Path) -> None:
    spec = study(grid=4, model=2, replication={"seeds": 2})
    with open_history(tmp_path, spec) as history:
        queue, stop = RunQueue("search"), StopRequest()
        referee = Referee(history, stop, queue)
        ask(tmp_path, Enqueue(params=POINT))
        Steering(spec, history, stop, referee.end_stopped).turn()
        trial = history.ledger.trials[0]
        assert [run.seed for run in trial.search_runs] == [trial_seed(0, 0, r) for r in (0, 1)]
        queue.handed.add(RunKey(0))
        referee.started(RunKey(0), Place(node="n", device="cpu", pid=1), pack=1, restored=False)
        ask(tmp_path, Stop(number=0))
        Steering(spec, history, stop, referee.end_stopped).turn()
        assert [run.state for run in trial.search_runs] == ["RUNNING", "STOPPED"]
        assert referee.progressed(RunKey(0), Progress(kimg=50.0, elapsed_seconds=1.0))
        referee.finished(RunKey(0))
    assert (trial.state, trial.reason) == ("STOPPED", "by request")


def test_a_stop_is_kept_over_a_kill(history: History) -> None:
    driver = Driver(history)
    number = driver.hand_out()
    ask(history.folder, Stop(number=number))
    driver.turn()
    history.append(SessionOpened(pid=2))
    Driver(history).turn()
    assert history.ledger.trials[number].state == "STOPPED"


def test_an_extension_moves_the_shares_and_the_clock(tmp_path: Path) -> None:
    budget = {"kimg_per_trial": 400.0, "measure_kimg": 100.0, "trials": 7, "time": 60.0}
    timed = study(grid=4, model=2, budget=budget)
    with open_history(tmp_path, timed) as history:
        stop = StopRequest(60.0)
        ask(tmp_path, Extend(trials=3, seconds=600.0))
        Steering(timed, history, stop, lambda: None).turn()
        assert (history.ledger.extra_trials, history.ledger.extra_seconds) == (3, 600.0)
        assert stop.remaining_seconds is not None
        assert 600 < stop.remaining_seconds <= 660
        proposer, stages = Proposer(timed), []
        while proposed := proposer.propose(history.ledger):
            history.append(proposed)
            stages.append(proposed.stage)
    assert stages == ["manual"] + 4 * ["random_grid"] + 5 * ["model"]


@pytest.mark.parametrize("kind", ["pbt", "pb2"])
def test_a_population_keeps_its_size(tmp_path: Path, kind: str) -> None:
    """A trial more would train to the end beside it: what was decided was decided without it."""
    spec = study(grid=7, model=0, scheduler={"kind": kind, "interval_kimg": 100.0})
    drive(spec, tmp_path, runs=ClosedFormRuns(folder=tmp_path, grows=True))
    with open_history(tmp_path, spec) as history:
        ask(tmp_path, Extend(trials=2, seconds=60.0))
        (refused,) = take_up_extensions(spec, history)
        assert isinstance(refused, RequestRefused)
        for piece in ("a population keeps its size", f"`scheduler.kind: {kind}`", "`--trials 10`"):
            assert piece in refused.why
        assert Proposer(spec).propose(history.ledger) is None


def test_time_that_waits_is_added_before_a_clock_at_its_end_is_set(history: History) -> None:
    point = ask(history.folder, Enqueue(params=POINT))
    (history.folder / REQUESTS_FOLDER / "0.json").write_text("no JSON")
    ask(history.folder, Extend(trials=2))
    assert [told(answer) for answer in take_up_extensions(SPEC, history)] == [
        "extended by 2 trials"
    ]
    assert history.ledger.extra_trials == 2
    assert point in waiting(history.folder)
    assert not history.ledger.trials


def test_nothing_is_taken_up_once_the_study_stops(history: History) -> None:
    driver = Driver(history)
    ask(history.folder, Extend(trials=1))
    driver.stop.ask("interrupted")
    driver.turn()
    assert len(waiting(history.folder)) == 1
    assert history.ledger.extra_trials == 0


@pytest.mark.parametrize(
    ("request_", "says"),
    [
        (Stop(number=9), "there is no trial 9; its trials are 0 to 1"),
        (Stop(number=0), "trial 0 ended COMPLETED already"),
        (Enqueue(params={"learning_rate": 0.1, "d_dropout": 0.3}), "is trial 0 already"),
        (Enqueue(params={"learning_rate": 7.0, "d_dropout": 0.3}), "learning_rate: "),
        (Enqueue(params={"learning_rate": 0.1}), "d_dropout: must be given at every point"),
        (Enqueue(params={**POINT, "momentum": 0.5}), "momentum: must be a parameter of `space`"),
        (Extend(), "--trials +N"),
        (Extend(seconds=5.0), "this study has no limit of time"),
    ],
)
def test_what_cannot_be_done_is_refused_with_the_reason(
    history: History, request_: Request, says: str
) -> None:
    driver = Driver(history)
    driver.report(driver.hand_out(), 400, done=True)
    driver.hand_out()
    with pytest.raises(RequestError) as found:
        answer_to(request_, "any", SPEC, history.ledger)
    assert says in str(found.value)
    # Asked all the same, as before things changed, it is answered by that refusal and removed.
    path = ask(history.folder, request_)
    driver.turn()
    assert answers(history.folder) == [history.ledger.answers.by_request[path.stem]]
    refused = answers(history.folder)[0]
    assert isinstance(refused, RequestRefused)
    assert says in refused.why
    assert waiting(history.folder) == []


@pytest.mark.parametrize("content", [b"", b"no JSON", b'{"request": "dance"}', b'{"number": 3}'])
def test_a_file_that_is_no_request_is_refused(history: History, content: bytes) -> None:
    folder = history.folder / REQUESTS_FOLDER
    folder.mkdir()
    (folder / "1.json").write_bytes(content)
    (folder / "2.tmp").write_bytes(content)  # of a command that was killed
    Driver(history).turn()
    (refused,) = answers(history.folder)
    assert isinstance(refused, RequestRefused)
    assert "must hold one request, but: " in refused.why
    assert [path.name for path in folder.iterdir()] == ["2.tmp"]


def test_a_request_is_read_as_it_was_asked(tmp_path: Path) -> None:
    params = {"a": 1, "b": 0.1 + 0.2, "c": "sgd", "d": True}
    asked: list[Request] = [Enqueue(params=params), Stop(number=3, reason="ü"), Extend(trials=2)]
    paths = [ask(tmp_path, request) for request in asked]
    assert waiting(tmp_path) == paths
    found = [read_request(path) for path in paths]
    assert found == asked
    assert isinstance(found[0], Enqueue)
    assert [type(value) for value in found[0].params.values()] == [int, float, str, bool]


def test_the_ledger_takes_one_answer_a_request() -> None:
    ledger = Ledger([SessionOpened(pid=1), Extended(trials=2, request="a")])
    with pytest.raises(LedgerError, match="request a was answered already"):
        ledger.apply(RequestRefused(request="a", why="late"))
    assert isinstance(ledger.answers, Answers)
    assert ledger.extra_trials == 2


KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from closed_form import open_history, study
from search.requests import REQUESTS_FOLDER
from search.steering import Steering
from search.stop_request import StopRequest

def audit(event, arguments):  # the first removal of a request is not lived to see
    if event == "os.remove" and Path(arguments[0]).parent.name == REQUESTS_FOLDER:
        os.kill(os.getpid(), signal.SIGKILL)

sys.addaudithook(audit)
spec = study(grid=4, model=2)
with open_history(Path(sys.argv[1]), spec) as history:
    Steering(spec, history, StopRequest(), lambda: None).turn()
"""


def test_a_driver_killed_between_answer_and_removal_answers_once(tmp_path: Path) -> None:
    open_history(tmp_path, SPEC).close()
    asked = [ask(tmp_path, Enqueue(params=POINT)), ask(tmp_path, Extend(trials=2))]
    words = [sys.executable, "-c", KILLED, str(tmp_path), str(Path(__file__).parent)]
    for answered in (1, 2):
        assert subprocess.run(words, check=False).returncode == -signal.SIGKILL
        assert len(answers(tmp_path)) == 1  # the second driver falls over the same file
        assert waiting(tmp_path) == asked, answered
    with open_history(tmp_path, SPEC) as history:
        Driver(history).turn()
    assert [answer.request for answer in answers(tmp_path)] == [path.stem for path in asked]
    assert waiting(tmp_path) == []
    ledger = Ledger(Journal.read(tmp_path / JOURNAL_NAME))
    assert list(ledger.trials) == [0]
    assert ledger.extra_trials == 2


def test_a_driver_killed_while_it_writes_the_answer_answers_once(tmp_path: Path) -> None:
    open_history(tmp_path, SPEC).close()
    path, journal = ask(tmp_path, Enqueue(params=POINT)), tmp_path / JOURNAL_NAME
    content, before = path.read_bytes(), journal.read_bytes()
    with open_history(tmp_path, SPEC) as history:
        opened = journal.read_bytes()
        Driver(history).turn()
    line = journal.read_bytes()[len(opened) :]
    assert line.count(b"\n") == 1
    for torn in range(0, len(line) + 1, 40):
        journal.write_bytes(before + line[:torn])
        path.write_bytes(content)
        with open_history(tmp_path, SPEC) as history:
            Driver(history).turn()
        assert [answer.request for answer in answers(tmp_path)] == [path.stem]
        assert waiting(tmp_path) == []


points = st.integers(0, 5).map(lambda i: Enqueue(params={**POINT, "d_dropout": i / 10}))
requests_ = st.one_of(
    points,
    st.integers(0, 4).map(lambda number: Stop(number=number)),
    st.integers(1, 3).map(lambda trials: Extend(trials=trials)),
)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(asked=st.lists(st.tuples(requests_, st.booleans()), max_size=8))
def test_every_request_is_carried_out_once_whatever_is_killed(
    tmp_path_factory: pytest.TempPathFactory, asked: list[tuple[Request, bool]]
) -> None:
    """Its file may outlive the answer any number of times, and drivers may follow each other."""
    folder = tmp_path_factory.mktemp("any")
    open_history(folder, SPEC).close()
    paths: list[Path] = []
    left: dict[Path, bytes] = {}
    for request, killed in asked:
        paths.append(ask(folder, request))
        left |= {path: path.read_bytes() for path in waiting(folder)}
        with open_history(folder, SPEC) as history:
            Driver(history).turn()
        if killed:
            for path, content in left.items():
                path.write_bytes(content)
    with open_history(folder, SPEC) as history:
        Driver(history).turn()
    assert waiting(folder) == []
    assert sorted(a.request or "" for a in answers(folder)) == sorted(p.stem for p in paths)
    events = Journal.read(folder / JOURNAL_NAME)
    cells = [event.cell for event in events if isinstance(event, Proposed)]
    assert len(cells) == len(set(cells))
