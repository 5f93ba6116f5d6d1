import json
import math
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import optuna
import pytest
from closed_form import open_history, score, study
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from search.cell import cell_key
from search.command_line import DONE, INTERRUPTED, USER_ERROR
from search.events import Ended, EndState, Event, Measured, Proposed, SessionClosed, Started
from search.export import main
from search.history import History
from search.ledger import Ledger
from search.record import TrialRecord, write_trials
from search.study import StudySpec

METRIC = "validation_log_likelihood"
BEGUN = datetime(2026, 3, 1, 12, tzinfo=UTC)
SPACE = {  # a branch for each optimiser
    "optimizer": {"type": "categorical", "choices": ["sgd", "adam"]},
    "learning_rate": [
        {"type": "float", "low": 0.001, "high": 1.0, "log": True, "when": {"optimizer": "sgd"}},
        {"type": "float", "low": 1e-4, "high": 0.1, "log": True, "when": {"optimizer": "adam"}},
    ],
    "d_dropout": {"type": "float", "low": 0.0, "high": 0.6, "step": 0.1},
    "d_steps": {"type": "int", "low": 1, "high": 4},
}
SPEC: StudySpec = study(
    space=SPACE,
    stages=[{"kind": "model", "trials": 20}],
    budget={"kimg_per_trial": 400.0, "measure_kimg": 100.0, "trials": 20},
    objective={"metric": METRIC, "constraints": ["label_accuracy >= 0.9"]},
)
ENDS: list[tuple[EndState | None, str | None, float]] = [
    ("COMPLETED", None, 400.0),
    ("STOPPED", "asha", 200.0),
    ("INFEASIBLE", "loss is nan at 150 kimg", 100.0),
    ("FAILED", "its process died", 100.0),
    ("COMPLETED", None, 400.0),
    ("COMPLETED", None, 400.0),  # the best score, but it breaks the constraint
    ("STOPPED", "by request: poor", 0.0),
    (None, None, 300.0),
]


def course(number: int) -> list[Event]:
    """One trial, an hour after the one before."""
    adam, (state, reason, last) = number % 2 == 1, ENDS[number]
    params = {
        "optimizer": "adam" if adam else "sgd",
        "learning_rate": 0.1,
        "d_dropout": (0.6, 0.5, 0.5, 0.5, 0.2, 0.3, 0.1, 0.0)[number],
        "d_steps": 1 + number % 4,
    }
    at = BEGUN + timedelta(hours=number)
    key = cell_key(params)
    events: list[Event] = [
        Proposed(
            at=at,
            number=number,
            stage="model",
            stage_index=0,
            params=params,
            cell=key,
            seed=number,
        ),
        Started(
            at=at + timedelta(minutes=1), number=number, attempt=0, node="n", device="cpu", pid=1
        ),
    ]
    for kimg in range(100, round(last) + 1, 100):
        metrics = {
            METRIC: score(params, kimg) + (5.0 if kimg == 200 else 0.0),
            "standard_error": 0.5,
            "label_accuracy": 0.5 if number == 5 else 0.95,
        }
        events.append(
            Measured(
                at=at + timedelta(minutes=2),
                number=number,
                kimg=float(kimg),
                elapsed_seconds=float(kimg),
                metrics=metrics,
            )
        )
    if state is not None:
        end = at + timedelta(minutes=30)
        events.append(Ended(at=end, number=number, state=state, reason=reason))
    return events


@pytest.fixture
def output(tmp_path: Path) -> Path:
    """A study of eight trials that is put down with one of them unfinished."""
    folder = tmp_path / "out"
    with open_history(folder, SPEC) as history:
        for number in range(len(ENDS)):
            for event in course(number):
                history.append(event)
        history.append(SessionClosed(reason="interrupted"))
        write_study(history)
    row = TrialRecord(
        number=4,
        stage="model",
        state="COMPLETED",
        run_id="abc",
        dataset_digest="",
        protocol_digest="",
    )
    write_trials(folder, [row])
    return folder


def write_study(history: History) -> None:
    assert history.ledger.study is not None
    content = history.ledger.study.model_dump(mode="json", exclude={"event"}) | {
        "dataset": {},
        "validation_lines": {"untrained": -1000.0, "real_data": -20.0, "guardrails": {}},
    }
    (history.folder / "study.json").write_text(json.dumps(content))


def exported(output: Path, file: Path, *words: str) -> optuna.Study:
    assert main([str(output), "--optuna", str(file), *words]) == DONE
    storage = JournalStorage(JournalFileBackend(str(file)))
    return optuna.load_study(study_name=None, storage=storage)


def values(trial: FrozenTrial, name: str) -> Any:
    return trial.user_attrs[name]


