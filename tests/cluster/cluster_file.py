"""The on-premise cluster file as the lab can run it: what needs a network is replaced."""

import sys
import sysconfig
from pathlib import Path
from typing import Any

import yaml
from lab import REPOSITORY

# The lab has two cores at most and shares one memory.
SIZE = "--num-cpus=1 --object-store-memory=100000000"


def lab_cluster(head: str, workers: list[str]) -> dict[str, Any]:
    """What `cluster/on_premise.yaml` holds, for the lab's hosts.

    Args:
        head: Address of the head.
        workers: Addresses of the others.
    """
    spec: dict[str, Any] = yaml.safe_load((REPOSITORY / "cluster/on_premise.yaml").read_text())
    spec["provider"] |= {"head_ip": head, "worker_ips": workers}
    spec["auth"] = {"ssh_user": "root", "ssh_private_key": "/lab/key"}
    spec["setup_commands"] = [_offline(command) for command in spec["setup_commands"]]
    for key in ("head_start_ray_commands", "worker_start_ray_commands"):
        spec[key] = [command.replace("ray start", f"ray start {SIZE}") for command in spec[key]]
    return spec


def _offline(command: str) -> str:
    """No index can be reached from the lab, so nodes use the packages of these tests."""
    if "-m venv" in command:
        return f"{sys.executable} -m venv --without-pip ~/cgan-venv"
    if "pip install" in command:
        packages = sysconfig.get_path("purelib")
        ray = Path(sys.executable).with_name("ray")
        site = "$(echo ~/cgan-venv/lib/python3*/site-packages)"
        return (
            f"printf '%s\\n' ~/cgan-search {packages} >{site}/lab.pth && "
            f"sed '1s|.*|#!'$HOME/cgan-venv/bin/python'|' {ray} >~/cgan-venv/bin/ray && "
            "chmod +x ~/cgan-venv/bin/ray"
        )
    return command
