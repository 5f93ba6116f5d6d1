import os
from collections.abc import Iterator

import pytest
from hypothesis import settings

# A busy machine is slow, not wrong; pytest-timeout ends what hangs.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")


@pytest.fixture(scope="session", autouse=True)
def classifiers_apart(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Keeps the classifiers of tiny data sets out of the user's cache.

    Where `CGAN_CACHE_DIR` names one, it is theirs to fill; full MNIST may lie there.
    """
    os.environ.setdefault("CGAN_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture(scope="session")
def local_ray() -> Iterator[None]:
    """One local Ray for all tests that need it, apart from any other on this machine."""
    from search.cluster import ray_running

    with ray_running("local"):
        yield


@pytest.fixture
def worker_settings() -> Iterator[None]:
    """Undoes what a trial sets for its process: threads, flushed subnormals, one data set."""
    import torch

    from search.gan_run import _prepared

    threads = torch.get_num_threads()
    _prepared.cache_clear()
    yield
    torch.set_num_threads(threads)
    torch.set_flush_denormal(False)  # else hypothesis, which likes subnormals, gives up
    _prepared.cache_clear()
