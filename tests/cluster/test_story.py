"""The whole story of a cluster: up, a search that everything happens to, its end, down."""

import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from lab import Lab, missing
from tiny_study import content, write_npz
from user import HEAD, LAPTOP, WORKERS, User, wait_until

from search.parquet import RecordError
from search.recorded_study import RecordedStudy
from search.trial import TrialState

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1500)]

METRIC = "validation_log_likelihood"
SEARCH = "python -m search.run spaces/tiny.yaml"
TRIALS = 7
KIMG = 24.0  # in 16 measurements: some ten seconds of training


@pytest.fixture
def user(tmp_path: Path) -> Iterator[User]:
    if lacks := missing():
        pytest.skip(f"a lab of hosts needs {', '.join(lacks)}")
    with Lab(tmp_path, [HEAD, *WORKERS, LAPTOP]) as lab:
        yield User(lab)


def test_a_study_survives_what_a_cluster_does_to_it(user: User) -> None:
    lab = user.lab
    user.on_laptop("ray get-auth-token --generate >/dev/null && ray up -y cluster.yaml")
    for name in WORKERS:
        wait_until(f"Ray runs on {name}", partial(user.has_ray, name), 240)
    prepare_study(user)
    folder = lab.shared / "runs" / "tiny"

    driver = user.begin(HEAD, SEARCH, "first.log")
    wait_until("trials on both workers", lambda: nodes_of(folder) == set(WORKERS), 240)
    lab.destroy("worker1")
    before = measured(folder)
    wait_until("the others go on", lambda: measured(folder) > before + 5, 180)

    user.on(HEAD, "python -m search.services down")
    before = measured(folder)
    wait_until("training goes on without MLflow", lambda: measured(folder) > before + 5, 180)
    user.on(HEAD, "python -m search.services up")

    user.on(HEAD, f"kill -KILL {driver_of(user)}")
    assert driver.wait(60) != 0
    assert RecordedStudy.read(folder).closed is None  # it had no time to say anything
    user.on(HEAD, f"{SEARCH} --resume --json 2>resume.log >summary.json", seconds=300)

    check_cells(folder)
    check_tracked(user, folder)
    user.on_laptop("ray down -y cluster.yaml")
    for name in lab.hosts:
        wait_until(f"nothing runs on {name}", partial(idle, user, name), 180)


def prepare_study(user: User) -> None:
    """A user's own data and space file."""
    write_npz(user.lab.shared / "tiny.npz")
    space = content(
        Path("/shared/tiny.npz"),
        stages=[{"kind": "model", "sampler": "random", "trials": TRIALS}],
        scheduler={"kind": "none"},
        budget={"kimg_per_trial": KIMG, "measure_kimg": KIMG / 16, "trials": TRIALS},
    )
    user.write(HEAD, "cgan-search/spaces/tiny.yaml", space)


def trials_of(folder: Path) -> Mapping[int, TrialState]:
    """The trials so far; none before the journal is there."""
    with suppress(RecordError):
        return RecordedStudy.read(folder).ledger.trials
    return {}


def nodes_of(folder: Path) -> set[str | None]:
    """The hosts on which something was measured."""
    return {t.first.node for t in trials_of(folder).values() if t.first.measurements}


def measured(folder: Path) -> int:
    return sum(len(trial.first.measurements) for trial in trials_of(folder).values())


def driver_of(user: User) -> int:
    """PID of the search on the head."""
    found = [p for p, args in user.lab.hosts[HEAD].processes() if args.startswith(SEARCH)]
    assert len(found) == 1
    return found[0]


def check_cells(folder: Path) -> None:
    """Every cell exactly once, each with the whole of its training."""
    ledger = RecordedStudy.read(folder).ledger
    trials = list(ledger.trials.values())
    assert [trial.number for trial in trials] == list(range(TRIALS))
    assert len(ledger.cells) == TRIALS
    assert {trial.state for trial in trials} == {"COMPLETED"}
    for trial in trials:
        kimg = [m.kimg for m in trial.first.measurements]
        assert kimg == sorted(set(kimg))
        assert kimg[-1] == KIMG
    assert len(ledger.sessions) == 2
    # What ran on the destroyed host was tried again, which was no fault of its own.
    (lost,) = (run.losses for run in ledger.runs if run.retries)
    assert dict(lost) == {"preempted": 1}


def check_tracked(user: User, folder: Path) -> None:
    """MLflow has one run a trial, with the state and all measurements of the record."""
    script = "~/cgan-search/tests/cluster/tracked_runs.py"
    tracked: dict[str, Any] = json.loads(user.on(HEAD, f"python {script} tiny"))
    recorded = {
        str(trial.number): {
            "status": "FINISHED",
            "state": trial.state,
            "node": trial.first.node,
            "objective": {str(m.kimg): m.metrics[METRIC] for m in trial.first.measurements},
        }
        for trial in trials_of(folder).values()
    }
    assert tracked == recorded


def idle(user: User, name: str) -> bool:
    """Whether nothing but the host's own sshd runs there."""
    return [a for _, a in user.lab.hosts[name].processes() if not a.startswith("sshd: /usr")] == []
