"""Which addresses are submitted to, what is shipped, and what is shown of a log."""

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from search.code_package import ORDER_NAME, SPACE_NAME, START_NAME, stage
from search.follow import ShownLog
from search.job_address import JobAddress, SubmitError, find_job_server
from search.submit import travelling


class _Answer(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        assert "Authorization" not in self.headers, "nothing secret goes to whoever answers"
        assert self.path == "/api/authentication_mode"
        content = b'{"authentication_mode": "token"}'
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def answering(host: str = "127.0.0.1") -> Iterator[int]:
    server = HTTPServer((host, 0), _Answer)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture(autouse=True)
def no_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_AUTH_TOKEN", "secret")


def test_who_answers_to_http_is_submitted_to(monkeypatch: pytest.MonkeyPatch) -> None:
    with answering() as port:
        expected = JobAddress(f"http://127.0.0.1:{port}", asks_for_token=True)
        assert find_job_server(f"127.0.0.1:{port}") == expected
        assert find_job_server(f"http://127.0.0.1:{port}") == expected
        assert find_job_server("auto") is None
        monkeypatch.setenv("RAY_ADDRESS", f"http://127.0.0.1:{port}")
        assert find_job_server("auto") == expected


def test_who_does_not_is_joined() -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        port = mute.getsockname()[1]
        thread = threading.Thread(target=lambda: mute.accept()[0].sendall(b"PRI * HTTP/2.0\r\n"))
        thread.start()
        assert find_job_server(f"127.0.0.1:{port}") is None
        thread.join()
    assert find_job_server(f"127.0.0.1:{port}") is None


@pytest.mark.parametrize("address", ["auto", "local", "ray://127.0.0.1:10001", "word"])
def test_other_addresses_are_no_job_servers(address: str) -> None:
    assert find_job_server(address) is None


def test_a_job_server_that_is_named_and_silent_is_an_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.raises(SubmitError, match=rf"no job server.*ssh -N -L {port}:"):
        find_job_server(f"http://127.0.0.1:{port}")


def test_no_token_goes_through_a_network_in_the_clear() -> None:
    host = socket.gethostname()  # a name may mean another machine in a moment
    with answering(host) as port, pytest.raises(SubmitError, match="in the clear; open a tunnel"):
        find_job_server(f"{host}:{port}")


def test_source_space_and_options_are_shipped_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("study: mine\n")
    package = stage({"words": ["mine.yaml"]}, tmp_path / "mine.yaml", tmp_path / "staged")
    staged = tmp_path / "staged"
    files = {path.relative_to(staged).as_posix() for path in staged.rglob("*") if path.is_file()}
    assert len(files) == package.files
    assert {SPACE_NAME, ORDER_NAME, "search/run.py", "cgan_core/data/bundled/digits.npz"} <= files
    assert {name.partition("/")[0] for name in files} == {
        "cgan_core",
        "search",
        *(SPACE_NAME, ORDER_NAME, START_NAME),
    }
    assert not [name for name in files if "__pycache__" in name or "/." in name]
    assert (staged / SPACE_NAME).read_text() == "study: mine\n"
    assert json.loads((staged / ORDER_NAME).read_text()) == {"words": ["mine.yaml"]}
    assert package.size_bytes < 10 * 2**20


def test_options_travel_but_for_those_of_this_machine() -> None:
    words = "a.yaml --size quick --address 127.0.0.1:8265 --json --output=x --set a.b=c --seed 3"
    assert travelling(words.split()) == [
        *("a.yaml", "--size", "quick"),
        *("--set", "a.b=c", "--seed", "3"),
    ]


@given(st.text(max_size=40), st.lists(st.lists(st.integers(0, 40), max_size=4), max_size=4))
def test_a_log_is_shown_once_over_any_connections(text: str, connections: list[list[int]]) -> None:
    """Each connection repeats it from its beginning in pieces of its own, and may be cut."""
    shown: list[str] = []
    log = ShownLog(shown.append)
    for ends in [*connections, [len(text)]]:
        log.begin()
        begin = 0
        for end in sorted(ends):
            log.hear(text[begin:end])
            begin = max(begin, min(end, len(text)))
    assert "".join(shown) == text
