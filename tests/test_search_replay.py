"""A study's proposals and decisions follow from its journal, and its journal from its spec."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from closed_form import Fault, study
from fake_pool import drive
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_schedulers import SCHEDULERS, noisy

from search.events import (
    ConfirmationOpened,
    Ended,
    Event,
    Measured,
    Promoted,
    Proposed,
    RaceOpened,
    Replicated,
    RunKey,
    StudyOpened,
    to_line,
)
from search.history import JOURNAL_NAME
from search.journal import Journal
from search.lines import Lines
from search.refold import Refold
from search.replay import Replay, replay
from search.rerun import main
from search.study import StudySpec

METRIC = "validation_log_likelihood"
LINES = Lines(untrained=-1e9, real_data=1e9)  # as the fake pool has them


def spec_of(name: str, seeds: int) -> StudySpec:
    scheduler = SCHEDULERS[name]
    return study(grid=6, model=3, scheduler=scheduler, replication={"seeds": seeds})


def replayed(folder: Path) -> Replay:
    return replay(folder, train=False, tolerance=1e-3, say=print)


@pytest.mark.parametrize("seeds", [1, 3])
@pytest.mark.parametrize("name", SCHEDULERS)
@settings(max_examples=2, deadline=None)
@given(
    seed=st.integers(0, 1000),
    kills=st.lists(st.integers(1, 60), max_size=3),
    workers=st.integers(1, 5),
    broken=st.dictionaries(
        st.integers(0, 9), st.sampled_from(["raise", "infeasible"]), max_size=2
    ),
)
def test_any_study_replays_as_it_was_through_any_kills(
    tmp_path_factory: pytest.TempPathFactory,
    name: str,
    seeds: int,
    seed: int,
    kills: list[int],
    workers: int,
    broken: dict[int, Any],
) -> None:
    folder = tmp_path_factory.mktemp(name)
    faults = {number: Fault(kind, 150.0) for number, kind in broken.items()}
    runs = noisy(folder, points=name == "paired", faults=faults)
    events = drive(spec_of(name, seeds), folder, kills, runs=runs, seed=seed, workers=workers)
    found = replayed(folder)
    assert found.first_difference is None
    assert found.verdict == "equal"
    assert found.equal("proposal") == (10, 10)
    stopped = sum(isinstance(e, Ended) and e.state == "STOPPED" for e in events)
    promoted = sum(isinstance(e, Promoted) for e in events)
    assert found.equal("decision")[1] >= stopped + promoted


@pytest.fixture
def halved(tmp_path: Path) -> Path:
    """A study of one run a trial under successive halving."""
    drive(spec_of("asha", 1), tmp_path, (20,), runs=noisy(tmp_path), workers=2)
    return tmp_path


def rewrite(folder: Path, change: Callable[[int, Event], Event]) -> None:
    """Changes events of a journal, each by its line."""
    path = folder / JOURNAL_NAME
    events = Journal.read(path)
    path.write_bytes(b"".join(to_line(change(n, e)) for n, e in enumerate(events, start=1)))


def scored(at: int, value: float) -> Callable[[int, Event], Event]:
    """Another score of the measurement on a line."""

    def change(line: int, event: Event) -> Event:
        if line != at:
            return event
        assert isinstance(event, Measured)
        return event.model_copy(update={"metrics": event.metrics | {METRIC: value}})

    return change


def last_measured(folder: Path, key: RunKey) -> int:
    """The line of a run's last measurement."""
    events = enumerate(Journal.read(folder / JOURNAL_NAME), start=1)
    return max(line for line, e in events if isinstance(e, Measured) and e.run == key)


def ended(folder: Path, state: str) -> RunKey:
    events = Journal.read(folder / JOURNAL_NAME)
    return next(e.run for e in events if isinstance(e, Ended) and e.state == state)


def test_a_stop_that_the_measurements_do_not_ask_for_is_named(halved: Path) -> None:
    key = ended(halved, "STOPPED")
    line = last_measured(halved, key)
    rewrite(halved, scored(line, 1000.0))
    first = replayed(halved).first_difference
    assert first is not None
    assert (first.kind, first.line) == ("decision", line)
    assert first.subject.startswith(f"trial {key.number} at ")
    assert (first.recorded, first.now) == ("stops (asha)", "goes on")


def test_a_trial_that_went_on_though_it_was_behind_is_named(halved: Path) -> None:
    events = Journal.read(halved / JOURNAL_NAME)
    whole = {e.run for e in events if isinstance(e, Ended) and e.state == "COMPLETED"}
    late = max(whole)  # by then there is somebody ahead
    lines = [n for n, e in enumerate(events, 1) if isinstance(e, Measured) and e.run == late]
    for line in lines:
        rewrite(halved, scored(line, -1e6))
    first = replayed(halved).first_difference
    assert first is not None
    assert (first.kind, first.line) == ("decision", lines[0])
    assert (first.recorded, first.now) == ("goes on", "stops (asha)")


