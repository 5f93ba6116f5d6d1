"""What the journal says is there stays there: torn lines, full disks, two drivers, kill -9."""

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from search.events import Ended, Event, Measured, Proposed, SessionOpened, StudyOpened, to_line
from search.journal import Journal, JournalError, JournalExists, JournalLocked

EVENTS: list[Event] = [
    StudyOpened(
        study="toy",
        study_id="0" * 32,
        spec={"space": {"rate": {"low": 1.0e-4}}, "note": "zwei\nZeilen \u2028 \u00e9"},
        spec_digest="s",
        dataset_digest="d",
        protocol_digest="p",
    ),
    SessionOpened(pid=1),
    Proposed(
        number=0,
        stage="manual",
        stage_index=0,
        params={"rate": 0.1, "units": 240, "loss": "minimax", "fresh": True},
        cell="{}",
        seed=7,
    ),
    Measured(number=0, kimg=10, elapsed_seconds=1, metrics={"validation_log_likelihood": 0.1}),
    Ended(number=0, state="INFEASIBLE", reason="non-finite loss at 11 kimg"),
]
WHOLE = b"".join(to_line(event) for event in EVENTS)
ENDS = [len(b"".join(to_line(event) for event in EVENTS[:n])) for n in range(len(EVENTS) + 1)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "runs" / "journal.jsonl"


@pytest.fixture
def written(path: Path) -> Path:
    journal = Journal.open(path, create=True)
    for event in EVENTS:
        journal.append(event)
    journal.close()
    return path


def test_reads_back_what_was_appended_with_types(written: Path) -> None:
    events = Journal.read(written)
    assert events == EVENTS
    proposed = events[2]
    assert isinstance(proposed, Proposed)
    assert [type(value) for value in proposed.params.values()] == [float, int, str, bool]


def test_goes_on_where_it_stopped(written: Path) -> None:
    journal = Journal.open(written, create=False)
    assert journal.found == EVENTS
    journal.append(*EVENTS[3:])
    journal.close()
    journal.close()
    assert Journal.read(written) == EVENTS + EVENTS[3:]


@settings(deadline=None, max_examples=150)
@given(cut=st.integers(0, len(WHOLE)))
def test_cut_at_any_byte_it_reopens_as_a_prefix(
    tmp_path_factory: pytest.TempPathFactory, cut: int
) -> None:
    path = tmp_path_factory.mktemp("cut") / "journal.jsonl"
    path.write_bytes(WHOLE[:cut])
    whole = max(n for n, end in enumerate(ENDS) if end <= cut)
    assert Journal.read(path) == EVENTS[:whole]
    journal = Journal.open(path, create=False)
    assert journal.found == EVENTS[:whole]
    journal.append(EVENTS[1])
    journal.close()
    assert path.read_bytes() == WHOLE[: ENDS[whole]] + to_line(EVENTS[1])
    torn = path.with_suffix(".torn")
    kept = torn.read_bytes() if torn.exists() else b"\n"
    assert kept == WHOLE[ENDS[whole] : cut] + b"\n"


@pytest.mark.parametrize("tail", [b'{"event":"en\n', b"\0" * 40, b"\xff\xfe\n", b"\n"])
def test_a_last_line_that_is_no_json_is_torn(written: Path, tail: bytes) -> None:
    written.write_bytes(WHOLE + tail)
    assert Journal.read(written) == EVENTS
    Journal.open(written, create=False).close()
    assert written.read_bytes() == WHOLE


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"garbage", r"journal\.jsonl:3: .*Invalid JSON"),
        (b"", r"journal\.jsonl:3: .*Invalid JSON"),
        (b'{"event":"invented"}', r"journal\.jsonl:3: .*'invented'"),
        (b'{"event":"session_opened","pid":"x"}', r"journal\.jsonl:3: .*session_opened\.pid: "),
    ],
)
def test_a_broken_line_in_the_middle_is_an_error_with_its_place(
    written: Path, line: bytes, message: str
) -> None:
    lines = WHOLE.splitlines(keepends=True)
    written.write_bytes(b"".join([*lines[:2], line + b"\n", *lines[2:]]))
    with pytest.raises(JournalError, match=message):
        Journal.read(written)
    with pytest.raises(JournalError, match=message):
        Journal.open(written, create=False)
    Journal.open(written.with_name("other.jsonl"), create=True).close()


