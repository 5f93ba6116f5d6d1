"""What a study is asked for by a job is done once, however many jobs it takes."""

import json
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
from tiny_study import write_space

from search.code_package import ORDER_NAME
from search.events import SessionOpened, StudyOpened
from search.fetch import job_prefix
from search.history import History
from search.job_address import JobAddress, SubmitError
from search.job_server import Job
from search.parcel import Parcel
from search.requests import waiting
from search.run_options import parser
from search.steering import take_up_extensions
from search.study import StudySpec, load_spec
from search.study_file import STUDY_NAME
from search.submission_mark import MARK_NAME
from search.submit import Submission
from search.submitted import extend_once


def options(folder: Path, words: str = "--resume --trials +2 --time-budget +1h") -> Namespace:
    found = parser().parse_args([str(folder / "tiny.yaml"), *words.split()])
    found.output = folder / "out"
    return found


@pytest.fixture
def spec(tmp_path: Path) -> StudySpec:
    budget = {"kimg_per_trial": 0.8, "measure_kimg": 0.2, "trials": 5, "time": "1h"}
    return load_spec(write_space(tmp_path, budget=budget))


@pytest.fixture
def history(tmp_path: Path, spec: StudySpec) -> History:
    """A study that has begun in `out`."""
    begun = History.create(tmp_path / "out")
    begun.append(
        StudyOpened(
            study="tiny",
            study_id="1",
            spec=spec.model_dump(mode="json"),
            spec_digest="",
            dataset_digest="",
            protocol_digest="",
        )
    )
    begun.append(SessionOpened(pid=1))
    (tmp_path / "out" / STUDY_NAME).write_text("{}")
    return begun


def test_what_extends_a_study_is_added_once_a_request(
    tmp_path: Path, spec: StudySpec, history: History
) -> None:
    for request, trials in (("cgan.out.a", 2), ("cgan.out.a", 2), ("cgan.out.b", 4)):
        for _ in range(2):  # a job that fails before its driver has taken it up, and one after
            given = options(tmp_path)
            extend_once(given, spec, request)
            assert (given.trials, given.time_budget) == (None, None)
        take_up_extensions(spec, history)
        assert not waiting(tmp_path / "out")
        assert history.ledger.extra_trials == trials
        assert history.ledger.extra_seconds == trials / 2 * 3600


def test_what_extends_nothing_goes_its_usual_way(tmp_path: Path, spec: StudySpec) -> None:
    for words in ("--resume --trials +2", "--trials 9"):
        given = options(tmp_path, words)
        extend_once(given, spec, "a")
        assert given.trials == words.split()[-1]
    assert not (tmp_path / "out").exists()


class _Server:
    """Ends every job as it is told to, and keeps the orders."""

    url = "http://127.0.0.1:1"

    def __init__(self) -> None:
        self.orders: list[dict[str, Any]] = []
        self.status = "FAILED"

    def jobs(self) -> list[Job]:
        return []  # as one that was started anew

    def submit(self, code: Path, job: str, metadata: dict[str, str]) -> None:
        if self.status == "REFUSED":
            raise SubmitError("refuses the study")
        self.orders.append(json.loads((code / ORDER_NAME).read_text()))


def test_the_same_order_is_the_same_request_until_a_job_has_done_it(
    tmp_path: Path, spec: StudySpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, out = _Server(), tmp_path / "out"

    def ended(_: object, job: str, *rest: object) -> Job:
        code = 0 if server.status == "SUCCEEDED" else 1
        return Job(job, server.status, "", "node", code, {}, 0)

    def fetched(*_: object) -> Parcel:
        (out / "summary.json").write_text("{}")
        return Parcel(1, ())

    monkeypatch.setattr("search.submit.JobServer", lambda address: server)
    monkeypatch.setattr("search.submit.follow", ended)
    monkeypatch.setattr("search.submit.fetch", fetched)
    monkeypatch.setattr("search.submit.describe_summary", lambda *_: "")

    def submit(words: str, status: str) -> None:
        server.status = status
        given = options(tmp_path, words)
        address = JobAddress(server.url, asks_for_token=True)
        Submission(address, out, spec, given, words.split(), start="", resume="").run()

    with pytest.raises(SubmitError, match="refuses the study"):
        submit("--resume --trials +2", "REFUSED")
    assert not out.exists()
    for words, status in (
        ("--resume --trials +2", "FAILED"),
        ("--resume --trials +2", "STOPPED"),
        ("--resume --trials +2", "SUCCEEDED"),
        ("--resume --trials +2", "FAILED"),
        ("--resume --trials +3", "FAILED"),
    ):
        submit(words, status)
    first, second, third, fourth, fifth = (order["request"] for order in server.orders)
    assert first == second == third
    assert len({third, fourth, fifth}) == 3
    assert json.loads((out / MARK_NAME).read_text())["request"] == fifth


def test_jobs_of_two_folders_are_told_apart() -> None:
    names = ("a.b", "a_b", "a b", "a", "a_b.c")
    prefixes = [job_prefix(name) for name in names]
    for one in prefixes:
        assert [other for other in prefixes if other.startswith(one)] == [one]
