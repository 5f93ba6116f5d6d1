import os
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from throwaway_postgres import Throwaway, throwaway_services

# Three processes share the tests, and nets this small gain nothing from a second thread.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# A busy machine is slow, not wrong; pytest-timeout ends what hangs.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")


class LocalRay:
    """A Ray that goes on from one file that asks for it to the next."""

    def __init__(self) -> None:
        self.files: set[Path] = set()
        self._held = ExitStack()
        self._runs = False

    def begin(self) -> None:
        from search.cluster import ray_running

        if not self._runs:
            self._held.enter_context(ray_running("local"))
            self._runs = True

    def end(self) -> None:
        self._held.close()
        self._runs = False


SHARED_RAY = LocalRay()

# Begun in the background, this process and its children would ignore Ctrl-C, which is tested.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes longest comes first, so that no process is left with it at the end.

    Of the files with Ray, those that share one come first, so that it is begun once a process.
    """

    def having(has: Callable[[pytest.Item], Any]) -> set[Path]:
        return {item.path for item in items if has(item)}

    SHARED_RAY.files = having(lambda item: "local_ray" in getattr(item, "fixturenames", ()))
    ranks = [
        SHARED_RAY.files,
        having(lambda item: item.get_closest_marker("ray")),
        having(lambda item: item.get_closest_marker("slow")),
    ]
    items.sort(key=lambda item: [item.path not in files for files in ranks])


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """The other files test what is done where no Ray runs, or begin their own."""
    if item.path not in SHARED_RAY.files:
        SHARED_RAY.end()


@pytest.fixture(scope="session", autouse=True)
def classifiers_apart(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Keeps the classifiers of tiny data sets out of the user's cache.

    Where `CGAN_CACHE_DIR` names one, it is theirs to fill; full MNIST may lie there.
    """
    os.environ.setdefault("CGAN_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture(scope="session", autouse=True)
def services_apart(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Hides the services of whoever runs the tests: runs would go to their MLflow server."""
    os.environ["XDG_CONFIG_HOME"] = str(tmp_path_factory.mktemp("config"))


@pytest.fixture(scope="session")
def mlflow_on_postgres() -> Iterator[Throwaway]:
    """An MLflow server on PostgreSQL for all tests of this process that only read and add runs.

    A test that is to find it by itself sets XDG_CONFIG_HOME to its `config`.
    """
    with throwaway_services() as services:
        yield services


@pytest.fixture(scope="session")
def ray_to_share() -> Iterator[LocalRay]:
    yield SHARED_RAY
    SHARED_RAY.end()


@pytest.fixture(scope="module")
def local_ray(ray_to_share: LocalRay) -> None:
    """One local Ray for the files of this process that ask for it, apart from any other."""
    ray_to_share.begin()


@pytest.fixture
def worker_settings() -> Iterator[None]:
    """Undoes what a trial sets for its process: threads, flushed subnormals, one data set."""
    import torch

    from search.evaluators import forget

    threads = torch.get_num_threads()
    forget()
    yield
    torch.set_num_threads(threads)
    torch.set_flush_denormal(False)  # else hypothesis, which likes subnormals, gives up
    forget()
