"""A study's record as a parcel, and how it comes over a bad line."""

import io
import json
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

import search.parcel
from search.fetch import PARCEL_FOLDER, fetch
from search.follow import Patience
from search.job_address import SubmitError
from search.job_server import ConnectionLost, Job, JobServer
from search.parcel import INDEX_NAME, Parcel, ParcelError, pack, unpack

PIECE_BYTES = 1000


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search.parcel, "PIECE_BYTES", PIECE_BYTES)


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """A folder as a search leaves it; random bytes, for these cannot be packed into less."""
    folder = tmp_path / "study"
    for name in ("best/model.safetensors", "journal.jsonl", "tune/1/checkpoint_1/state"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(os.urandom(2500))
    (folder / "empty.json").touch()
    (folder / "journal.lock").touch()
    return folder


def content(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def brought(study: Path) -> dict[str, bytes]:
    left = ("tune/", "journal.lock")
    return {name: data for name, data in content(study).items() if not name.startswith(left)}


def test_what_is_unpacked_is_the_study_without_its_checkpoints(
    study: Path, tmp_path: Path
) -> None:
    parcel = pack(study, tmp_path / "parcel")
    assert parcel == Parcel.read((tmp_path / "parcel" / INDEX_NAME).read_bytes())
    assert [piece.size_bytes for piece in parcel.pieces[:-1]] == [PIECE_BYTES] * (
        len(parcel.pieces) - 1
    )
    assert len(parcel.pieces) >= 5
    unpack(parcel, tmp_path / "parcel", tmp_path / "here")
    assert content(tmp_path / "here") == brought(study)


def test_a_record_that_has_grown_replaces_its_beginning(study: Path, tmp_path: Path) -> None:
    unpack(pack(study, tmp_path / "first"), tmp_path / "first", tmp_path / "here")
    with (study / "journal.jsonl").open("ab") as journal:
        journal.write(b"more")
    unpack(pack(study, tmp_path / "second"), tmp_path / "second", tmp_path / "here")
    assert content(tmp_path / "here") == brought(study)


def test_another_study_is_not_overwritten(study: Path, tmp_path: Path) -> None:
    here = tmp_path / "here"
    here.mkdir()
    (here / "journal.jsonl").write_text("of another study\n")
    before = content(here)
    with pytest.raises(ParcelError, match="another study"):
        unpack(pack(study, tmp_path / "parcel"), tmp_path / "parcel", here)
    assert content(here) == before


def link() -> tarfile.TarInfo:
    found = tarfile.TarInfo("best")
    found.type, found.linkname = tarfile.SYMTYPE, "/etc"
    return found


@pytest.mark.parametrize(
    "hostile", [tarfile.TarInfo("../climbed"), tarfile.TarInfo("a/../../climbed"), link()]
)
def test_what_climbs_out_is_refused(hostile: tarfile.TarInfo, tmp_path: Path) -> None:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        tar.addfile(hostile, io.BytesIO())
    folder = tmp_path / "deep" / "parcel"
    folder.mkdir(parents=True)
    (folder / "000000.part").write_bytes(packed.getvalue())
    piece = search.parcel.Piece("000000.part", len(packed.getvalue()), "")
    with pytest.raises(ParcelError, match="refused"):
        unpack(Parcel(1, (piece,)), folder, tmp_path / "deep" / "study")
    assert not list(tmp_path.rglob("climbed"))
    assert not (tmp_path / "deep" / "study").exists()


@pytest.mark.parametrize("name", ["../000000.part", "/etc/passwd", "000001.part"])
def test_an_index_names_pieces_alone(name: str) -> None:
    pieces = [{"name": name, "size_bytes": 1, "sha256": ""}]
    with pytest.raises(ParcelError, match="no piece"):
        Parcel.read(json.dumps({"files": 1, "pieces": pieces}))


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"files": 1, "pieces": [{}]}'])
def test_an_index_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ParcelError, match="cannot be understood"):
        Parcel.read(text)


class BadLine:
    """Hands out the files of a folder as a job server does, where `faults` has nothing else."""

    url = "http://127.0.0.1:8265"

    def __init__(self, folder: Path, faults: dict[str, Iterator[Any]]) -> None:
        self._folder = folder
        self._faults = faults
        self.asked: list[str] = []

    def file(self, node: str, name: str) -> bytes | None:
        assert node == "head"
        folder, _, name = name.partition("/")
        assert folder == "parcel-job"
        self.asked.append(name)
        fault = next(self._faults.get(name, iter(())), None)
        if isinstance(fault, Exception):
            raise fault
        path = self._folder / name
        return fault or (path.read_bytes() if path.exists() else None)


JOB = Job("job", "SUCCEEDED", "", "head", 0, {}, 0)


def fetched(line: BadLine, study: Path) -> Parcel | None:
    return fetch(cast(JobServer, line), JOB, study, Patience(lambda _: None))


def test_a_fetch_goes_on_after_losses_and_garbage(
    study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("search.follow.WAIT_SECONDS", (0.0, 0.0))
    pack(study, tmp_path / "parcel")
    faults: dict[str, Iterator[Any]] = {
        INDEX_NAME: iter([ConnectionLost("cut")]),
        "000001.part": iter([b"cut sho", ConnectionLost("cut"), b"x" * PIECE_BYTES]),
    }
    assert fetched(BadLine(tmp_path / "parcel", faults), tmp_path / "here") is not None
    assert content(tmp_path / "here") == brought(study)


def test_a_fetch_begun_again_brings_only_what_is_missing(study: Path, tmp_path: Path) -> None:
    pack(study, tmp_path / "parcel")

    class CutShort(BadLine):
        def file(self, node: str, name: str) -> bytes | None:
            if name.endswith("000003.part"):
                raise KeyboardInterrupt
            return super().file(node, name)

    with pytest.raises(KeyboardInterrupt):
        fetched(CutShort(tmp_path / "parcel", {}), tmp_path / "here")
    assert (tmp_path / "here" / PARCEL_FOLDER).exists()
    line = BadLine(tmp_path / "parcel", {})
    fetched(line, tmp_path / "here")
    assert line.asked[:2] == [INDEX_NAME, "000003.part"]
    assert content(tmp_path / "here") == brought(study)


def test_a_piece_that_is_broken_there_is_told(study: Path, tmp_path: Path) -> None:
    pack(study, tmp_path / "parcel")
    (tmp_path / "parcel" / "000001.part").write_bytes(b"changed")
    with pytest.raises(SubmitError, match=r"000001\.part of the record is broken"):
        fetched(BadLine(tmp_path / "parcel", {}), tmp_path / "here")
    assert not (tmp_path / "here" / "journal.jsonl").exists()


def test_nothing_packed_is_nothing_fetched(tmp_path: Path) -> None:
    assert fetched(BadLine(tmp_path, {}), tmp_path / "here") is None
    assert not (tmp_path / "here").exists()