def test_another_schema_version_is_refused(written: Path) -> None:
    written.write_bytes(WHOLE.replace(b'"schema_version":1', b'"schema_version":2'))
    with pytest.raises(JournalError, match=r"jsonl:1: .*schema_version: Input should be 1"):
        Journal.read(written)


def test_a_second_writer_is_told_who_holds_it(written: Path) -> None:
    journal = Journal.open(written, create=False)
    with pytest.raises(JournalLocked, match=rf"runs: .*process {os.getpid()} on "):
        Journal.open(written, create=False)
    assert Journal.read(written) == EVENTS  # readers need no lock
    journal.close()
    Journal.open(written, create=False).close()


def test_an_existing_study_is_not_begun_again_but_an_empty_one_is(written: Path) -> None:
    with pytest.raises(JournalExists, match="recorded here already"):
        Journal.open(written, create=True)
    written.write_bytes(WHOLE[:20])  # killed within the first append
    journal = Journal.open(written, create=True)
    assert journal.found == []
    journal.close()


def test_a_missing_study_is_named_and_nothing_is_made(path: Path) -> None:
    with pytest.raises(JournalError, match=r"runs: holds no study \(journal\.jsonl is missing\)"):
        Journal.open(path, create=False)
    with pytest.raises(JournalError, match="must be readable"):
        Journal.read(path)
    assert not path.parent.exists()


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(JournalError, match=r"file/runs/journal\.jsonl: must be writable, but: "):
        Journal.open(tmp_path / "file" / "runs" / "journal.jsonl", create=True)


