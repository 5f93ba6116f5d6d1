"""A study of two workers is trained again as a whole: bit for bit, with its own decisions."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tiny_study import content, write_npz

from search import run_study
from search.events import Event, Measured, RunKey, to_line
from search.history import JOURNAL_NAME
from search.journal import Journal
from search.rerun import main
from search.study import StudySpec

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("worker_settings")]

CHANGES = {
    "scheduler": {"kind": "asha", "grace_kimg": 0.4, "reduction_factor": 2, "paired": True},
    "confirm": {"top": 1, "seeds": 1},
}


@pytest.fixture(scope="module")
def recorded(local_ray: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("recorded")
    spec = StudySpec.from_mapping(content(write_npz(folder / "tiny.npz"), **CHANGES))
    output, uri = folder / "out", f"sqlite:///{folder / 'mlflow.db'}"
    run_study(spec, output, tracking_uri=uri, progress=False, max_concurrent=2)
    return output


def replayed(capfd: pytest.CaptureFixture[str], folder: Path) -> tuple[int, dict[str, Any], str]:
    capfd.readouterr()
    code = main([str(folder), "--replay", "--jobs", "2", "--json"])
    out, err = capfd.readouterr()
    return code, json.loads(out), err


def test_a_study_is_the_same_again(recorded: Path, capfd: pytest.CaptureFixture[str]) -> None:
    files = {path: path.stat().st_mtime_ns for path in recorded.rglob("*")}
    code, found, err = replayed(capfd, recorded)
    assert (code, found["verdict"], found["recorded_elsewhere"]) == (0, "equal", None)
    assert found["runs"]["equal"] == found["runs"]["of"] == 6
    assert found["proposals"] == {"equal": 5, "of": 5}
    assert found["decisions"]["equal"] == found["decisions"]["of"] > 7
    assert err.count(": equal, ") == 6
    assert {path: path.stat().st_mtime_ns for path in recorded.rglob("*")} == files


def test_a_measurement_that_was_changed_is_told_apart_from_decisions(
    recorded: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """What is decided on is what was measured again, so decisions are equal."""
    for name in (JOURNAL_NAME, "study.json"):
        shutil.copy(recorded / name, tmp_path)
    events = Journal.read(tmp_path / JOURNAL_NAME)

    def changed(event: Event) -> Event:
        if not isinstance(event, Measured) or event.run != RunKey(1):
            return event
        score = {"validation_log_likelihood": 1e6}
        return event.model_copy(update={"metrics": event.metrics | score})

    lines = b"".join(to_line(changed(event)) for event in events)
    (tmp_path / JOURNAL_NAME).write_bytes(lines)
    code, found, _ = replayed(capfd, tmp_path)
    assert (code, found["verdict"]) == (1, "different")
    runs = found["runs"]
    assert (runs["equal"], runs["different"]) == (5, 1)
    first = runs["first_difference"]
    assert (first["number"], first["metric"]) == (1, "validation_log_likelihood")
    assert (first["kimg"], first["recorded"]) == (0.2, 1e6)
    assert found["first_difference"] is None


def test_an_interrupted_replay_leaves_nothing(recorded: Path, tmp_path: Path) -> None:
    files = {path: path.stat().st_mtime_ns for path in recorded.rglob("*")}
    command = [sys.executable, "-m", "search.rerun", str(recorded), "--replay", "--jobs", "1"]
    with subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, env=os.environ | {"TMPDIR": str(tmp_path)}
    ) as process:
        assert process.stderr is not None
        while " of 6 " not in process.stderr.readline():
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        rest = process.stderr.read()
    assert process.returncode == 130
    assert "Traceback" not in rest
    assert list(tmp_path.iterdir()) == []
    assert {path: path.stat().st_mtime_ns for path in recorded.rglob("*")} == files
