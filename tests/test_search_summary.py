"""The end of a study in words: the numbers of `summary.json`, and no others."""

import copy
from pathlib import Path
from typing import Any

import pytest

from search.summary import describe_summary
from search.tracking_place import find_place

SUMMARY: dict[str, Any] = {
    "study": "mnist",
    "trials": {"completed": 3, "stopped": 9, "infeasible": 1, "failed": 0},
    "stages": {"manual": 2, "random_grid": 5, "model": 6},
    "constraints": [],
    "measurements": 40,
    "elapsed_seconds": 600.0,
    "tracking_uri": "sqlite:///runs/mlflow.db",
    "dataset": {"name": "mnist", "digest": "d", "subset": False},
    "best": {
        "number": 7,
        "stage": "model",
        "params": {"learning_rate": 0.000123456, "noise": "gaussian"},
        "metric": "validation_log_likelihood",
        "objective": 151.26,
        "standard_error": 3.14,
        "kimg": 450.0,
        "flags": [],
    },
    "confirmed": None,
    "test": {
        "log_likelihood": 149.987,
        "standard_error": 3.456,
        "conditional_log_likelihood": 120.5,
        "conditional_standard_error": 4.321,
        "label_accuracy": 0.9432,
        "bandwidth": 0.17654,
        "num_samples": 5000,
        "num_points": 1000,
    },
    "references": {
        "real_data": 241.8,
        "kmeans": 335.5,
        "class_means": 53.25,
        "untrained": -48.125,
        "label_shuffled": -256.75,
    },
}
OUTPUT = Path("runs/mnist-quick")


def changed(**sections: Any) -> dict[str, Any]:
    return copy.deepcopy(SUMMARY) | sections


def test_every_number_is_there() -> None:
    text = describe_summary(SUMMARY, OUTPUT)
    for piece in (
        "3 completed, 9 stopped, 1 infeasible (2 manual, 5 random_grid, 6 model) in 10 min",
        "trial 7 (model), validation_log_likelihood 151.3 ± 3.1 at 450 kimg",
        "learning_rate=0.0001235  noise=gaussian",
        "1000 points, 5000 samples, sigma 0.1765",
        "149.99 ± 3.46  the winner, pooled",
        "120.50 ± 4.32  the winner, given class",
        "-256.75         the winner, given class, labels shuffled",
        "241.80",
        "335.50",
        "53.25",
        "-48.1",
        "0.943",
        "runs/mnist-quick/best/samples.png",
        "sqlite:///runs/mlflow.db",
    ):
        assert piece in text
    assert "failed" not in text
    assert "BEWARE" not in text
    assert "subset" not in text


def test_what_to_beware_of_is_said() -> None:
    flagged = changed(
        best=SUMMARY["best"] | {"flags": ["above_real_data"]},
        dataset=SUMMARY["dataset"] | {"subset": True},
    )
    text = describe_summary(flagged, OUTPUT)
    assert "BEWARE: above_real_data" in text
    assert "never to be compared with full-MNIST numbers" in text


def test_lines_that_do_not_exist_are_left_out() -> None:
    """Images without labels have no conditional score, class means or accuracy."""
    without = changed(
        test=SUMMARY["test"] | {"conditional_log_likelihood": None, "label_accuracy": None},
        references=SUMMARY["references"] | {"class_means": None, "label_shuffled": None},
    )
    text = describe_summary(without, OUTPUT)
    for piece in ("given class", "a class", "accuracy", "None"):
        assert piece not in text


def test_make_ui_is_named_where_it_shows_the_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    here = find_place(None).uri
    text = describe_summary(changed(tracking_uri=here), OUTPUT)
    assert f"runs: {here} (make ui)" in text
    for uri in ("http://host:5000", f"sqlite:///{tmp_path / 'mlflow.db'}"):
        text = describe_summary(changed(tracking_uri=uri), OUTPUT)
        assert text.endswith(f"runs: {uri}")


def test_a_score_of_one_point_has_no_standard_error() -> None:
    text = describe_summary(changed(best=SUMMARY["best"] | {"standard_error": None}), OUTPUT)
    assert "validation_log_likelihood 151.3 at" in text


