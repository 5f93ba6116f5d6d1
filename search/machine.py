"""What a study ran on: versions of what made its numbers, and the hardware."""

import os
import platform
from importlib import metadata
from pathlib import Path

PACKAGES = ("cgan-search", "torch", "numpy", "ray", "optuna", "mlflow")


def versions() -> dict[str, str]:
    """Returns Python's version and those of the packages that a number depends on."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "not installed as a package"
    return found


def hardware() -> dict[str, str | int]:
    """Returns the driver's machine: processor, cores that may be used, operating system."""
    return {
        "processor": _processor(),
        "cores": cores(),
        "system": f"{platform.system()} {platform.machine()}",
    }


def cores() -> int:
    """Returns the processor cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _processor() -> str:
    try:
        with Path("/proc/cpuinfo").open(encoding="utf-8") as lines:
            names = (line.split(":", 1)[1].strip() for line in lines if "model name" in line)
            if name := next(names, None):
                return name
    except OSError:
        pass
    return platform.processor()  # may start a process to ask