def test_other_measurements_give_other_proposals(tmp_path: Path) -> None:
    drive(study(grid=11, model=3), tmp_path)
    rewrite(tmp_path, scored(last_measured(tmp_path, RunKey(1)), 1000.0))
    found = replayed(tmp_path)
    first = found.first_difference
    assert first is not None
    assert (first.kind, found.verdict) == ("proposal", "different")
    assert int(first.subject.removeprefix("trial ")) >= 12  # where the model begins
    assert first.recorded.startswith("model (stage 2) {")
    assert first.now != first.recorded
    assert found.equal("proposal")[0] < 15


def test_what_was_measured_again_takes_the_place_of_the_record(halved: Path) -> None:
    key = ended(halved, "STOPPED")
    events = Journal.read(halved / JOURNAL_NAME)
    line = last_measured(halved, key)
    judged = events[line - 1]
    assert isinstance(judged, Measured)
    refold = Refold(spec_of("asha", 1), halved, {(key, judged.kimg): {METRIC: 1000.0}})
    for number, event in enumerate(events, start=1):
        refold.take(number, event)
    first = min((one for one in refold.judgements if not one.equal), key=lambda one: one.line)
    assert (first.line, first.now) == (line, "goes on")


def test_another_promotion_is_named(tmp_path: Path) -> None:
    spec = study(grid=11, model=0, scheduler=SCHEDULERS["promotion"])
    events = drive(spec, tmp_path, workers=2)
    at, promoted = next((n, e) for n, e in enumerate(events, 1) if isinstance(e, Promoted))
    rewrite(tmp_path, scored(last_measured_before(events, at, promoted.number), -1e6))
    first = replayed(tmp_path).first_difference
    assert first is not None
    assert (first.kind, first.subject, first.line) == ("decision", "the next place", at)
    assert first.recorded == f"trial {promoted.number} promoted from 100 kimg"
    assert first.now != first.recorded


def last_measured_before(events: list[Event], at: int, number: int) -> int:
    before = enumerate(events[:at], start=1)
    return max(line for line, e in before if isinstance(e, Measured) and e.number == number)


def refolded(spec: StudySpec, folder: Path) -> Refold:
    refold = Refold(spec, folder, {}, LINES)
    for number, event in enumerate(Journal.read(folder / JOURNAL_NAME), start=1):
        refold.take(number, event)
    return refold


@pytest.mark.parametrize("kills", [(), (75, 30, 10)])
def test_races_and_confirmations_follow_too(tmp_path: Path, kills: tuple[int, ...]) -> None:
    spec = study(
        grid=6,
        model=0,
        replication={"seeds": 3, "adaptive": True},
        confirm={"top": 2, "seeds": 3},
    )
    events = drive(spec, tmp_path, kills, runs=noisy(tmp_path))
    claimed = [event for event in events if isinstance(event, Replicated)]
    assert {event.purpose for event in claimed} == {"race", "confirmation"}
    refold = refolded(spec, tmp_path)
    assert all(one.equal for one in refold.judgements)
    decisions = [one for one in refold.judgements if one.kind == "decision"]
    openings = [e for e in events if isinstance(e, RaceOpened | ConfirmationOpened)]
    assert len(decisions) == len(claimed) + len(openings)
    found = replayed(tmp_path)  # without lines on record
    assert found.given["race_opened"] + found.given["confirmation_opened"] == len(openings)

    opened = next(n for n, e in enumerate(events, 1) if isinstance(e, ConfirmationOpened))
    best = events[opened - 1]
    assert isinstance(best, ConfirmationOpened)
    for line, event in enumerate(events[:opened], 1):
        if isinstance(event, Measured) and event.number == best.numbers[0]:
            rewrite(tmp_path, scored(line, -1e3))
    unequal = [one for one in refolded(spec, tmp_path).judgements if not one.equal]
    assert "the next phase" in {one.subject for one in unequal}


def test_ends_by_the_clock_or_on_request_are_taken_as_given(halved: Path) -> None:
    key = ended(halved, "STOPPED")

    def by_request(line: int, event: Event) -> Event:
        if isinstance(event, Ended) and event.run == key:
            return event.model_copy(update={"reason": "time_budget"})
        return event

    before = replayed(halved)
    rewrite(halved, by_request)
    found = replayed(halved)
    assert found.given["time_budget"] == 1
    assert found.equal("decision")[1] == before.equal("decision")[1] - 1


