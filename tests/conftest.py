from collections.abc import Iterator

import pytest
from hypothesis import settings

# A busy machine is slow, not wrong; pytest-timeout ends what hangs.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")


@pytest.fixture(scope="session")
def local_ray() -> Iterator[None]:
    """One local Ray for all tests that need it, apart from any other on this machine."""
    from search.cluster import ray_running

    with ray_running("local"):
        yield
