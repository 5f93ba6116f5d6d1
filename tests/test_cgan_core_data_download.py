import contextlib
import gzip
import hashlib
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from cgan_core.data.download import DownloadError, download_files

CONTENT = {
    "a": np.random.default_rng(0).bytes(300_000),
    "b": b"short",
}
CHECKSUMS = {name: hashlib.sha256(content).hexdigest() for name, content in CONTENT.items()}
ZIPPED = {f"/{name}.gz": gzip.compress(content, mtime=0) for name, content in CONTENT.items()}


@dataclass
class Mirror:
    """What a loopback mirror does, and what it was asked."""

    url: str = ""
    files: dict[str, bytes] = field(default_factory=lambda: dict(ZIPPED))
    ranges: bool = True
    cut_after: int | None = None
    pause: float = 0.0
    silent: bool = False
    asked: list[tuple[str, str | None]] = field(default_factory=list)


def _handler(mirror: Mirror) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *arguments: object) -> None:
            pass

        def do_HEAD(self) -> None:
            if mirror.silent:
                time.sleep(2)
            self._start()

        def do_GET(self) -> None:
            wanted = self.headers.get("Range")
            mirror.asked.append((self.path, wanted))
            body = self._start()
            for at in range(0, len(body), 50_000):
                if mirror.cut_after is not None and at >= mirror.cut_after:
                    return
                with contextlib.suppress(BrokenPipeError):  # of a client that gave up
                    self.wfile.write(body[at : at + 50_000])
                time.sleep(mirror.pause)

        def _start(self) -> bytes:
            body = mirror.files.get(self.path)
            if body is None:
                self.send_error(404)
                return b""
            wanted = self.headers.get("Range")
            first = int(wanted.removeprefix("bytes=")[:-1]) if wanted and mirror.ranges else 0
            if first >= len(body):
                self.send_error(416)
                return b""
            self.send_response(206 if first else 200)
            self.send_header("Content-Length", str(len(body) - first))
            self.end_headers()
            return body[first:]

    return Handler


@pytest.fixture
def mirrors() -> Iterator[tuple[Mirror, Mirror]]:
    """Two mirrors on the loopback interface."""
    pair = (Mirror(), Mirror())
    servers = []
    for mirror in pair:
        server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(mirror))
        server.daemon_threads = True
        mirror.url = f"http://127.0.0.1:{server.server_address[1]}/"
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        servers.append(server)
    yield pair
    for server in servers:
        server.shutdown()
        server.server_close()


def _download(folder: Path, *mirrors: Mirror, total_seconds: float = 10.0) -> None:
    download_files(
        CHECKSUMS,
        folder,
        mirrors=[mirror.url for mirror in mirrors],
        connect_seconds=0.5,
        total_seconds=total_seconds,
    )


def _complete(folder: Path) -> bool:
    return all(
        gzip.decompress((folder / f"{name}.gz").read_bytes()) == content
        for name, content in CONTENT.items()
    ) and not list(folder.glob("*.part"))


def test_downloads_into_a_new_folder_and_asks_no_second_time(
    tmp_path: Path, mirrors: tuple[Mirror, Mirror]
) -> None:
    _download(tmp_path / "new", *mirrors)
    assert _complete(tmp_path / "new")
    assert not mirrors[1].asked
    mirrors[0].asked.clear()
    _download(tmp_path / "new", *mirrors)
    assert not mirrors[0].asked


def test_goes_on_where_it_was_cut(tmp_path: Path, mirrors: tuple[Mirror, Mirror]) -> None:
    first, second = mirrors
    first.cut_after = 100_000
    with pytest.raises(DownloadError, match="connection closed after 100000 of"):
        _download(tmp_path, first)
    assert (tmp_path / "a.gz.part").stat().st_size == 100_000
    _download(tmp_path, second)
    assert second.asked[0] == ("/a.gz", "bytes=100000-")
    assert _complete(tmp_path)


