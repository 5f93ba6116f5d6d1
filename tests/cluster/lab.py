"""Hosts on one machine: each has namespaces, a file system and an sshd of its own."""

import itertools
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

REPOSITORY = Path(__file__).resolve().parents[2]
INIT = Path(__file__).with_name("host_init.sh")
PROGRAMS = ("unshare", "nsenter", "setpriv", "pivot_root", "ip", "ssh", "ssh-keygen", "rsync")
NETWORK = "10.77.0"  # of the lab's own network namespace: it is no address of this machine
PATIENCE_SECONDS = 20.0

SSHD_CONFIG = """\
Port 22
HostKey /lab/host_key
AuthorizedKeysFile /lab/key.pub
StrictModes no
UsePAM no
PasswordAuthentication no
PermitRootLogin prohibit-password
PidFile none
AcceptEnv LANG LC_*
Subsystem sftp internal-sftp
"""


def missing() -> list[str]:
    """Names what this machine lacks for a lab; empty where one can be made."""
    if sys.platform != "linux":
        return ["Linux"]
    found = [] if os.geteuid() == 0 else ["root"]
    found += [f"the program {name}" for name in PROGRAMS if shutil.which(name) is None]
    if not Path("/usr/sbin/sshd").exists():
        found.append("the program sshd")
    if not found and (why := _refused()):
        found.append(f"namespaces and overlay file systems ({why})")
    return found


def _refused() -> str | None:
    """Why the kernel lets us have no host, in its own words."""
    trial = (
        "mount -t tmpfs t /mnt && mkdir /mnt/u /mnt/w /mnt/m && "
        "mount -t overlay o -o lowerdir=/,upperdir=/mnt/u,workdir=/mnt/w /mnt/m && "
        "ip link add lab0 type bridge"
    )
    spaces = ["unshare", "--net", "--mount", "--uts", "--ipc", "--pid", "--fork", "--mount-proc"]
    done = subprocess.run([*spaces, "sh", "-c", trial], capture_output=True, text=True)
    return (done.stderr.strip() or "refused") if done.returncode else None


@dataclass(frozen=True)
class Host:
    """One running host.

    Attributes:
        name: Its host name, which all hosts can resolve.
        address: Its address within the lab.
        holder: Our child; when it dies, so does all of the host.
        init: PID, seen from outside, of process 1 of the host.
    """

    name: str
    address: str
    holder: subprocess.Popen[str]
    init: int

    def processes(self) -> list[tuple[int, str]]:
        """PID (as the host has it) and command line of all that runs there but its init."""
        entered = ("nsenter", f"--target={self.init}", "--mount", "--pid")
        asked = ("ps", "-eww", "--no-headers", "-o", "pid,args")
        done = subprocess.run([*entered, *asked], capture_output=True, text=True, check=True)
        rows = [line.split(None, 1) for line in done.stdout.splitlines()]
        return [(int(pid), args) for pid, args in rows if pid != "1" and "ps -eww" not in args]


