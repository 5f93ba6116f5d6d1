"""Paths in the record stay below the study's folder, in words and on disk."""

import os
from pathlib import Path, PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from search.checkpoints import checkpoint_folder, keep_newest, make_durable
from search.events import Checkpointed, Donor, RunKey, from_line, to_line
from search.study_file import StudyError

PARTS = st.sampled_from(["..", ".", "", "a", "tune", "~", "c:", "\\", "/", "\0", "..\\x", "…"])
PATHS = st.one_of(st.text(max_size=12), st.lists(PARTS, max_size=6).map("/".join))


@given(path=PATHS)
def test_no_path_of_the_record_climbs_out(path: str) -> None:
    try:
        event = Checkpointed(number=0, kimg=1.0, path=path)
    except ValidationError:
        with pytest.raises(ValidationError):
            Donor(number=0, kimg=1.0, path=path)
        return
    assert from_line(to_line(event)) == event
    root = PurePosixPath("/study")
    depth = 0
    for part in PurePosixPath(root / path).relative_to(root).parts:
        depth += -1 if part == ".." else 1
        assert depth > 0
    assert Donor(number=0, kimg=1.0, path=path).path == path


@pytest.mark.parametrize(
    "path",
    ["", ".", "..", "../x", "a/../../b", "a/..", "/etc", "//x", "C:\\x", "C:x", "..\\x", "a\0b"],
)
def test_what_leads_elsewhere_is_refused(path: str) -> None:
    with pytest.raises(ValidationError, match="below the study's folder"):
        Checkpointed(number=0, kimg=1.0, path=path)
    line = '{"event":"checkpointed","at":"2026-01-01T00:00:00Z","number":0,"kimg":1.0,"path":'
    with pytest.raises(ValidationError):
        from_line((line + repr(path).replace("'", '"') + "}").encode())


@pytest.mark.parametrize("place", ["tune", "tune/00000-00-000", "tune/00000-00-000/checkpoint_1"])
def test_no_link_leads_out_to_what_is_read_or_deleted(tmp_path: Path, place: str) -> None:
    output, elsewhere = tmp_path / "study", tmp_path / "elsewhere"
    for number in (0, 1, 2):
        (output / f"tune/00000-00-000/checkpoint_{number}").mkdir(parents=True)
    (output / place).rename(elsewhere)
    (output / place).symlink_to(elsewhere)
    before = sorted(elsewhere.rglob("*"))
    keep_newest(output, RunKey(0), 1, set())
    assert sorted(elsewhere.rglob("*")) == before
    with pytest.raises(StudyError, match=r"checkpoint_1: .*link leads to .*elsewhere.*; move"):
        checkpoint_folder(output, "tune/00000-00-000/checkpoint_1")


def test_the_study_itself_may_be_a_link(tmp_path: Path) -> None:
    path = "tune/00000-00-000/checkpoint_1"
    for folder in (path, path.replace("_1", "_0")):
        (tmp_path / "real" / folder).mkdir(parents=True)
    (tmp_path / "study").symlink_to(tmp_path / "real")
    assert checkpoint_folder(tmp_path / "study", path) == tmp_path / "study" / path
    keep_newest(tmp_path / "study", RunKey(0), 1, set())
    assert [each.name for each in tmp_path.glob("real/tune/*/*")] == ["checkpoint_1"]


def test_all_of_a_checkpoint_is_brought_to_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "checkpoint_000000"
    (folder / "below").mkdir(parents=True)
    (folder / "state.json").write_text("{}")
    (folder / "below" / "weights").write_bytes(b"1")
    synced = []

    def note(handle: int) -> None:
        synced.append(str(Path(f"/proc/self/fd/{handle}").readlink()))

    monkeypatch.setattr(os, "fsync", note)
    make_durable(folder)
    every = [folder, folder / "below", folder / "below" / "weights", folder / "state.json"]
    assert sorted(synced) == sorted(map(str, [*every, tmp_path]))
