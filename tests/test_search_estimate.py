"""Sums that can be done by hand, with a second a kimg and two seconds a measurement."""

from pathlib import Path
from typing import Any

import pytest
from tiny_study import content

from cgan_core.data import load_data
from cgan_core.evaluation import Evaluator, protocol_for
from search.estimate import Calibration, calibrate, describe, duration, estimate
from search.study import StudySpec

CALIBRATION = Calibration(
    seconds_per_kimg=1.0,
    seconds_per_measurement=2.0,
    state_bytes=1_000_000,
    generator_bytes=100_000,
)
GRID_BYTES = 60_000


def spec(trials: int, scheduler: dict[str, Any], **budget: Any) -> StudySpec:
    """Trials of 40 kimg, measured every 2: 40 s of training and 40 s of measurements each."""
    return StudySpec.from_mapping(
        content(
            Path("any.npz"),
            stages=[{"kind": "model", "trials": trials}],
            scheduler=scheduler,
            budget={"kimg_per_trial": 40.0, "measure_kimg": 2.0, "trials": trials, **budget},
        )
    )


def test_without_rungs_every_trial_is_whole() -> None:
    cost = estimate(spec(6, {"kind": "none"}), CALIBRATION, concurrent=2)
    assert cost.rungs == cost.survivors == ()
    assert cost.trial_seconds == 80
    assert cost.device_seconds == cost.device_seconds_at_most == 6 * 80
    assert cost.seconds == cost.seconds_at_most == 3 * 80
    ended, running, grids = 6 * 1_100_000, 2 * 2 * 1_100_000, 6 * 20 * GRID_BYTES
    assert cost.disk_bytes == ended + running + grids


def test_two_rungs_thin_the_trials() -> None:
    scheduler = {"kind": "asha", "grace_kimg": 4.0, "reduction_factor": 3}
    cost = estimate(spec(9, scheduler), CALIBRATION, concurrent=3)
    assert cost.rungs == (4, 12, 36)
    assert cost.survivors == (3, 1, 1)
    # 9 trials to 4 kimg, 3 of them on to 12, 1 on to 36 and to the end, at 2 s a kimg.
    kimg = 9 * 4 + 3 * 8 + 1 * 24 + 1 * 4
    assert cost.device_seconds == 2 * kimg
    assert cost.device_seconds_at_most == 9 * 80
    assert cost.seconds == max(2 * kimg / 3, 80)
    assert cost.seconds_at_most == 240


def test_a_pack_on_one_processor_takes_turns() -> None:
    cost = estimate(spec(6, {"kind": "none"}), CALIBRATION, concurrent=4, pack=4)
    assert cost.seconds == cost.seconds_at_most == 6 * 80
    assert estimate(spec(6, {"kind": "none"}), CALIBRATION, concurrent=8, pack=4).seconds == 3 * 80


def test_no_study_is_shorter_than_one_trial() -> None:
    cost = estimate(spec(2, {"kind": "none"}), CALIBRATION, concurrent=16)
    assert cost.seconds == cost.trial_seconds == 80


def test_it_is_said_in_words() -> None:
    scheduler = {"kind": "asha", "grace_kimg": 4.0, "reduction_factor": 3}
    study = spec(9, scheduler, time="12h")
    text = "\n".join(describe(study, estimate(study, CALIBRATION, concurrent=3)))
    assert "9 (9 model), 3 at a time, 40 kimg each" in text
    assert "3 past 4 kimg, 1 past 12 kimg, 1 past 36 kimg (asha)" in text
    assert "one trial   80 s in full" in text
    assert "at most 4 min if no trial is stopped; the time budget ends it after 12 h" in text
    endless = spec(9, {"kind": "none"})
    text = "\n".join(describe(endless, estimate(endless, CALIBRATION, concurrent=3)))
    assert "time budget" not in text
    assert "rungs" not in text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.2, "0 s"),
        (45, "45 s"),
        (89, "89 s"),
        (90, "2 min"),
        (12 * 60, "12 min"),
        (119 * 60, "119 min"),
        (3 * 3600 + 20 * 60, "3 h 20 min"),
        (4 * 3600, "4 h"),
        (12 * 3600 + 50 * 60, "12 h"),
        (5 * 86_400, "5 days"),
    ],
)
def test_a_time_as_people_say_it(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_this_machine_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch
    from tiny_study import write_npz

    monkeypatch.setattr("search.estimate.CALIBRATION_SECONDS", 0.02)
    splits = load_data(path=write_npz(tmp_path / "tiny.npz"))
    study = StudySpec.from_mapping(content(tmp_path / "tiny.npz"))
    config = study.gan_config({"learning_rate": 0.01, "d_dropout": 0.0})
    before = torch.get_num_threads()
    found = calibrate(config, Evaluator(splits, protocol_for(splits)), threads=1)
    assert torch.get_num_threads() == before
    assert found.seconds_per_kimg > 0
    assert found.seconds_per_measurement > 0
    assert 0 < found.generator_bytes < found.state_bytes
