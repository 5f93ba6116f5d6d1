"""Where the studies of the fault campaign are tracked, and what they have there."""

import os
import signal
import socket
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from shutil import rmtree
from typing import Any

from benchmarks.fault_checks import TrackedRun
from benchmarks.orbits import METRIC
from search.mlflow_client import connect
from search.mlflow_runs import KEY_TAG
from search.service_pair import down, revive, up
from search.services_state import Settings, StateFolder
from search.tracking_place import find_place


class Services:
    """PostgreSQL and an MLflow server on it, of the campaign's own."""

    def __init__(self, folder: Path) -> None:
        self.state = StateFolder(folder / "state")

    def kill(self, which: str) -> None:
        """Kills `mlflow` or `postgres`, with all its processes where it is the former."""
        state = self.state.read()
        process = getattr(state, which)
        # PostgreSQL's others notice that their parent is gone, as after a crash.
        pids = process.members() if which == "mlflow" else [process.pid]
        for pid in pids:
            os.kill(pid, signal.SIGKILL)

    def revive(self) -> None:
        """Starts what does not run; returns when it answers."""
        revive(self.state, lambda line: None)


@contextmanager
def services() -> Iterator[Services]:
    """Starts both for whoever asks for the default tracking URI, and stops them at the end."""
    # Not below the campaign's own folder: PostgreSQL's user must be able to enter.
    folder = Path(tempfile.mkdtemp(prefix="cgan-faults-services-"))
    folder.chmod(0o711)
    os.environ["XDG_CONFIG_HOME"] = str(folder / "config")
    pair = Services(folder)
    try:
        up(pair.state, Settings(storage=str(folder / "storage"), port=_free_port()), _silent)
        yield pair
    finally:
        try:
            down(pair.state, _silent)
        finally:
            rmtree(folder)


def tracked_runs(uri: str | None, study_id: str) -> list[TrackedRun]:
    """Reads what MLflow has of a study, its parent run included."""
    client = connect(find_place(uri))
    experiment = client.get_experiment_by_name("faults")
    found, page = [], None
    while True:
        where = f"tags.{KEY_TAG} LIKE '{study_id}%'"
        runs = client.search_runs([experiment.experiment_id], where, page_token=page)
        found += [_read(client, run) for run in runs]
        page = runs.token
        if not page:
            return found


def _read(client: Any, run: Any) -> TrackedRun:
    course: defaultdict[tuple[int, str], list[float]] = defaultdict(list)
    for metric in (METRIC, "orbit"):
        for point in client.get_metric_history(run.info.run_id, metric):
            course[point.step, metric].append(point.value)
    tags = dict(run.data.tags)
    return TrackedRun(tags[KEY_TAG], run.info.status, tags, dict(run.data.params), dict(course))


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _silent(line: str) -> None:
    """Says nothing."""