def run(capfd: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    capfd.readouterr()
    code = main(words)
    out, err = capfd.readouterr()
    assert "Traceback" not in err
    return code, out, err


def test_another_version_of_optuna_is_told_first(halved: Path) -> None:
    def recorded_long_ago(line: int, event: Event) -> Event:
        if not isinstance(event, StudyOpened):
            return event
        return event.model_copy(update={"versions": {"optuna": "1.0"}})

    rewrite(halved, recorded_long_ago)
    said: list[str] = []
    found = replay(halved, train=False, tolerance=1e-3, say=said.append)
    assert said[0].startswith("recorded with optuna 1.0, here ")
    assert found.note == said[0]


def test_the_command_says_what_is_equal(halved: Path, capfd: pytest.CaptureFixture[str]) -> None:
    files = {path: path.stat().st_mtime_ns for path in halved.rglob("*")}
    code, out, _ = run(capfd, str(halved), "--replay", "--proposals-only")
    assert code == 0
    assert out.startswith("runs       as recorded: nothing was trained\nproposals  10 of 10 equal")
    code, out, _ = run(capfd, str(halved), "--replay", "--proposals-only", "--json")
    found = json.loads(out)
    assert (code, found["verdict"], found["runs"]) == (0, "equal", None)
    assert found["proposals"] == {"equal": 10, "of": 10}
    assert found["decisions"]["equal"] == found["decisions"]["of"] > 10
    assert found["first_difference"] is None
    assert {path: path.stat().st_mtime_ns for path in halved.rglob("*")} == files

    line = last_measured(halved, ended(halved, "STOPPED"))
    rewrite(halved, scored(line, 1000.0))
    code, out, _ = run(capfd, str(halved), "--replay", "--proposals-only")
    assert code == 1
    assert f"(line {line} of the journal): recorded stops (asha), now goes on" in out
    code, out, _ = run(capfd, str(halved), "--replay", "--proposals-only", "--json")
    assert (code, json.loads(out)["first_difference"]["line"]) == (1, line)


def test_what_cannot_be_replayed_is_told_in_one_message(
    halved: Path, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def refused(*words: str) -> str:
        code, out, err = run(capfd, *words)
        assert (code, out, err.count("\n")) == (2, "", 1)
        return err

    folder = str(halved)
    assert "is this the folder of a study?" in refused(str(halved / "nope"), "--replay")
    assert "study.json: is missing" in refused(folder, "--replay")
    assert "--until-kimg: only without" in refused(folder, "--replay", "--until-kimg", "1")
    assert "--jobs: only with --replay" in refused(f"{folder}:0", "--jobs", "2")
    assert "--proposals-only: only with" in refused(f"{folder}:0", "--proposals-only")
    assert "must be at least 1" in refused(folder, "--replay", "--jobs", "0")

    opened = json.loads((halved / JOURNAL_NAME).read_text().splitlines()[0])
    (halved / "study.json").write_text(json.dumps(opened | {"dataset": {}, "study_id": "f" * 32}))
    assert "must be of the study in journal.jsonl" in refused(folder, "--replay")

    lines = (halved / JOURNAL_NAME).read_bytes().splitlines(keepends=True)
    other = json.loads(lines[0])
    other["spec"]["scheduler"]["kind"] = "pbt3"
    (halved / JOURNAL_NAME).write_bytes(json.dumps(other).encode() + b"\n" + b"".join(lines[1:]))
    message = refused(folder, "--replay", "--proposals-only")
    assert "journal.jsonl:1: `spec` must be one of this program, but: scheduler.kind" in message
    proposed = next(n for n, e in enumerate(lines) if b'"proposed"' in e)
    (halved / JOURNAL_NAME).write_bytes(b"".join(lines[:proposed]))
    assert "holds no trial yet" in refused(folder, "--replay", "--proposals-only")
    (halved / JOURNAL_NAME).write_bytes(b"".join(lines[:proposed] + lines[proposed + 1 :]))
    message = refused(folder, "--replay", "--proposals-only")
    assert f"journal.jsonl:{proposed + 1}: must hold events as they were written" in message


def test_another_seed_is_another_proposal(halved: Path) -> None:
    events = Journal.read(halved / JOURNAL_NAME)
    at = next(n for n, e in enumerate(events, 1) if isinstance(e, Proposed) and e.number == 4)

    def other(line: int, event: Event) -> Event:
        return event.model_copy(update={"seed": 5}) if line == at else event

    rewrite(halved, other)
    first = replayed(halved).first_difference
    assert first is not None
    assert (first.kind, first.line, first.subject) == ("proposal", at, "trial 4")
    assert "seeds 5" in first.recorded
