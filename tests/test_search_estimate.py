"""Sums that can be done by hand, with a second a kimg and two seconds a measurement."""

from pathlib import Path
from typing import Any

import pytest
from tiny_study import content

from cgan_core.data import load_data
from cgan_core.evaluation import Evaluator, protocol_for
from search.calibration import Calibration, calibrate
from search.estimate import duration, estimate
from search.plan import describe
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
    sections = {key: budget.pop(key) for key in ("replication", "confirm") if key in budget}
    return StudySpec.from_mapping(
        content(
            Path("any.npz"),
            **sections,
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
    assert "; at most 4 min if no trial is stopped; the time budget ends it after 12 h" in text
    endless = spec(9, {"kind": "none"})
    text = "\n".join(describe(endless, estimate(endless, CALIBRATION, concurrent=3)))
    assert "time budget" not in text
    assert "rungs" not in text
    assert "GPU" not in text
    plan = describe(endless, estimate(endless, CALIBRATION, concurrent=3), on_gpus=True)
    assert "a processor of this machine; trials train on GPUs" in "\n".join(plan)


def said(study: StudySpec) -> str:
    return "\n".join(describe(study, estimate(study, CALIBRATION, concurrent=2)))


def test_each_bracket_of_hyperband_is_said_by_itself() -> None:
    # R = 9 units of 4 kimg: brackets of 9, 3 and 3 trials, of which the first is filled first.
    hyperband = {"kind": "hyperband", "grace_kimg": 4.0, "reduction_factor": 3}
    study = spec(14, hyperband, kimg_per_trial=36.0)
    assert (
        "brackets    9 trials: about 3 past 4 kimg, 1 past 12 kimg\n"
        "            3 trials: about 1 past 12 kimg\n"
        "            2 trials: all in full\n"
    ) in said(study)
    assert "3 trials: all" not in said(spec(12, hyperband, kimg_per_trial=36.0))  # not begun
    cost = estimate(study, CALIBRATION, concurrent=2)
    assert (cost.rungs, cost.survivors) == ((4, 12), (3 + 3 + 2, 1 + 1 + 2))


def test_the_median_rule_has_no_rungs() -> None:
    text = said(spec(9, {"kind": "median", "grace_kimg": 4.0}))
    assert "stopping    from 4 kimg on, who is below the median of the others; about 5 go" in text
    assert "rungs" not in text


def test_promotion_takes_the_floor_and_one_at_least() -> None:
    promotion = {"kind": "asha", "grace_kimg": 4.0, "reduction_factor": 3, "mode": "promotion"}
    cost = estimate(spec(11, promotion), CALIBRATION, concurrent=2)
    assert cost.survivors == (3, 1, 1)
    assert estimate(spec(11, promotion | {"mode": "stopping"}), CALIBRATION, 2).survivors == (
        (4, 2, 1)
    )
    assert cost.device_seconds == 2 * (11 * 4 + 3 * 8 + 1 * 24 + 1 * 4)
    assert "rungs       all pause at each; about 3 past 4 kimg" in said(spec(11, promotion))


def test_racing_and_confirmation_have_lines_of_their_own() -> None:
    extra = {
        "replication": {"seeds": 3, "adaptive": True},
        "confirm": {"top": 2, "seeds": 3},
    }
    study = spec(6, {"kind": "none"}, **extra)
    text = said(study)
    assert "time        about 8 min; at most 16 min\n" in text  # 3 + 3 turns of 80 s, 6 more
    assert "racing      up to 3 seeds for those that the best is not clear of\n" in text
    assert "confirming  the best 2 on 3 fresh seeds each, in full: 4 min of that\n" in text
    limited = spec(6, {"kind": "none"}, time=300.0, **extra)
    assert "in full: 4 min of that, 2 min kept back\n" in said(limited)  # half of it at most
    assert "racing" not in said(spec(6, {"kind": "none"}))


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

    monkeypatch.setattr("search.calibration.CALIBRATION_SECONDS", 0.02)
    splits = load_data(path=write_npz(tmp_path / "tiny.npz"))
    study = StudySpec.from_mapping(content(tmp_path / "tiny.npz"))
    config = study.gan_config({"learning_rate": 0.01, "d_dropout": 0.0})
    before = torch.get_num_threads()
    found = calibrate(config, Evaluator(splits, protocol_for(splits)), threads=1)
    assert torch.get_num_threads() == before
    assert found.seconds_per_kimg > 0
    assert found.seconds_per_measurement > 0
    assert 0 < found.generator_bytes < found.state_bytes
    assert min(found.paces) <= 1 <= max(found.paces)
