import json
import time
from pathlib import Path
from typing import Any

import pytest

from search.autoscaling import cpus_of_one_to_come, nodes_to_come, promised_workers


def written(folder: Path, **changes: Any) -> Path:
    """What `ray up` leaves on a head: small workers and large ones."""
    config = {
        "max_workers": 5,
        "head_node_type": "head",
        "available_node_types": {
            "head": {"resources": {"CPU": 2}, "max_workers": 0},
            "small": {"resources": {"CPU": 4, "GPU": 1}, "max_workers": 10},
            "large": {"resources": {"CPU": 32}, "max_workers": 2},
        },
    }
    path = folder / "ray_bootstrap_config.yaml"
    path.write_text(json.dumps(config | changes))
    return path


def test_each_resource_is_what_the_nodes_with_most_of_it_have(tmp_path: Path) -> None:
    assert nodes_to_come(written(tmp_path)) == {"CPU": 2 * 32 + 3 * 4, "GPU": 5}


def test_machines_that_join_by_themselves_are_not_counted(tmp_path: Path) -> None:
    kind = {"resources": {}, "max_workers": 2}
    path = written(tmp_path, available_node_types={"local": kind}, head_node_type="local")
    assert nodes_to_come(path) == {}


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"max_workers": "many"}', "cluster_name: x"])
def test_a_file_of_another_kind_promises_nothing(tmp_path: Path, text: str) -> None:
    path = tmp_path / "ray_bootstrap_config.yaml"
    path.write_text(text)
    assert nodes_to_come(path) == {}
    assert nodes_to_come(tmp_path / "none") == {}


def test_a_head_can_be_told_by_its_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CGAN_NODES_TO_COME", '{"CPU": 32, "GPU": 4}')
    assert nodes_to_come(written(tmp_path)) == {"CPU": 32, "GPU": 4}


def test_workers_that_join_by_themselves_are_promised(tmp_path: Path) -> None:
    kind = {"resources": {}, "min_workers": 2, "max_workers": 3}
    path = written(tmp_path, available_node_types={"local": kind}, head_node_type="local")
    promise = promised_workers(path)
    assert promise.workers == 2
    assert abs(promise.since - time.time()) < 60
    assert promised_workers(written(tmp_path)).workers == 0
    assert promised_workers(tmp_path / "none").workers == 0


def test_the_smallest_worker_to_come_is_one_that_may_come(tmp_path: Path) -> None:
    assert cpus_of_one_to_come(written(tmp_path)) == 4
    assert cpus_of_one_to_come(tmp_path / "none") == 0
    local = {"local": {"resources": {}, "max_workers": 2}}
    path = written(tmp_path, available_node_types=local, head_node_type="local")
    assert cpus_of_one_to_come(path) == 0
