import os
import signal
from collections.abc import Iterator

import pytest
from hypothesis import settings
from throwaway_postgres import Throwaway, throwaway_services

# Two processes share the tests, and nets this small gain nothing from a second thread.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# A busy machine is slow, not wrong; pytest-timeout ends what hangs.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")

# Begun in the background, this process and its children would ignore Ctrl-C, which is tested.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with Ray first: they take longest and mostly wait, so the others fill the gaps."""
    items.sort(key=lambda item: item.get_closest_marker("ray") is None)


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


@pytest.fixture(scope="module")
def local_ray() -> Iterator[None]:
    """One local Ray for the tests of a file, apart from any other on this machine.

    It ends with the file: others test what is done where no Ray runs.
    """
    from search.cluster import ray_running

    with ray_running("local"):
        yield


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
