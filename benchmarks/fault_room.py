"""An output folder that can become full: a small disk of its own, which only its users see."""

import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

SIZE_MB = 48
_FILLER = "filler"
_APART = ("unshare", "--mount", "--propagation", "private")
# It holds the disk while drivers come and go, and ends with whoever holds its standard input.
_HOLD = 'mount -t tmpfs -o size="$1"m tmpfs "$2" && echo ready && exec cat'


class Room:
    """The folder of a study.

    Args:
        folder: As its drivers name it.
        holder: The process whose mount namespace has the disk; None where it is no disk.
    """

    def __init__(self, folder: Path, holder: int | None) -> None:
        self.folder = folder
        self._holder = holder

    @property
    def seen(self) -> Path:
        """The same folder, seen from without."""
        if self._holder is None:
            return self.folder
        return Path(f"/proc/{self._holder}/root", *self.folder.parts[1:])

    def inside(self, command: Sequence[str]) -> list[str]:
        """Returns what runs a command where the folder is."""
        if self._holder is None:
            return [*command]
        return ["nsenter", f"--mount=/proc/{self._holder}/ns/mnt", "--", *command]

    def fill(self) -> None:
        """Leaves no byte free."""
        with suppress(OSError), Path(self.seen / _FILLER).open("wb", buffering=0) as filler:
            while True:
                filler.write(bytes(4096))

    def clear(self) -> None:
        """Makes room again."""
        (self.seen / _FILLER).unlink()


@contextmanager
def room(folder: Path, *, disk: bool) -> Iterator[Room]:
    """Makes the folder; as a disk of its own this needs root."""
    folder.mkdir()
    if not disk:
        yield Room(folder, None)
        return
    holder = subprocess.Popen(
        [*_APART, "sh", "-c", _HOLD, "sh", str(SIZE_MB), str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    assert holder.stdin is not None
    assert holder.stdout is not None
    try:
        if holder.stdout.readline() != b"ready\n":
            raise RuntimeError("no small disk could be mounted")
        yield Room(folder, holder.pid)
    finally:
        holder.stdin.close()
        holder.stdout.close()
        holder.wait()


def can_have_disks() -> bool:
    """Whether this user may mount in a namespace of its own."""
    if not (shutil.which("unshare") and shutil.which("nsenter")):
        return False
    tried = subprocess.run([*_APART, "true"], capture_output=True)
    return tried.returncode == 0
