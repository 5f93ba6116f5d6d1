from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
from ray.cluster_utils import Cluster

from search.cluster import ClusterError
from search.shared_storage import check_seen, check_shared

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def two_nodes() -> Iterator[Cluster]:
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    cluster.add_node(num_cpus=1, node_name="second")
    ray.init(cluster.address, logging_level="ERROR", log_to_driver=False)
    yield cluster
    ray.shutdown()
    cluster.shutdown()


@pytest.mark.usefixtures("two_nodes")
def test_a_folder_that_all_nodes_see_is_taken_and_left_clean(tmp_path: Path) -> None:
    check_shared(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("two_nodes")
def test_a_folder_that_is_another_one_elsewhere_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Relative to whoever reads it: the workers of the second node are not where we go to.
    monkeypatch.chdir(tmp_path)
    here = Path("/proc/self/cwd")
    with pytest.raises(ClusterError, match=r"second: FileNotFoundError.*Shared storage"):
        check_shared(here)
    assert list(tmp_path.iterdir()) == []


def test_a_worker_looks_for_the_study(tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match="no study there"):
        check_seen(tmp_path)
    (tmp_path / "journal.jsonl").touch()
    check_seen(tmp_path)
