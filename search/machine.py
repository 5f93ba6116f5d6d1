"""What a study ran on: versions of what made its numbers, and the hardware."""

import hashlib
import os
import platform
from functools import cache
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

PACKAGES = ("cgan-search", "torch", "numpy", "ray", "optuna", "mlflow")
SOURCE = "cgan_core source"


def versions() -> dict[str, str]:
    """Returns Python's version and those of the packages that a number depends on."""
    found = {"python": platform.python_version(), SOURCE: source_digest()}
    return found | {name: version(name) for name in PACKAGES}


@cache
def source_digest() -> str:
    """Returns the start of the SHA-256 of the library's source: two commits may share a version.

    A package is read where Python finds it, without importing it.
    """
    spec = find_spec("cgan_core")
    assert spec is not None
    assert spec.submodule_search_locations
    folder = Path(spec.submodule_search_locations[0])
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        digest.update(path.relative_to(folder).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:12]


def version(package: str) -> str:
    """Returns the version of a package, without importing it."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed as a package"


def hardware() -> dict[str, str | int]:
    """Returns the driver's machine: processor, cores that may be used, operating system."""
    return {
        "processor": processor(),
        "cores": cores(),
        "system": f"{platform.system()} {platform.machine()}",
    }


def cores() -> int:
    """Returns the processor cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def processor() -> str:
    """Returns the model of this machine's processor."""
    try:
        with Path("/proc/cpuinfo").open(encoding="utf-8") as lines:
            names = (line.split(":", 1)[1].strip() for line in lines if "model name" in line)
            if name := next(names, None):
                return name
    except OSError:
        pass
    return platform.processor()  # may start a process to ask
