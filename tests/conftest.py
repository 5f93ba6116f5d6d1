from collections.abc import Iterator

import pytest


@pytest.fixture(scope="session")
def local_ray() -> Iterator[None]:
    """One local Ray for all tests that need it, apart from any other on this machine."""
    from search.cluster import ray_running

    with ray_running("local"):
        yield
