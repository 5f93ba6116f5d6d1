"""The cluster files, checked offline by Ray's own code and against one another."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.autoscaler._private.kuberay.autoscaling_config import (
    _derive_autoscaling_config_from_ray_cr,
)
from ray.autoscaler._private.util import prepare_config, validate_config

from search.autoscaling import cpus_of_one_to_come, nodes_to_come, promised_workers

ROOT = Path(__file__).resolve().parents[1]
FILES = ("ray_cluster.yaml", "cluster/gcp.yaml", "cluster/on_premise.yaml")
CLOUDS = FILES[:2]
BEGIN, END = "# ==== EDIT HERE =", "# ==== END OF WHAT TO EDIT ="


def read(name: str) -> dict[str, Any]:
    spec: dict[str, Any] = yaml.safe_load((ROOT / name).read_text())
    return spec


def manifests() -> dict[str, dict[str, Any]]:
    documents = yaml.safe_load_all((ROOT / "cluster/kuberay.yaml").read_text())
    return {f"{one['kind']}/{one['metadata']['name']}": one for one in documents}


@pytest.mark.parametrize("name", FILES)
def test_ray_takes_the_file(name: str) -> None:
    prepared = prepare_config(read(name))
    validate_config(prepared)
    assert prepared["max_workers"] > 0


@pytest.mark.parametrize("name", FILES[1:])
def test_but_for_the_marked_part_all_say_the_same(name: str) -> None:
    first = (ROOT / FILES[0]).read_text()
    other = (ROOT / name).read_text()
    for text in (first, other):
        assert text.count(BEGIN) == text.count(END) == 1
    assert first.partition(END)[2] == other.partition(END)[2]


@pytest.mark.parametrize("name", FILES)
def test_only_those_with_the_token_are_heard_and_only_loopback_is_listened_to(name: str) -> None:
    spec = read(name)
    assert spec["file_mounts"]["~/.ray/auth_token"] == "~/.ray/auth_token"
    for key in ("head_start_ray_commands", "worker_start_ray_commands"):
        (start,) = (command for command in spec[key] if " ray start" in _bare(command))
        assert "RAY_AUTH_MODE=token" in start
        assert "0.0.0.0" not in start
    (head,) = (c for c in spec["head_start_ray_commands"] if "--head" in c)
    assert "--dashboard-host=127.0.0.1" in head
    assert "RAY_enable_autoscaler_v2=0" in head
    assert "--num-cpus=0 --num-gpus=0" in head  # it takes no trials
    services = [c for c in spec["head_start_ray_commands"] if "search.services up" in c]
    assert len(services) == 1
    assert "--host" not in services[0]  # its default is the loopback


@pytest.mark.parametrize("name", FILES)
def test_ray_and_python_are_named_by_their_whole_path(name: str) -> None:
    spec = read(name)
    for key in ("setup_commands", "head_start_ray_commands", "worker_start_ray_commands"):
        for command in spec[key]:
            for word in command.replace("'", " ").split():
                assert word not in ("ray", "python"), command


@pytest.mark.parametrize("name", CLOUDS)
def test_clouds_start_from_nothing_with_spot_workers_that_the_search_knows_of(
    name: str, tmp_path: Path
) -> None:
    spec = read(name)
    head, worker = (spec["available_node_types"][kind] for kind in ("head", "worker"))
    assert head["resources"] == {"CPU": 0}
    assert worker["min_workers"] == 0
    assert "spot" in json.dumps(worker["node_config"]).lower()
    assert spec["idle_timeout_minutes"] > 0
    left = tmp_path / "ray_bootstrap_config.yaml"
    left.write_text(json.dumps(prepare_config(spec)))
    count = spec["max_workers"]
    assert nodes_to_come(left) == {k: count * v for k, v in worker["resources"].items()}
    assert cpus_of_one_to_come(left) == worker["resources"]["CPU"]
    assert promised_workers(left).workers == 0


def test_on_premise_every_machine_of_the_list_is_waited_for(tmp_path: Path) -> None:
    spec = read("cluster/on_premise.yaml")
    left = tmp_path / "ray_bootstrap_config.yaml"
    left.write_text(json.dumps(prepare_config(spec)))
    assert promised_workers(left).workers == len(spec["provider"]["worker_ips"]) > 0


@pytest.mark.parametrize("name", CLOUDS)
def test_packages_are_waited_for_while_a_fresh_machine_upgrades_itself(name: str) -> None:
    spec = read(name)
    commands = [*spec["initialization_commands"], *spec["head_setup_commands"]]
    installs = [command for command in commands if "apt-get" in command and "install" in command]
    assert installs
    assert all("DPkg::Lock::Timeout" in command for command in installs)
    assert "apt-get update" in commands[0]


def test_an_environment_that_was_cut_short_is_made_anew(tmp_path: Path) -> None:
    (make,) = (line for line in read(FILES[0])["setup_commands"] if "-m venv" in line)
    tools, made = tmp_path / "tools", tmp_path / "cgan-venv" / "bin" / "python"
    tools.mkdir()
    made.parent.mkdir(parents=True)
    python = tools / "python3"  # says how often it was called, and makes what answers
    python.write_text(
        f"#!/bin/sh\necho made >> {tmp_path}/calls\nmkdir -p {made.parent}\n"
        f"echo '#!/bin/sh' > {made}\nchmod +x {made}\n"
    )
    python.chmod(0o755)
    made.write_text("#!/bin/sh\nexit 1\n")
    made.chmod(0o755)
    environment = {"HOME": str(tmp_path), "PATH": f"{tools}:/usr/bin:/bin"}
    for _ in range(2):
        subprocess.run(["bash", "-c", make], env=environment, check=True)
    assert (tmp_path / "calls").read_text() == "made\n"


def test_pinned_versions_are_installed_on_a_fresh_node() -> None:
    commands = " ".join(read(FILES[0])["setup_commands"])
    assert "-c ~/cgan-search/constraints.txt" in commands
    constraints = (ROOT / "constraints.txt").read_text().splitlines()
    pinned = {line.partition("==")[0].lower() for line in constraints}
    assert {"ray", "torch", "mlflow", "psycopg", "aiohttp-cors", "virtualenv"} <= pinned


def test_ray_reads_an_autoscaling_configuration_from_the_kubernetes_manifest() -> None:
    cluster = manifests()["RayCluster/cgan"]
    config = _derive_autoscaling_config_from_ray_cr(cluster)  # validates it too
    kinds = config["available_node_types"]
    assert kinds["headgroup"]["resources"]["CPU"] == 0
    assert kinds["worker"]["min_workers"] == 0
    assert config["idle_timeout_minutes"] == read(FILES[0])["idle_timeout_minutes"]
    pinned = (ROOT / "constraints.txt").read_text().splitlines()
    assert f"ray=={cluster['spec']['rayVersion']}" in pinned


def test_the_kubernetes_head_is_told_what_its_workers_may_add_up_to(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cluster = manifests()["RayCluster/cgan"]
    worker = _derive_autoscaling_config_from_ray_cr(cluster)["available_node_types"]["worker"]
    head = cluster["spec"]["headGroupSpec"]["template"]["spec"]["containers"][0]
    (told,) = (one["value"] for one in head["env"] if one["name"] == "CGAN_NODES_TO_COME")
    monkeypatch.setenv("CGAN_NODES_TO_COME", told)
    amounts = {name: worker["resources"][name] for name in ("CPU", "GPU")}
    assert nodes_to_come() == {k: worker["max_workers"] * v for k, v in amounts.items()}


def test_pods_share_one_volume_and_the_services_database_has_its_own() -> None:
    found = manifests()
    shared = found["PersistentVolumeClaim/cgan-shared"]["spec"]
    assert shared["accessModes"] == ["ReadWriteMany"]
    spec = found["RayCluster/cgan"]["spec"]
    assert spec["authOptions"] == {"mode": "token", "secretName": "cgan-token"}
    pods = [spec["headGroupSpec"], *spec["workerGroupSpecs"]]
    for pod in (one["template"]["spec"] for one in pods):
        claims = {v["name"]: v["persistentVolumeClaim"]["claimName"] for v in pod["volumes"]}
        assert all(f"PersistentVolumeClaim/{claim}" in found for claim in claims.values())
        for container in pod["containers"]:
            mounts = {one["name"]: one["mountPath"] for one in container["volumeMounts"]}
            assert mounts["shared"] == "/shared"
            assert set(mounts) <= set(claims)
            assert container["resources"]["limits"] == container["resources"]["requests"]
    ray, services = pods[0]["template"]["spec"]["containers"]
    assert "--storage /shared" in services["command"][-1]
    config = {"name": "XDG_CONFIG_HOME", "value": "/services/config"}
    assert config in ray["env"]
    assert config in services["env"]


def _bare(command: str) -> str:
    return command.replace("~/cgan-venv/bin/", " ")