def test_no_winner_is_said_plainly() -> None:
    text = describe_summary(changed(best=None, test=None, references=None), OUTPUT)
    assert "no winner" in text
    assert "test" not in text
    assert "better than an untrained generator" in text
    assert "constraint" not in text
    bound = changed(best=None, test=None, references=None, constraints=["recall >= 0.2"])
    assert "and keeps every constraint" in describe_summary(bound, OUTPUT)


def test_a_time_budget_without_a_measurement_is_said_plainly() -> None:
    nothing = {"best": None, "test": None, "references": None, "measurements": 0}
    counts = dict.fromkeys(SUMMARY["trials"], 0)
    for found in (counts, counts | {"stopped": 2}):
        text = describe_summary(changed(trials=found, **nothing), OUTPUT)
        assert "no winner: the time budget ended before any measurement" in text
        assert "budget.time" in text
    assert "study mnist: no trials (" in describe_summary(changed(trials=counts), OUTPUT)
    text = describe_summary(changed(trials=counts | {"failed": 2}, **nothing), OUTPUT)
    assert "no winner: no trial came to a measurement" in text


def test_a_confirmation_is_told_with_its_uncertainty() -> None:
    ranking = [
        {"number": 7, "diverged": 0, "interval": None, "behind": 0.0, "probability_best": 0.81},
        {"number": 2, "diverged": 0, "interval": [-1.2, 6.4], "behind": 2.6}
        | {"probability_best": 0.19},
        {"number": 4, "diverged": 2, "interval": None, "behind": None, "probability_best": 0.0},
    ]
    confirmed: dict[str, Any] = {
        "mean": 130.25,
        "standard_error": 1.5,
        "seeds": 5,
        "probability_best": 0.81,
    }
    confirmed |= {"winners_curse": 3.14, "ranking": ranking}
    text = describe_summary(changed(confirmed=confirmed), OUTPUT)
    assert "confirmed on 5 fresh seeds: 130.2 ± 1.5, the best of 3 with probability 0.81" in text
    assert "trial 2   is 2.6 behind (95 %: -1.2 to 6.4), the best with probability 0.19" in text
    assert "trial 4   diverged on 2 of its seeds" in text
    assert "expected to promise 3.1 too much" in text


def test_a_refused_look_is_told() -> None:
    refused = changed(test=None, references=None, notices=["looked at already, for trial 3"])
    assert "NOTE: looked at already, for trial 3" in describe_summary(refused, OUTPUT)


def test_a_winner_that_was_not_confirmed_is_told_with_why() -> None:
    ranking = [
        {"number": 4, "diverged": 2, "interval": None, "behind": None, "probability_best": 0.0}
    ]
    confirmed: dict[str, Any] = dict.fromkeys(("mean", "standard_error", "probability_best"))
    confirmed |= {"seeds": 0, "winners_curse": None, "ranking": ranking}
    notice = "trial 4 diverged on a fresh seed: trial 7, the next in rank, is not confirmed"
    text = describe_summary(changed(confirmed=confirmed, notices=[notice]), OUTPUT)
    assert f"NOTE: {notice}" in text
    assert "trial 4   diverged on 2 of its seeds" in text
    assert "confirmed on" not in text
    assert "149.99 ± 3.46  the winner, pooled" in text
    nobody: dict[str, Any] = {"best": None, "test": None, "references": None}
    none = changed(confirmed=confirmed, notices=["all broke"], **nobody)
    assert "no winner: all broke" in describe_summary(none, OUTPUT)


def test_a_front_is_listed_after_the_winner() -> None:
    front = [
        {"number": 7, "values": {"validation_log_likelihood": 151.26, "label_accuracy": 0.5}},
        {"number": 12, "values": {"validation_log_likelihood": 90.0, "label_accuracy": 0.98765}},
    ]
    text = describe_summary(changed(pareto_front=front), OUTPUT)
    assert "  trial 7    validation_log_likelihood 151.3  label_accuracy 0.5\n" in text
    assert "  trial 12   validation_log_likelihood 90  label_accuracy 0.9877\n" in text
    assert "Pareto" not in describe_summary(changed(pareto_front=None), OUTPUT)