class Lab:
    """Hosts with a network of their own, from which and to which nothing else can be reached.

    Hosts see each other by name and address, one folder at `/shared`, and read-only the folders
    in `readable`. Whatever else they write is theirs, and is gone when they are. If the test is
    killed, the kernel ends them all.

    Args:
        folder: An empty folder for the lab's files.
        names: Of the hosts that may be started.
        readable: Folders that hosts must see although they may lie on other file systems.
    """

    def __init__(self, folder: Path, names: Sequence[str], readable: Iterable[Path] = ()) -> None:
        self.folder = folder
        self.shared = folder / "shared"
        self.files = folder / "files"
        self.addresses = {name: f"{NETWORK}.{n}" for n, name in enumerate(names, start=10)}
        self.hosts: dict[str, Host] = {}
        places = {REPOSITORY, Path(sys.prefix), Path(sys.base_prefix), *readable}
        self._readable = sorted(str(place.resolve()) for place in places)
        self._links = itertools.count()
        for made in (self.shared, self.files, folder / "mount"):
            made.mkdir()
        self._write_files()
        self._network = subprocess.Popen(_dies_with_us("unshare", "--net", "sleep", "infinity"))
        _wait_for(lambda: _namespace(self._network.pid, "net") != _namespace(os.getpid(), "net"))
        self._in_network("ip", "link", "add", "lab", "type", "bridge")
        self._in_network("ip", "link", "set", "lab", "up")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def start(self, name: str) -> Host:
        """Starts a host, with a new file system, and waits until it takes commands by ssh."""
        assert name not in self.hosts, f"{name} runs already"
        spaces = ("--net", "--mount", "--uts", "--ipc", "--pid")
        holder = subprocess.Popen(
            _dies_with_us(
                *("unshare", *spaces, "--fork", "--kill-child", "--mount-proc"),
                *("bash", str(INIT), name, str(self.folder), *self._readable),
            ),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=(self.folder / f"{name}.log").open("a"),
            text=True,
            env={"PATH": os.environ["PATH"]},
        )
        try:
            self._expect(holder, "mounted", name)
            init = int(Path(f"/proc/{holder.pid}/task/{holder.pid}/children").read_text())
            self._connect(name, init)
            assert holder.stdin is not None
            holder.stdin.write("network\n")
            holder.stdin.flush()
            self._expect(holder, "ready", name)
        except BaseException:
            holder.kill()
            holder.wait()
            raise
        self.hosts[name] = Host(name, self.addresses[name], holder, init)
        return self.hosts[name]

    def destroy(self, name: str) -> None:
        """Ends a host as a pulled plug does: all its processes at once, and its disk."""
        host = self.hosts.pop(name)
        os.kill(host.init, signal.SIGKILL)
        host.holder.wait(PATIENCE_SECONDS)
        for pipe in (host.holder.stdin, host.holder.stdout):
            if pipe is not None:
                with suppress(BrokenPipeError):
                    pipe.close()

    def inside(self, name: str, *command: str) -> list[str]:
        """The command line that runs a command on a host, as one logged in at its console."""
        entered = ["nsenter", f"--target={self.hosts[name].init}"]
        entered += ["--net", "--mount", "--uts", "--ipc", "--pid"]
        path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        kept = ["HOME=/root", "USER=root", "LANG=C.UTF-8", "TERM=dumb", path]
        return [*entered, "env", "-i", "--chdir=/root", *kept, *command]

    def ssh(self, source: str, target: str, command: str) -> list[str]:
        """The command line that gives `target` a command by ssh from `source`, as a user would.

        The shell on the target has a terminal and is an interactive one, which reads `~/.bashrc`.
        """
        quiet = ["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"]
        quiet += ["-o", "LogLevel=QUIET", "-o", "ServerAliveInterval=5"]
        words = ["ssh", "-tt", "-i", "/lab/key", *quiet, f"root@{self.addresses[target]}"]
        return self.inside(source, *words, f"bash -ic {shlex.quote(command)}")

    def close(self) -> None:
        """Ends all hosts and the network."""
        for name in list(self.hosts):
            self.destroy(name)
        self._network.kill()
        self._network.wait()

    def _write_files(self) -> None:
        for key in ("key", "host_key"):
            kind = ("-q", "-t", "ed25519", "-N", "", "-C", "lab")
            subprocess.run(["ssh-keygen", *kind, "-f", str(self.files / key)], check=True)
        (self.files / "sshd_config").write_text(SSHD_CONFIG)
        lines = [f"{address} {name}" for name, address in self.addresses.items()]
        (self.files / "hosts").write_text("\n".join(["127.0.0.1 localhost", *lines, ""]))

    def _expect(self, holder: subprocess.Popen[str], word: str, name: str) -> None:
        assert holder.stdout is not None
        if holder.stdout.readline().strip() != word:
            log = (self.folder / f"{name}.log").read_text()
            raise RuntimeError(f"host {name} is not {word}:\n{log}")

    def _connect(self, name: str, init: int) -> None:
        """Lays a cable from the host to the lab's switch."""
        link = f"host{next(self._links)}"  # a name of its own: the former's end may still go
        # The same card each time: the others would send to the former's address for a minute.
        card = f"02:00:00:00:00:{self.addresses[name].rpartition('.')[2]}"
        ends = ("type", "veth", "peer", "name", "eth0", "address", card, "netns", str(init))
        self._in_network("ip", "link", "add", link, *ends)
        self._in_network("ip", "link", "set", link, "master", "lab", "up")
        for words in (
            ("addr", "add", f"{self.addresses[name]}/24", "dev", "eth0"),
            ("link", "set", "eth0", "up"),
            ("link", "set", "lo", "up"),
        ):
            subprocess.run(["nsenter", f"--target={init}", "--net", "ip", *words], check=True)

    def _in_network(self, *command: str) -> None:
        subprocess.run(["nsenter", f"--target={self._network.pid}", "--net", *command], check=True)


def _dies_with_us(*command: str) -> list[str]:
    return ["setpriv", "--pdeathsig", "KILL", *command]


def _namespace(pid: int, kind: str) -> str:
    return str(Path(f"/proc/{pid}/ns/{kind}").readlink())


def _wait_for(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE_SECONDS
    while not holds():
        assert time.monotonic() < end, "the lab's network does not come"
        time.sleep(0.02)
