"""The lab itself: hosts that see each other and nothing else, and that can be destroyed."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from lab import Lab, missing

pytestmark = pytest.mark.cluster


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    if lacks := missing():
        pytest.skip(f"a lab of hosts needs {', '.join(lacks)}")
    with Lab(tmp_path, ["a", "b"]) as lab:
        lab.start("a")
        lab.start("b")
        yield lab


def output(words: list[str]) -> str:
    return subprocess.run(
        words, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True
    ).stdout.strip()


def fails(words: list[str]) -> bool:
    return subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True).returncode != 0


def test_hosts_have_names_and_files_of_their_own_and_one_folder_together(lab: Lab) -> None:
    assert output(lab.ssh("a", "b", "hostname")) == "b"
    mark = f"lab-{os.getpid()}"
    output(lab.ssh("a", "b", f"touch /tmp/{mark} ~/{mark} /etc/{mark} /dev/shm/{mark}"))
    for folder in ("/tmp", "/root", "/etc", "/dev/shm"):
        assert fails(lab.inside("a", "test", "-e", f"{folder}/{mark}"))
        assert not Path(folder, mark).exists()
    output(lab.ssh("a", "b", f"touch /shared/{mark}"))
    assert not fails(lab.inside("a", "test", "-e", f"/shared/{mark}"))
    assert (lab.shared / mark).exists()


def test_nothing_outside_can_be_reached_or_seen(lab: Lab) -> None:
    assert output(lab.inside("a", "ip", "-o", "route")).startswith("10.77.0.0/24 dev eth0")
    assert output(lab.inside("a", "ip", "-o", "route")).count("\n") == 0
    assert "10.77.0." not in output(["ip", "-o", "address"])
    assert [args for _, args in lab.hosts["a"].processes() if "sshd" not in args] == []
    assert fails(lab.inside("a", "kill", "-0", str(os.getpid())))


def test_the_repository_and_the_virtual_environment_can_be_read_alone(lab: Lab) -> None:
    here = str(Path(__file__).resolve())
    assert not fails(lab.inside("a", "test", "-r", here))
    assert fails(lab.inside("a", "touch", here))


def test_a_destroyed_host_is_gone_with_all_its_processes_and_comes_back_empty(lab: Lab) -> None:
    output(lab.ssh("a", "b", "touch /tmp/kept; setsid -f sleep 1000 >/dev/null 2>&1 </dev/null"))
    before = lab.hosts["b"]
    assert any("sleep 1000" in args for _, args in before.processes())
    lab.destroy("b")
    assert not Path(f"/proc/{before.init}").exists()
    assert fails(lab.inside("a", "ssh", "-o", "ConnectTimeout=1", "b", "true"))
    lab.start("b")
    assert fails(lab.ssh("a", "b", "test -e /tmp/kept"))
    assert not any("sleep 1000" in args for _, args in lab.hosts["b"].processes())


def test_closing_ends_every_host_and_the_network(tmp_path: Path) -> None:
    if lacks := missing():
        pytest.skip(f"a lab of hosts needs {', '.join(lacks)}")
    lab = Lab(tmp_path, ["a"])
    host = lab.start("a")
    lab.close()
    assert not Path(f"/proc/{host.init}").exists()
    assert host.holder.poll() is not None
    left = [p for p in Path("/proc").glob("[0-9]*/cmdline") if _mentions(p, str(tmp_path))]
    assert left == []


def _mentions(cmdline: Path, text: str) -> bool:
    try:
        return text.encode() in cmdline.read_bytes()
    except OSError:  # it has ended meanwhile
        return False
