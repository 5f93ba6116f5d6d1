import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from closed_form import open_history, score, study

from search.domains import Params
from search.events import Ended, Measured, Started
from search.learning_curves import ClosedFormCurves, RecordedCurves
from search.proposer import Proposer
from search.record import write_json_atomic, write_record
from search.simulate import main
from search.study import StudySpec


def write_study(folder: Path, spec: StudySpec, states: Sequence[str]) -> None:
    """A study folder whose curves are those of the fake trainer."""
    digests = {"dataset_digest": "d", "protocol_digest": "p"}
    with open_history(folder, spec) as history:
        for number, state in enumerate(states):
            proposed = Proposer(spec).propose(history.ledger)
            assert proposed is not None
            history.append(proposed)
            history.append(Started(number=number, attempt=0, node="n", device="cpu", pid=1))
            for kimg in (100.0, 200.0, 300.0, 400.0)[: 4 if state == "COMPLETED" else 1]:
                metrics = {"validation_log_likelihood": score(proposed.params, kimg)}
                history.append(
                    Measured(number=number, kimg=kimg, elapsed_seconds=9 * kimg, metrics=metrics)
                )
            history.append(Ended(number=number, state=state, reason="so"))
        write_record(history.ledger, folder, "d", "p", {})
    content = {"spec": spec.model_dump(mode="json"), "dataset": {}, **digests}
    write_json_atomic(folder / "study.json", content)


@pytest.fixture
def record(tmp_path: Path) -> Path:
    """Ten trials, of which two were stopped and one broke."""
    states = ["COMPLETED"] * 7 + ["STOPPED"] * 2 + ["INFEASIBLE"]
    spec = study(grid=9, model=0, scheduler={"kind": "asha", "grace_kimg": 200.0})
    write_study(tmp_path, spec, states)
    return tmp_path


def report(capsys: pytest.CaptureFixture[str], *words: object) -> dict[str, Any]:
    assert main([*map(str, words), "--json"]) == 0
    out: dict[str, Any] = json.loads(capsys.readouterr().out)
    return out


def test_a_proposal_takes_the_curve_of_the_nearest_recorded_one(record: Path) -> None:
    curves = RecordedCurves(record)
    best = {"learning_rate": 0.1, "d_dropout": 0.3}
    curve = curves.curve(0, {"learning_rate": 0.11, "d_dropout": 0.31})
    assert list(curve.values) == [score(best, kimg) for kimg in (100, 200, 300, 400)]
    assert list(curve.seconds) == [900, 1800, 2700, 3600]
    assert curve.truth == curves.optimum == score(best, 400)
    assert curves.left_out == 2


def test_a_recorded_trial_that_broke_breaks_again(record: Path) -> None:
    curves = RecordedCurves(record)
    broken = [c for c in curves._curves if c.infeasible]
    assert [len(c.values) for c in broken] == [1]
    assert broken[0].truth == min(c.truth for c in curves._curves)


def test_a_record_is_replayed_under_its_own_rungs(
    record: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = report(capsys, record, "--scheduler", "asha", "none", "--trials", 30)
    assert (found["grace_kimg"], found["reduction_factor"], found["left_out"]) == (200, 3, 2)
    asha, none = found["schedulers"]["asha"], found["schedulers"]["none"]
    assert none["trials"]["stopped"] == 0
    assert asha["trials"]["stopped"] > 0
    assert asha["device_hours"] < none["device_hours"]
    assert none["device_hours"] == pytest.approx(
        none["trials"]["completed"] + 0.25 * none["trials"]["infeasible"]
    )
    assert none["regret"] == 0.0


def test_the_same_seed_gives_the_same_report(capsys: pytest.CaptureFixture[str]) -> None:
    words = ("--scheduler", "asha", "paired", "median", "hyperband", "promotion", "--studies", 2)
    assert report(capsys, *words) == report(capsys, *words)
    assert report(capsys, *words) != report(capsys, *words, "--seed", 1)


def test_tpe_finds_more_than_chance(capsys: pytest.CaptureFixture[str]) -> None:
    words = ("--scheduler", "none", "--studies", 3, "--trials", 40)
    by_chance = report(capsys, *words)["schedulers"]["none"]["regret"]
    assert report(capsys, *words, "--sampler", "tpe")["schedulers"]["none"]["regret"] < by_chance


def test_an_equal_budget_is_kept(capsys: pytest.CaptureFixture[str]) -> None:
    words = ("--scheduler", "asha", "none", "--trials", 1000, "--workers", 5, "--hours", 1)
    for row in report(capsys, *words)["schedulers"].values():
        assert row["hours"] <= 1
        assert 4.5 < row["device_hours"] <= 5


def test_curves_by_formula_tend_to_their_truth() -> None:
    curves = ClosedFormCurves(noise=0.0, seed_noise=0.0)
    best: Params = {"learning_rate": 0.1, "d_dropout": 0.3, "momentum": 0.5, "units": 1000}
    slow: Params = {**best, "learning_rate": 0.01}
    assert curves.truth(best) == curves.optimum == 0.0
    for params in (best, slow):
        curve = curves.curve(0, params)
        assert curve.values[-1] == pytest.approx(curve.truth)
        assert np.all(np.diff(curve.values) > 0)
        assert len(curve.values) == len(curve.kimg) == len(curve.seconds) == 81
        assert curve.seconds[-1] == pytest.approx(81 * 30)


def test_the_noise_of_curves_is_what_is_said() -> None:
    curves = ClosedFormCurves(3, noise=2.0, seed_noise=3.0)
    params: Params = {"learning_rate": 0.1, "d_dropout": 0.3, "momentum": 0.5, "units": 1000}
    lasts = [curves.curve(n, params).values[-1] for n in range(2000)]
    assert np.std(lasts) == pytest.approx(math.sqrt(13), rel=0.06)  # 4 standard errors
    assert np.mean(lasts) == pytest.approx(0, abs=0.33)
    assert curves.standard_error(0, 1, 1.0) == pytest.approx(math.sqrt(26))


def test_the_table_names_each_scheduler(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--scheduler", "asha", "none", "--trials", "10"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[-2:]] == ["asha", "none"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--workers", "0"), "--workers: must be at least 1, but got 0"),
        (("--seed", "-1"), "--seed: must be at least 0, but got -1"),
        (("nowhere",), "nowhere/study.json: is missing; is this the folder of a study?"),
        (("--scheduler", "sha"), "invalid choice"),
        (("--reduction-factor", "1"), "`reduction_factor > 1` must hold"),
    ],
)
def test_a_mistake_is_told_in_one_message(
    words: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error


def test_a_record_without_a_whole_trial_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = study(grid=1, model=0, scheduler={"kind": "asha", "grace_kimg": 200.0})
    write_study(tmp_path, spec, ["STOPPED"])
    assert main([str(tmp_path)]) == 2
    assert "none of 1 is COMPLETED" in capsys.readouterr().err


def test_the_paired_rule_is_refused_for_a_record(
    record: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(record), "--scheduler", "paired"]) == 2
    assert "leave out RECORD" in capsys.readouterr().err


def test_a_study_that_measured_nothing_has_no_regret(capsys: pytest.CaptureFixture[str]) -> None:
    words = ("--scheduler", "asha", "--hours", "0.001", "--studies", "2")
    row = report(capsys, *words)["schedulers"]["asha"]
    assert row["regret"] is row["anytime_regret"] is row["regret_standard_error"] is None
    assert main(words) == 0
