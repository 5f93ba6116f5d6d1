"""Ray with TLS, by the very commands of docs/security.md."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
from ray_head import TOKEN, joined, ray_head

pytestmark = [pytest.mark.ray, pytest.mark.slow]

DOCS = Path(__file__).parent.parent / "docs" / "security.md"
COMMANDS = re.compile(r"<!-- tested: tests/test_search_security_tls.py -->\n```sh\n(.*?)```", re.S)


def certify(folder: Path) -> dict[str, str]:
    """Makes a CA and this node's certificate; returns Ray's variables for them."""
    folder.mkdir()
    found = COMMANDS.search(DOCS.read_text())
    assert found is not None
    node = ray.util.get_node_ip_address()
    words = ["bash", "-ec", found[1]]
    environment = {**os.environ, "NODE": node}
    subprocess.run(words, cwd=folder, env=environment, check=True, capture_output=True)
    assert (folder / "node.key").stat().st_mode & 0o077 == 0
    return {
        "RAY_USE_TLS": "1",
        "RAY_TLS_CA_CERT": str(folder / "ca.crt"),
        "RAY_TLS_SERVER_CERT": str(folder / "node.crt"),
        "RAY_TLS_SERVER_KEY": str(folder / "node.key"),
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": TOKEN,
    }


@pytest.fixture
def secured(tmp_path: Path) -> Iterator[tuple[str, dict[str, str]]]:
    assert shutil.which("openssl"), "openssl is missing: apt-get install openssl"
    variables = certify(tmp_path / "cluster")
    with ray_head(**variables) as address:
        yield address, variables


def test_only_who_has_the_cas_certificate_joins(
    secured: tuple[str, dict[str, str]], tmp_path: Path
) -> None:
    address, variables = secured
    assert joined(address, variables=variables) == "RAN 42"
    plain = {name: value for name, value in variables.items() if "TLS" not in name}
    of_another_ca = certify(tmp_path / "another")
    for strange in (plain, of_another_ca):
        said = joined(address, variables=strange)
        assert said.startswith(f"REFUSED no Ray cluster answers at {address!r}")
