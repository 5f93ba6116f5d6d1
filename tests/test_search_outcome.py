"""Who wins, who is flagged, and what is written at the end."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from tiny_events import proposed
from tiny_study import content, write_npz

from cgan_core.data import load_data
from cgan_core.evaluation import Evaluator, protocol_for
from cgan_core.guardrails import Limits
from cgan_core.model import Model
from search.data_source import DataSource
from search.events import (
    Checkpointed,
    Ended,
    Event,
    Measured,
    SessionOpened,
    Started,
)
from search.gan_run import GANRuns
from search.history import History
from search.ledger import Ledger
from search.lines import Lines
from search.outcome import Closing, trial_flags, winner_of
from search.seat import OwnSeat
from search.study import StudySpec

LINES = Lines(untrained=-50.0, real_data=200.0)

pytestmark = pytest.mark.usefixtures("worker_settings")


def course(
    number: int,
    values: list[float],
    state: str = "COMPLETED",
    more: Sequence[Mapping[str, float]] = (),
) -> list[Event]:
    """A trial that measured `values`, one a kimg, and `more` beside them."""
    params: dict[str, float | int | str | bool] = {
        "learning_rate": 0.01 + number / 100,
        "d_dropout": 0.0,
    }
    events: list[Event] = [
        proposed(number, params),
        Started(number=number, attempt=0, node="here", device="cpu", pid=1),
    ]
    for kimg, value in enumerate(values, start=1):
        metrics = {"validation_log_likelihood": value, "standard_error": 1.5}
        metrics |= more[kimg - 1] if more else {}
        events.append(Measured(number=number, kimg=kimg, elapsed_seconds=kimg, metrics=metrics))
    reason = None if state in ("COMPLETED", "STOPPED") else "for a reason"
    events.append(Ended(number=number, state=state, reason=reason))
    return events


def ledger(*courses: list[Event]) -> Ledger:
    opened: list[Event] = [SessionOpened(pid=1)]
    return Ledger(opened + [event for events in courses for event in events])


@pytest.fixture
def spec(tmp_path: Path) -> StudySpec:
    return StudySpec.from_mapping(content(write_npz(tmp_path / "tiny.npz")))


def test_the_best_measurement_wins(spec: StudySpec) -> None:
    found = winner_of(spec, ledger(course(0, [-40, 10, 5]), course(1, [9, 9], "STOPPED")), LINES)
    assert found is not None
    assert found.number == 0


def test_nobody_wins_who_is_no_better_than_untrained(spec: StudySpec) -> None:
    assert winner_of(spec, ledger(course(0, [-60, -50]), course(1, [-55])), LINES) is None
    assert winner_of(spec, ledger(), LINES) is None


def test_the_infeasible_and_the_failed_win_nothing(spec: StudySpec) -> None:
    trials = ledger(course(0, [50], "INFEASIBLE"), course(1, [40], "FAILED"), course(2, [30]))
    found = winner_of(spec, trials, LINES)
    assert found is not None
    assert found.number == 2


@pytest.mark.parametrize(("pooled", "wins"), [(-60.0, False), (-50.0, False), (-49.0, True)])
def test_the_line_gates_the_pooled_score_whatever_is_searched_for(
    tmp_path: Path, pooled: float, wins: bool
) -> None:
    spec = StudySpec.from_mapping(
        content(tmp_path / "tiny.npz", objective={"metric": "label_accuracy"})
    )
    events = course(0, [0.0])
    metrics = {"label_accuracy": 0.4, "validation_log_likelihood": pooled}
    events[2] = Measured(number=0, kimg=1, elapsed_seconds=1, metrics=metrics)
    assert (winner_of(spec, ledger(events), LINES) is not None) == wins


def test_above_real_data_is_flagged(spec: StudySpec) -> None:
    trials = ledger(course(0, [202.9]), course(1, [203.1, 100]), course(2, []))
    assert trial_flags(spec, trials, LINES) == {1: ("above_real_data",)}
    assert not LINES.above_real_data(200.0, None)


def test_what_is_no_better_than_untrained_is_flagged(spec: StudySpec) -> None:
    trials = ledger(course(0, [-50.0]), course(1, [-49.9]), course(2, [-60.0, -70.0]))
    assert trial_flags(spec, trials, LINES) == {0: ("below_untrained",), 2: ("below_untrained",)}


def test_guardrails_flag_the_generator_that_is_kept(spec: StudySpec) -> None:
    """At the best measurement of the objective, whatever the others were."""
    limits = Limits(label_accuracy=0.5, memorization_ratio=0.5, sharpness=0.8)
    lines = Lines(untrained=-50.0, real_data=200.0, guardrails=limits)
    kept = {"label_accuracy": 0.4, "memorization_ratio": 0.6, "sharpness": 0.9}
    other = {"memorization_ratio": 0.1, "missing_classes": 2.0}
    trials = ledger(
        course(0, [10.0, 300.0], more=[other, kept]),
        course(1, [20.0, 10.0], more=[other, kept]),
        course(2, [30.0], more=[{"sharpness": 0.7}]),
        course(3, [30.0], more=[{"label_accuracy": 0.5, "missing_classes": 0.0}]),
    )
    assert trial_flags(spec, trials, lines) == {
        0: ("above_real_data", "ignores_labels"),
        1: ("memorizes", "missing_classes"),
        2: ("blurred",),
    }


def test_lines_are_read_as_they_were_written() -> None:
    lines = Lines(untrained=-50.0, real_data=200.0, guardrails=Limits(sharpness=0.8))
    assert Lines.from_mapping(json.loads(json.dumps(dataclasses.asdict(lines)))) == lines
    assert Lines.from_mapping({"untrained": -50.0, "real_data": 200.0}) == LINES


@pytest.fixture
def evaluator(tmp_path: Path, spec: StudySpec) -> Evaluator:
    splits = load_data(path=tmp_path / "tiny.npz", seed=spec.seed)
    return Evaluator(splits, protocol_for(splits, spec.seed))


def test_without_a_winner_best_is_null(
    tmp_path: Path, spec: StudySpec, evaluator: Evaluator
) -> None:
    trials = ledger(course(0, [-60]), course(1, [], "FAILED"))
    with History.create(tmp_path / "out") as history:
        history.ledger = trials
        closing = Closing(spec, history, evaluator, LINES, print)
        summary = closing.write({}, "sqlite:///x")
    assert summary["best"] is summary["test"] is summary["references"] is None
    assert summary["trials"] == {"completed": 1, "stopped": 0, "infeasible": 0, "failed": 1}
    assert json.loads((tmp_path / "out" / "summary.json").read_text()) == summary
    assert not (tmp_path / "out" / "best").exists()


def trained(runs: GANRuns) -> list[Event]:
    """Trial 0, trained for real, with its state in `saved/`."""
    params: dict[str, float | int | str | bool] = {"learning_rate": 0.1, "d_dropout": 0.0}
    seat = OwnSeat(runs)
    trial = {"number": 0, "replicate": 0, "seed": 5, "threads": 1, "params": params}
    seat.open(trial | {"fold": None, "noise_draw": 0}, None)
    events: list[Event] = [
        SessionOpened(pid=1),
        proposed(0, params, "manual"),
        Started(number=0, attempt=0, node="here", device="cpu", pid=1),
    ]
    done = False
    while not done:
        progress = seat.step(60.0)
        assert progress.metrics is not None
        metrics = dict(progress.metrics)
        events.append(Measured(number=0, kimg=progress.kimg, elapsed_seconds=1, metrics=metrics))
        done = progress.done
    saved = runs.output / "saved"
    saved.mkdir(parents=True)
    seat.save(saved)
    checkpointed = Checkpointed(number=0, kimg=0.8, path=saved.name)
    return [*events, checkpointed, Ended(number=0, state="COMPLETED")]


def test_the_winner_is_the_state_at_its_best_score(
    tmp_path: Path, spec: StudySpec, evaluator: Evaluator
) -> None:
    """What `best/` holds scores what the record promises."""
    out = tmp_path / "out"
    source = DataSource(path=str(tmp_path / "tiny.npz"), seed=spec.seed, subset=False)
    events = trained(GANRuns(source, evaluator.protocol, spec.model, 0.8, 0.2, out))
    lines = Lines(untrained=-1e9, real_data=-1e8)
    said: list[str] = []
    with History.create(out) as history:
        for event in events:
            history.append(event)
        closing = Closing(spec, history, evaluator, lines, said.append)
        summary = closing.write({0: "the-run"}, "sqlite:///x")
        assert said == ["scoring the winner on the test set"]
        assert closing.write({0: "the-run"}, "sqlite:///x") == summary  # by the record of the look
        assert len(said) == 1
    best = summary["best"]
    assert best["run_id"] == "the-run"
    assert best["flags"][0] == "above_real_data"
    assert best["metrics"].keys() >= {"label_accuracy", "precision", "memorization_ratio"}
    assert best["standard_error"] == best["metrics"]["standard_error"]
    model = Model.load(out / "best")
    samples = evaluator.draw(model.images, model.config)
    again = evaluator.validation(samples)
    assert again.log_likelihood == best["objective"]
    tested = evaluator.test(samples, evaluator.bandwidth(samples))
    assert tested.log_likelihood == summary["test"]["log_likelihood"]
    assert summary["test"]["num_points"] == len(evaluator.splits.test.images)
    assert summary["references"].keys() >= {"real_data", "kmeans", "untrained"}
