"""The code and the space file as they travel to a cluster: all that `search.submitted` needs."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

PACKAGES = ("cgan_core", "search")
ORDER_NAME = "order.json"
SPACE_NAME = "space.yaml"
START_NAME = "start.sh"
# `python` may be another one, for `ray start` needs no PATH to its environment. The parent of the
# job's shell is a worker of Ray: the library that it has loaded lies in that environment.
_START = r"""
loaded='\(/.*\)/lib/python[^/]*/site-packages/ray/_raylet.so'
p=$(sed -n "s|^[^/]*$loaded\$|\\1|p;T;q" /proc/$PPID/maps)
exec "${p:+$p/bin/}python" -m search.submitted
"""
MAX_BYTES = 100 * 2**20  # what a job server takes
_KINDS = (".py", ".typed")
_DATA = "bundled"  # the digits that come with `cgan_core`


class CodePackage(NamedTuple):
    """A folder that is shipped."""

    folder: Path
    files: int
    size_bytes: int

    def __str__(self) -> str:
        packages = " and ".join(PACKAGES)
        size = f"{self.size_bytes / 2**20:.1f} MiB"
        return f"{self.files} files, {size}: the source of {packages}, the space file, the options"


def stage(order: dict[str, Any], space: Path, folder: Path) -> CodePackage:
    """Copies into an empty folder what is shipped.

    Of the two packages, their Python source and the data that come with them: no notes, records,
    environments or hidden files that lie around them.

    Raises:
        ValueError: It is more than a job server takes.
    """
    root = Path(__file__).parent.parent
    for package in PACKAGES:
        for file in _source(root / package):
            goal = folder / file.relative_to(root)
            goal.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, goal)
    shutil.copyfile(space, folder / SPACE_NAME)
    (folder / ORDER_NAME).write_text(json.dumps(order, sort_keys=True))
    (folder / START_NAME).write_text(_START)
    sizes = [file.stat().st_size for file in folder.rglob("*") if file.is_file()]
    if sum(sizes) >= MAX_BYTES:
        shown = f"{sum(sizes) / 2**20:.0f} MiB"
        raise ValueError(f"{root}: must be below 100 MiB to be shipped, but is {shown}")
    return CodePackage(folder, len(sizes), sum(sizes))


def _source(package: Path) -> Iterator[Path]:
    for file in sorted(package.rglob("*")):
        parts = file.relative_to(package).parts
        if any(part.startswith((".", "__pycache__")) for part in parts) or file.is_symlink():
            continue
        if file.is_file() and (file.suffix in _KINDS or _DATA in parts[:-1]):
            yield file
