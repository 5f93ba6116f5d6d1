"""Who may use a Ray: real ones, asked with the right token, a wrong one and none."""

import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
from ray_head import TOKEN, environment, joined, ray_head

from search.ray_token import asks_for_token

pytestmark = pytest.mark.ray

RIGHT = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN}
UNSAID = {"RAY_AUTH_TOKEN": TOKEN}  # a token is there, and nobody says that it be sent
WRONG = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "b" * 32}
NONE = {"RAY_AUTH_MODE": "disabled"}


@pytest.fixture
def guarded() -> Iterator[str]:
    with ray_head(**RIGHT) as address:
        yield address


@pytest.fixture
def open_to_all() -> Iterator[str]:
    with ray_head(**NONE) as address:
        yield address


def test_a_cluster_with_a_token(guarded: str) -> None:
    assert asks_for_token(guarded)
    assert joined(guarded, variables=RIGHT) == "RAN 42"
    assert joined(guarded, variables=UNSAID) == "RAN 42"
    for variables, words in ((WRONG, "does not take this one"), (NONE, "none is sent")):
        for flags in ((), ("--without-token",)):
            said = joined(guarded, *flags, variables=variables)
            assert said.startswith(f"REFUSED the Ray cluster at {guarded!r} asks for a token")
            assert words in said
            assert TOKEN not in said


def test_a_cluster_without_one_is_refused_whatever_is_sent(open_to_all: str) -> None:
    assert not asks_for_token(open_to_all)
    for variables in (RIGHT, NONE):
        said = joined(open_to_all, variables=variables)
        assert said.startswith(f"REFUSED the Ray cluster at {open_to_all!r} asks nobody")
        assert "--without-token" in said
    assert joined(open_to_all, "--without-token", variables=NONE) == "RAN 42"


def test_a_ray_that_is_begun_here_asks_for_a_token(local_ray: None) -> None:
    assert asks_for_token(ray.get_runtime_context().gcs_address)


def test_a_ray_without_one_is_not_begun_here_unless_asked_for() -> None:
    said = joined("local", variables=NONE)
    assert said.startswith("REFUSED RAY_AUTH_MODE=disabled: a Ray without a token is refused")


KEEP = "from search.ray_token import keep_own_token; keep_own_token()"


def test_nobody_else_can_read_the_token_that_is_made(tmp_path: Path) -> None:
    path = tmp_path / ".ray" / "auth_token"

    def keep() -> tuple[str, int]:
        variables = environment(HOME=str(tmp_path))
        subprocess.run([sys.executable, "-c", KEEP], env=variables, check=True, timeout=60)
        return path.read_text(), stat.S_IMODE(path.stat().st_mode)

    token, mode = keep()
    assert (len(token), mode) == (64, 0o600)
    path.chmod(0o644)  # as Ray would have made it
    assert keep() == (token, 0o600)
    assert [each.name for each in path.parent.iterdir()] == ["auth_token"]