def test_a_full_disk_leaves_no_half_line(written: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal.open(written, create=False)
    write, calls = os.write, []

    def fill(file: int, data: bytes) -> int:
        calls.append(data)
        if len(calls) == 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(file, data[:9])

    monkeypatch.setattr(os, "write", fill)
    with pytest.raises(JournalError, match=r"cannot be appended to: No space left on device"):
        journal.append(EVENTS[3])
    monkeypatch.undo()
    assert written.read_bytes() == WHOLE
    journal.append(EVENTS[3])
    journal.close()
    assert Journal.read(written) == [*EVENTS, EVENTS[3]]
    with pytest.raises(JournalError, match="is closed"):
        journal.append(EVENTS[3])


def test_a_failed_fsync_is_not_an_append(written: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal.open(written, create=False)
    fsync, calls = os.fsync, []

    def fail_once(file: int) -> None:
        calls.append(file)
        if len(calls) == 1:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        fsync(file)

    monkeypatch.setattr(os, "fsync", fail_once)
    with pytest.raises(JournalError, match="Input/output error"):
        journal.append(EVENTS[3])
    journal.close()
    assert written.read_bytes() == WHOLE


def test_nan_never_reaches_the_journal() -> None:
    with pytest.raises(ValueError, match=r"metrics\.loss"):
        Measured(number=0, kimg=1, elapsed_seconds=1, metrics={"loss": float("nan")})
    with pytest.raises(ValueError, match="not JSON compliant"):
        StudyOpened(
            study="toy",
            study_id="",
            spec={"rate": float("inf")},
            spec_digest="",
            dataset_digest="",
            protocol_digest="",
        )
    with pytest.raises(ValueError, match="must have a reason"):
        Ended(number=0, state="INFEASIBLE")


DRIVER = """
import sys
from pathlib import Path
from search.events import Measured, SessionOpened
from search.journal import Journal

path = Path(sys.argv[1])
journal = Journal.open(path, create=not path.exists())
for kimg in range(len(journal.found), 10**9):
    journal.append(
        Measured(number=0, kimg=kimg, elapsed_seconds=0, metrics={"x" * 500: 0.5}),
        SessionOpened(pid=1),
    )
    print(kimg, flush=True)
"""


def test_kill_nine_loses_nothing_that_was_acknowledged(path: Path) -> None:
    acknowledged: list[float] = []
    for lines in (3, 40, 111):
        driver = subprocess.Popen(
            [sys.executable, "-c", DRIVER, str(path)], stdout=subprocess.PIPE, text=True
        )
        assert driver.stdout
        said = [driver.stdout.readline() for _ in range(lines)]
        driver.send_signal(signal.SIGKILL)
        said += driver.stdout.read().splitlines()
        driver.wait()
        driver.stdout.close()
        acknowledged += [float(line) for line in said]
        events = Journal.read(path)  # the lock went with the process
        kept = [event.kimg for event in events if isinstance(event, Measured)]
        assert len(kept) == len(set(kept))
        assert set(acknowledged) <= set(kept)
        assert len(kept) <= len(acknowledged) + 3  # at most the one in flight at each kill


@pytest.mark.parametrize("create", [True, False])
@pytest.mark.parametrize(
    "case", ["nothing", "empty", "written", "locked", "under a file", "broken"]
)
def test_a_look_refuses_what_opening_refuses_and_writes_nothing(
    path: Path, case: str, create: bool
) -> None:
    holder: Journal | None = None
    if case in ("written", "locked", "broken", "empty"):
        holder = Journal.open(path, create=True)
        if case != "empty":
            holder.append(EVENTS[0])
        if case != "locked":
            holder.close()
    if case == "broken":
        path.write_bytes(b"{}\n" + path.read_bytes())
    if case == "under a file":
        path.parent.write_text("a file")
    before = sorted((p, p.stat().st_mtime_ns) for p in path.parent.parent.rglob("*"))
    found: list[str | None] = []
    for look in (Journal.check, Journal.open):
        try:
            opened = look(path, create=create)
        except JournalError as error:
            found.append(f"{type(error).__name__}: {error}")
        else:
            found.append(None)
            if opened is not None:
                opened.close()
        if look is Journal.check:
            after = sorted((p, p.stat().st_mtime_ns) for p in path.parent.parent.rglob("*"))
            assert after == before
    if holder is not None:
        holder.close()
    assert found[0] == found[1]


def test_one_where_nothing_was_recorded_is_taken_back(tmp_path: Path) -> None:
    new = tmp_path / "new" / "journal.jsonl"
    Journal.open(new, create=True).discard()
    assert not new.parent.exists()
    (tmp_path / "old").mkdir()
    Journal.open(tmp_path / "old" / "journal.jsonl", create=True).discard()
    assert not [*(tmp_path / "old").iterdir()]
    kept = Journal.open(new, create=True)
    kept.append(EVENTS[0])
    kept.discard()
    assert Journal.read(new) == [EVENTS[0]]
    beside = Journal.open(tmp_path / "old" / "journal.jsonl", create=True)
    (tmp_path / "old" / "study.json").touch()
    beside.discard()
    assert (tmp_path / "old" / "journal.jsonl").exists()


def test_where_locks_are_none_a_second_writer_is_noticed_and_cuts_nothing(path: Path) -> None:
    ours = Journal.open(path, create=True)
    ours.append(EVENTS[0])
    path.with_suffix(".lock").unlink()  # so that the lock of the next is another one
    theirs = Journal.open(path, create=False)
    theirs.append(EVENTS[1])
    with pytest.raises(JournalError, match="another one writes it too"):
        ours.append(EVENTS[1])
    assert Journal.read(path) == EVENTS[:2]
    theirs.append(EVENTS[2])
    with pytest.raises(JournalError, match="is closed"):
        ours.append(EVENTS[2])
    theirs.close()
    assert Journal.read(path) == EVENTS[:3]
