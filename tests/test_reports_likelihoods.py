"""Studies held against each other: the numbers are the record's, and unlike things are refused."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reports.likelihoods import main, test_difference, validation_difference
from reports.study import Study
from search.points import write_points
from search.record import MeasurementRecord, write_measurements

test_difference.__test__ = False  # type: ignore[attr-defined]  # no test, though its name begins so

RNG = np.random.default_rng(0)
COMMON = RNG.normal(100, 50, 400)  # what is hard about each point, for all models


def study(folder: Path, gain: float = 0.0, **changes: Any) -> Path:
    """A study of which `gain` nats are its own."""
    folder.mkdir()
    opened = {
        "dataset_digest": "d" * 64,
        "protocol_digest": "p" * 64,
        "dataset": {"name": "mnist", "subset": True, "source": "bundled"},
        "protocol": {"num_samples": 5000},
        "spec": {
            "model": {"family": "mlp", **({"condition": "none"} if gain else {})},
            "budget": {"kimg_per_trial": 300.0, "trials": 12},
        },
    }
    summary: dict[str, Any] = {
        "trials": {"completed": 12},
        "best": {
            "number": 3,
            "kimg": 20.0,
            "metrics": {"validation_log_likelihood": 100.0 + gain, "standard_error": 2.5},
        },
        "confirmed": None,
        "test": {"log_likelihood": 90.0 + gain, "standard_error": 3.0},
        "references": {"real_data": 226.0, "label_shuffled": None},
    }
    for name, value in changes.items():
        (opened if name in opened else summary)[name] = value
    (folder / "study.json").write_text(json.dumps(opened))
    (folder / "summary.json").write_text(json.dumps(summary))
    noise = np.random.default_rng(int(gain)).normal(0, 1, len(COMMON))
    write_points(folder / "points" / "3-0.parquet", COMMON + gain + noise, None)
    write_measurements(
        folder,
        [
            MeasurementRecord(
                number=3,
                replicate=0,
                kimg=kimg,
                elapsed_seconds=1.0,
                metrics={"validation_log_likelihood": gain + kimg, "standard_error": 2.5},
            )
            for kimg in (10.0, 20.0)
        ],
    )
    return folder


def test_paired_points_tell_apart_what_single_ones_cannot(tmp_path: Path) -> None:
    one, other = study(tmp_path / "a"), study(tmp_path / "b", gain=5.0)
    paired = validation_difference(Study.read(one), Study.read(other))
    apart = np.random.default_rng(5).normal(0, 1, 400) - np.random.default_rng(0).normal(0, 1, 400)
    assert paired.mean == pytest.approx(5 + apart.mean(), abs=1e-4)
    assert paired.standard_error == pytest.approx(apart.std(ddof=1) / 20, rel=1e-3)
    unpaired = test_difference(Study.read(one), Study.read(other))
    assert [*unpaired] == pytest.approx([5.0, math.hypot(3, 3)])


def test_the_table_has_the_records_numbers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = [study(tmp_path / "cgan"), study(tmp_path / "gan", gain=5.0)]
    assert main([*map(str, folders), "--out", str(tmp_path / "out" / "table.md")]) == 0
    text = capsys.readouterr().out
    assert (tmp_path / "out" / "table.md").read_text() == text
    assert "| cGAN, mlp (`cgan`) | trial 3 at 20 kimg | 100.0 ± 2.5 |" in text
    assert "| GAN, mlp (`gan`) | trial 3 at 20 kimg | 105.0 ± 2.5 |" in text
    assert "| *real_data* |  |  |  | 226.0 |" in text
    assert "| 20 | 20.0 ± 2.5 | 25.0 ± 2.5 |" in text
    assert "the test set does not tell them apart" in text
    assert "BEWARE" not in text


def test_fresh_seeds_are_told_where_both_have_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    confirmed = {"mean": 99.0, "standard_error": 3.0, "seeds": 3}
    better = {"mean": 119.0, "standard_error": 4.0, "seeds": 3}
    folders = [
        study(tmp_path / "a", confirmed=confirmed),
        study(tmp_path / "b", gain=30.0, confirmed=better),
    ]
    assert main([*map(str, folders)]) == 0
    text = capsys.readouterr().out
    assert "over fresh seeds, +20.0 ± 5.0 (95 %: +10.2 to +29.8) nats of the objective" in text
    assert "GAN, mlp (`b`) is ahead" in text
    assert "99.0 ± 3.0 (3 seeds)" in text


@pytest.mark.parametrize("key", ["dataset_digest", "protocol_digest"])
def test_other_data_or_protocol_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], key: str
) -> None:
    folders = [study(tmp_path / "a"), study(tmp_path / "b", 0.0, **{key: "0" * 64})]
    assert main([*map(str, folders)]) == 2
    assert f"but {key} is 000000000000 there" in capsys.readouterr().err


def test_other_budgets_are_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec = {"model": {}, "budget": {"kimg_per_trial": 600.0, "trials": 12}}
    folders = [study(tmp_path / "a"), study(tmp_path / "b", spec=spec)]
    assert main([*map(str, folders)]) == 0
    assert "BEWARE: the studies had different budgets" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ("unfinished", "summary.json: is missing; give the folder of a finished study"),
        ("no winner", "the study must have a winner, but has none"),
        ("one", "at least two studies must be given, but got one"),
    ],
)
def test_what_cannot_be_compared_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], broken: str, message: str
) -> None:
    folders = [study(tmp_path / "a")]
    if broken == "unfinished":
        folders.append(study(tmp_path / "b"))
        (folders[1] / "summary.json").unlink()
    if broken == "no winner":
        folders.append(study(tmp_path / "b", best=None))
    assert main([*map(str, folders)]) == 2
    assert message in capsys.readouterr().err
