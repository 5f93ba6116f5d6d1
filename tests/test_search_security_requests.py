"""A request is a small file of its own: nothing else is read, and nobody is kept waiting."""

import os
from pathlib import Path

import pytest

from search.requests import MAX_BYTES, RequestError, Stop, ask, read_request


def test_a_request_is_read(tmp_path: Path) -> None:
    assert read_request(ask(tmp_path, Stop(number=3))) == Stop(number=3)


def test_a_link_to_something_else_is_refused(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere.json"
    elsewhere.write_text('{"request": "stop", "number": 3}')
    (tmp_path / "link.json").symlink_to(elsewhere)
    with pytest.raises(RequestError, match="must be readable"):
        read_request(tmp_path / "link.json")


def test_neither_a_pipe_nor_a_huge_file_holds_the_driver_up(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.json")
    with pytest.raises(RequestError):
        read_request(tmp_path / "pipe.json")
    (tmp_path / "huge.json").write_bytes(b" " * (MAX_BYTES + 1))
    with pytest.raises(RequestError, match=f"at most {MAX_BYTES} bytes"):
        read_request(tmp_path / "huge.json")


@pytest.mark.parametrize("path", ["../../etc/passwd", "/etc/passwd"])
def test_a_request_names_no_path(tmp_path: Path, path: str) -> None:
    file = tmp_path / "r.json"
    file.write_text(f'{{"request": "stop", "number": 3, "path": "{path}"}}')
    with pytest.raises(RequestError, match="path: Extra inputs"):
        read_request(file)