def test_another_mirror_goes_on_at_once(tmp_path: Path, mirrors: tuple[Mirror, Mirror]) -> None:
    mirrors[0].cut_after = 100_000
    _download(tmp_path, *mirrors)
    assert mirrors[1].asked[0] == ("/a.gz", "bytes=100000-")
    assert _complete(tmp_path)


def test_a_mirror_without_ranges_starts_afresh(
    tmp_path: Path, mirrors: tuple[Mirror, Mirror]
) -> None:
    mirrors[0].ranges = False
    (tmp_path / "a.gz.part").write_bytes(b"wrong")
    _download(tmp_path, mirrors[0])
    assert _complete(tmp_path)


@pytest.mark.parametrize("part", [b"wrong beginning", ZIPPED["/a.gz"] + b"too long"])
def test_a_wrong_part_is_thrown_away(
    tmp_path: Path, mirrors: tuple[Mirror, Mirror], part: bytes
) -> None:
    (tmp_path / "a.gz.part").write_bytes(part)
    _download(tmp_path, mirrors[0])
    assert [wanted for path, wanted in mirrors[0].asked if path == "/a.gz"][-1] is None
    assert _complete(tmp_path)


def test_a_finished_part_is_taken(tmp_path: Path, mirrors: tuple[Mirror, Mirror]) -> None:
    (tmp_path / "a.gz.part").write_bytes(ZIPPED["/a.gz"])
    _download(tmp_path, mirrors[0])
    assert len(mirrors[0].asked) == 2
    assert _complete(tmp_path)


def test_wrong_content_is_never_kept(tmp_path: Path, mirrors: tuple[Mirror, Mirror]) -> None:
    first, second = mirrors
    first.files["/a.gz"] = b"<html>log in to the hotel network</html>"
    _download(tmp_path / "both", first, second)
    assert _complete(tmp_path / "both")
    with pytest.raises(DownloadError, match="content must have SHA-256"):
        _download(tmp_path / "one", first)
    assert not list((tmp_path / "one").glob("a*"))


def test_a_silent_mirror_is_not_waited_for(tmp_path: Path, mirrors: tuple[Mirror, Mirror]) -> None:
    mirrors[0].silent = True
    started = time.monotonic()
    with pytest.raises(DownloadError, match=r"no answer|timed out"):
        _download(tmp_path, mirrors[0])
    assert time.monotonic() - started < 1.5
    _download(tmp_path, *mirrors)
    assert _complete(tmp_path)


def test_nobody_there(tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match="refused"):
        _download(tmp_path, Mirror(url="http://127.0.0.1:9/"))
    assert not list(tmp_path.glob("*.gz*"))


def test_a_file_that_a_mirror_lacks(tmp_path: Path, mirrors: tuple[Mirror, Mirror]) -> None:
    del mirrors[0].files["/b.gz"]
    with pytest.raises(DownloadError, match="HTTP 404 Not Found"):
        _download(tmp_path, mirrors[0])
    _download(tmp_path, *mirrors)
    assert [path for path, _ in mirrors[0].asked + mirrors[1].asked].count("/a.gz") == 1
    assert _complete(tmp_path)


def test_a_slow_mirror_is_left_and_its_bytes_kept(
    tmp_path: Path, mirrors: tuple[Mirror, Mirror]
) -> None:
    mirrors[0].pause = 0.2
    with pytest.raises(DownloadError, match="too slow; the next start goes on from here"):
        _download(tmp_path, mirrors[0], total_seconds=0.3)
    assert (tmp_path / "a.gz.part").stat().st_size > 0


def test_unwritable_folder(tmp_path: Path, mirrors: tuple[Mirror, Mirror]) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DownloadError, match="not writable"):
        _download(tmp_path / "file" / "cache", mirrors[0])


def test_two_at_once_do_not_disturb_each_other(
    tmp_path: Path, mirrors: tuple[Mirror, Mirror]
) -> None:
    mirrors[0].pause = 0.02
    threads = [threading.Thread(target=_download, args=(tmp_path, mirrors[0])) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert _complete(tmp_path)
    assert sorted(path for path, _ in mirrors[0].asked) == ["/a.gz", "/b.gz"]
