"""A real Ray of one node in a process of its own, with its own folder, token and port."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

TOKEN = "a" * 32
_HEAD = """
import sys
import ray
ray.init(
    "local", num_cpus=1, include_dashboard=False, log_to_driver=False, logging_level="ERROR",
    _temp_dir=sys.argv[1],
)
print("AT", ray.get_runtime_context().gcs_address, flush=True)
sys.stdin.read()  # until whoever began it is gone
ray.shutdown()
"""
# Joins a cluster as a study does, and runs a task there.
JOIN = """
import sys
import ray
from search.cluster import ClusterError, ray_running
try:
    with ray_running(sys.argv[1], without_token="--without-token" in sys.argv):
        print("RAN", ray.get(ray.remote(lambda: 6 * 7).remote()))
except ClusterError as error:
    print("REFUSED", error)
"""


def environment(**own: str) -> dict[str, str]:
    """This process's environment with Ray's security as given, and none of its own."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("RAY_AUTH_", "RAY_TLS_", "RAY_USE_TLS", "RAY_ADDRESS"))
    }
    return {**kept, **own}


@contextmanager
def ray_head(**own: str) -> Iterator[str]:
    """Yields the address of a Ray that was begun under these variables."""
    folder = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))  # a socket's path must be short
    head = subprocess.Popen(
        [sys.executable, "-c", _HEAD, str(folder)],
        env=environment(**own),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert head.stdout is not None
        address = next((line.split()[1] for line in head.stdout if line.startswith("AT ")), None)
        assert address, "no Ray"
        yield address
    finally:
        head.communicate(timeout=60)
        shutil.rmtree(folder, ignore_errors=True)


def joined(address: str, *words: str, variables: Mapping[str, str]) -> str:
    """What a study's driver is told at an address: RAN 42, or REFUSED and why."""
    done = subprocess.run(
        [sys.executable, "-c", JOIN, address, *words],
        env=environment(**variables),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()
