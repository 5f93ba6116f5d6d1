"""A cluster whose head runs no trials and whose workers come when they are asked for."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
from ray.cluster_utils import Cluster
from tiny_study import write_space

from search.cluster import ClusterError
from search.driver import run_study
from search.recorded_study import RecordedStudy
from search.room import TrialResources, fit_resources, room_for_trials

pytestmark = pytest.mark.ray

RAY = f"{sys.executable} -m ray.scripts.scripts"


@pytest.fixture
def head_alone(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    ray.init(cluster.address, logging_level="ERROR", log_to_driver=False)
    # As if `ray start` had begun it here; its own note lies outside of this test's folders.
    monkeypatch.setattr("search.cluster.read_ray_address", lambda: cluster.address)
    yield cluster
    ray.shutdown()
    cluster.shutdown()


def test_what_was_promised_counts_and_a_study_begins_before_it_is_there(
    head_alone: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ClusterError, match="no machine of the cluster takes trials"):
        fit_resources(TrialResources())
    monkeypatch.setenv("CGAN_NODES_TO_COME", '{"CPU": 2, "GPU": 4}')
    wanted = TrialResources(cpus=1, gpus=0.25)
    assert fit_resources(wanted) == (wanted, None)
    assert room_for_trials(wanted) == 2

    monkeypatch.setenv("CGAN_NODES_TO_COME", '{"CPU": 2}')
    # In a process: Ray begins nodes in a main thread alone, and the study has this one.
    start = f"sleep 5; exec {RAY} start --address={head_alone.address} --num-cpus=1 --block"
    late = subprocess.Popen(["sh", "-c", start], stdout=subprocess.DEVNULL)
    try:
        space = write_space(tmp_path)
        run_study(space, tmp_path / "study", progress=False, without_token=True)
    finally:
        late.terminate()
        late.wait(30)
    trials = RecordedStudy.read(tmp_path / "study").ledger.trials.values()
    assert len(trials) == 5
    assert all(trial.state in ("COMPLETED", "STOPPED") for trial in trials)


def test_machines_that_join_and_leave_change_the_room(head_alone: Cluster) -> None:
    assert room_for_trials(TrialResources()) == 1  # never none: a study would not begin
    node = head_alone.add_node(num_cpus=3)
    head_alone.wait_for_nodes()
    assert room_for_trials(TrialResources()) == 3
    head_alone.remove_node(node)
    assert room_for_trials(TrialResources()) == 1