def test_optuna_sees_the_study_as_it_was(output: Path, tmp_path: Path) -> None:
    seen = exported(output, tmp_path / "any.journal")
    assert seen.study_name == "closed_form"
    assert seen.direction == optuna.study.StudyDirection.MAXIMIZE
    assert seen.metric_names == [METRIC]
    assert [trial.number for trial in seen.trials] == list(range(8))
    assert [trial.state for trial in seen.trials] == [
        TrialState.COMPLETE,
        TrialState.PRUNED,
        TrialState.COMPLETE,
        TrialState.FAIL,
        TrialState.COMPLETE,
        TrialState.COMPLETE,
        TrialState.PRUNED,
        TrialState.RUNNING,
    ]
    for number, trial in enumerate(seen.trials):
        assert values(trial, "state") == (ENDS[number][0] or "RUNNING")
        assert trial.user_attrs.get("reason") == ENDS[number][1]
        assert (values(trial, "stage"), values(trial, "seed")) == ("model", number)
        branch = "adam" if number % 2 else "sgd"
        rate = f"learning_rate[optimizer={branch}]"
        assert trial.params.keys() == {"optimizer", rate, "d_dropout", "d_steps"}
        assert trial.params[rate] == 0.1
        assert trial.distributions[rate] == optuna.distributions.FloatDistribution(
            *((1e-4, 0.1) if number % 2 else (0.001, 1.0)), log=True
        )


def test_the_best_trial_is_ours(output: Path, tmp_path: Path) -> None:
    seen = exported(output, tmp_path / "any.journal")
    with History.resume(output) as history:
        ledger: Ledger = history.ledger
    best = ledger.incumbent(METRIC, constraints=SPEC.objective.bounds)
    assert best is not None
    objective = best.objective(METRIC)
    assert objective is not None
    assert (
        (seen.best_trial.number, seen.best_value)
        == (best.number, objective.value)
        == (
            4,
            seen.trials[4].user_attrs["objective"],
        )
    )
    assert seen.user_attrs["best_number"] == 4
    assert seen.trials[5].value is not None
    assert seen.trials[5].value > seen.best_value
    assert seen.best_trial.user_attrs["run_id"] == "abc"
    flags = {n: trial.user_attrs["flags"] for n, trial in enumerate(seen.trials)}
    assert {n: found for n, found in flags.items() if found} == {5: ["above_real_data"]}


def test_courses_times_and_constraints(output: Path, tmp_path: Path) -> None:
    seen = exported(output, tmp_path / "any.journal")
    stopped, infeasible = seen.trials[1], seen.trials[2]
    # Optuna is told the best so far, in steps of one image.
    assert [*stopped.intermediate_values] == [100_000, 200_000]
    assert stopped.intermediate_values[200_000] == stopped.user_attrs["objective"]
    course = [seen.trials[0].intermediate_values[1000 * kimg] for kimg in (100, 200, 300, 400)]
    assert course == sorted(course)
    assert [n for n, t in enumerate(seen.trials) if t.constraints["diverged"] > 0] == [2]
    broken = [n for n, t in enumerate(seen.trials) if t.constraints["label_accuracy >= 0.9"] > 0]
    assert 5 in broken
    assert 0 not in broken
    # The dashboard's own form, of whom the first is the one that diverged.
    listed = [trial.system_attrs["constraints"] for trial in seen.trials]
    assert [n for n, found in enumerate(listed) if found[0] > 0] == [2]
    assert infeasible.value is not None
    assert math.isfinite(infeasible.value)
    for number, trial in enumerate(seen.trials):
        begun = BEGUN + timedelta(hours=number, minutes=1)
        assert trial.datetime_start is not None
        assert trial.datetime_start.astimezone(UTC) == begun
        if number == 7:
            assert trial.datetime_complete is None
        else:
            assert trial.duration == timedelta(minutes=29)


def test_a_file_is_replaced_only_when_told_to(
    output: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "any.journal"
    file.write_text("mine")
    assert main([str(output), "--optuna", str(file)]) == USER_ERROR
    assert capsys.readouterr().err == f"{file}: exists already; give --force to replace it\n"
    assert file.read_text() == "mine"
    assert len(exported(output, file, "--force").trials) == 8
    assert {path.name for path in tmp_path.iterdir()} == {"out", "any.journal"}


def test_a_folder_without_a_study(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path), "--optuna", str(tmp_path / "any.journal")]) == USER_ERROR
    assert "must be the folder of a study" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_plots_can_be_made(output: Path, tmp_path: Path) -> None:
    pytest.importorskip("plotly")
    seen = exported(output, tmp_path / "any.journal")
    for plot in (
        optuna.visualization.plot_optimization_history,
        optuna.visualization.plot_intermediate_values,
        optuna.visualization.plot_parallel_coordinate,
        optuna.visualization.plot_slice,
        optuna.visualization.plot_timeline,
    ):
        assert plot(seen).data


def test_ctrl_c_is_no_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def cut(*_: object, **__: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr("search.export.export", cut)
    assert main(["study", "--optuna", "x.journal"]) == INTERRUPTED
    assert capsys.readouterr() == ("", "")
