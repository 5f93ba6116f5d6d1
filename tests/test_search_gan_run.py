"""A trial on tiny data: it resumes bit for bit, leaves its artifacts, and ends when it must."""

import math
import weakref
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from tiny_data import SMALL
from tiny_study import Conditions, write_npz

from cgan_core.data import load_data
from cgan_core.data.masks import Mask
from cgan_core.evaluation import Evaluator, protocol_for
from cgan_core.member import Member
from cgan_core.samples import SampleError
from cgan_core.training import CheckpointError
from search.data_section import DataSection
from search.data_source import DataSource
from search.gan_run import GANRun, GANRuns
from search.seat import OwnSeat
from search.trial_run import Progress

pytestmark = pytest.mark.usefixtures("worker_settings")

TRIAL: dict[str, Any] = {
    "number": 4,
    "replicate": 0,
    "seed": 2**62 + 1,
    "threads": 1,
    "fold": None,
    "noise_draw": 0,
    "params": {"learning_rate": 0.1, "d_dropout": 0.2},
}


def make_runs(folder: Path, conditions: Conditions = "labels", **changes: Any) -> GANRuns:
    """Runs of 0.6 kimg, measured every 0.2."""
    file = folder / "tiny.npz"
    if not file.exists():
        write_npz(file, conditions)
    options: dict[str, Any] = {
        "data": DataSource(path=str(file)),
        "protocol": protocol_for(load_data(path=file)),
        "model": {**SMALL, "momentum": 0.5},
        "kimg_per_trial": 0.6,
        "measure_kimg": 0.2,
        "output": folder / "out",
    }
    return GANRuns(**options | changes)


def open_run(runs: GANRuns, **changes: Any) -> GANRun:
    return runs("cpu", 1).open({**TRIAL, **changes})


def advance(run: GANRun) -> Progress:
    """Trains to the next measurement."""
    while run.steps_left:
        run.take(run.trainer.population.advance([run.member], min(run.steps_left, 7))[0])
    return run.measure()


def finish(run: GANRun) -> list[Progress]:
    """Every measurement up to the end."""
    found: list[Progress] = []
    while not (found and (found[-1].done or found[-1].infeasible)):
        found.append(advance(run))
    return found


def assert_same_state(a: GANRun, b: GANRun) -> None:
    left, right = a.trainer.state_dict(), b.trainer.state_dict()
    assert left.keys() == right.keys()
    assert all(torch.equal(left[name], right[name]) for name in left)
    assert (a.best.score, a.best.kimg) == (b.best.score, b.best.kimg)
    assert a.best.parameters is not None
    assert b.best.parameters is not None
    for name, value in a.best.parameters.items():
        assert torch.equal(value, b.best.parameters[name])


@pytest.mark.parametrize("conditions", ["labels", "vectors", "none"])
@pytest.mark.parametrize("where", ["at a measurement", "between two"])
def test_a_resumed_run_is_the_straight_run(
    tmp_path: Path, conditions: Conditions, where: str
) -> None:
    runs = make_runs(tmp_path, conditions)
    straight = open_run(runs)
    whole = finish(straight)
    assert [progress.kimg for progress in whole] == [0.2, 0.4, 0.6]

    first = open_run(runs)
    begun = [advance(first)]
    if where == "between two":
        first.trainer.advance(7)  # as the clock would have it
    (tmp_path / "saved").mkdir()
    first.snapshot().save(tmp_path / "saved")
    second = open_run(runs)
    second.load(tmp_path / "saved")
    resumed = begun + finish(second)
    assert [(p.kimg, p.metrics) for p in resumed] == [(p.kimg, p.metrics) for p in whole]
    assert_same_state(straight, second)
    assert [p.elapsed_seconds for p in resumed] == sorted(p.elapsed_seconds for p in resumed)


def test_the_streams_of_a_gpu_can_be_had_without_one(tmp_path: Path) -> None:
    """At one capacity: what was trained on one can be repeated where there is none."""
    runs = make_runs(tmp_path, streams="device", kimg_per_trial=0.2)
    lanes = runs("cpu", 2)
    assert (lanes.device, lanes.streams, lanes.fused) == ("cpu", "device", True)
    first, second = finish(lanes.open(TRIAL)), finish(runs("cpu", 2).open(TRIAL))
    assert first[-1].metrics == second[-1].metrics
    assert (
        first[-1].metrics != finish(open_run(make_runs(tmp_path, kimg_per_trial=0.2)))[-1].metrics
    )


def test_time_is_kept_short(tmp_path: Path) -> None:
    seat = OwnSeat(make_runs(tmp_path, measure_kimg=0.6))
    seat.open(TRIAL, None)
    progress = seat.step(0.0)
    assert progress == Progress(kimg=progress.kimg, elapsed_seconds=progress.elapsed_seconds)
    assert progress.kimg < 0.6


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_gpu_scores_what_it_trains(tmp_path: Path) -> None:
    runs = make_runs(tmp_path)
    run = runs("cuda:0", 2).open(TRIAL)
    progress = advance(run)
    assert run.evaluator.device.type == "cuda"
    assert progress.metrics is not None
    on_cpu = Evaluator(run.evaluator.splits, runs.protocol)
    config = run.member.config
    samples = on_cpu.draw(run.trainer.model().images, config)
    expected = on_cpu.validation(samples).log_likelihood
    assert progress.metrics["validation_log_likelihood"] == pytest.approx(expected, abs=1e-2)
    run.snapshot().save(tmp_path / "saved")
    assert all(not value.is_cuda for value in (run.best.parameters or {}).values())


def test_what_a_measurement_leaves(tmp_path: Path) -> None:
    runs = make_runs(tmp_path)
    finish(open_run(runs))
    out = tmp_path / "out"
    assert {path.name for path in (out / "samples" / "4").iterdir()} == {
        *("0.2.png", "0.4.png", "0.6.png")
    }
    points = pq.read_table(out / "points" / "4-0.parquet")
    splits = load_data(path=tmp_path / "tiny.npz")
    scored = len(splits.validation.images) - runs.protocol.num_bandwidth_points
    assert points.num_rows == scored


def test_the_points_are_those_of_the_best_measurement(tmp_path: Path) -> None:
    run = open_run(make_runs(tmp_path))
    measured = [progress.metrics for progress in finish(run)]
    values = [metrics["validation_log_likelihood"] for metrics in measured if metrics]
    assert run.best.score == max(values)
    table = pq.read_table(tmp_path / "out" / "points" / "4-0.parquet")
    pooled = np.asarray(table.column(0), dtype=np.float64)
    assert pooled.mean() == pytest.approx(max(values), abs=1e-4)


def test_less_can_be_better(tmp_path: Path) -> None:
    run = open_run(make_runs(tmp_path, direction="minimize"))
    measured = [progress.metrics for progress in finish(run)]
    worst = min(metrics["validation_log_likelihood"] for metrics in measured if metrics)
    assert run.best.score == -worst


def test_a_course_that_diverges_is_infeasible(tmp_path: Path) -> None:
    model = {**SMALL, "momentum": 0.5, "final_momentum": 0.9, "min_learning_rate": 1e-6}
    runs = make_runs(tmp_path, model=model)
    run = open_run(runs, params={"learning_rate": 0.1, "d_dropout": 0.0})
    advance(run)
    with torch.no_grad():
        next(iter(run.trainer.members[0].generator.parameters())).fill_(torch.nan)
    progress = advance(run)
    assert progress.metrics is None
    assert progress.infeasible is not None
    assert "is not finite at " in progress.infeasible
    assert progress.infeasible.endswith(" kimg")
    again = advance(run)
    assert again.infeasible == progress.infeasible


def test_samples_that_are_not_finite_are_infeasible(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any, **__: Any) -> NoReturn:
        raise SampleError("3 pixels are not finite")

    run = open_run(make_runs(tmp_path))
    monkeypatch.setattr(Evaluator, "draw", broken)
    progress = advance(run)
    assert progress.infeasible == "sample (3 pixels are not finite) at 0.2 kimg"
    assert progress.metrics is None
    assert not progress.done


@pytest.mark.parametrize("place", ["training", "scoring"])
@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate 2 GiB"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"),
    ],
)
def test_memory_that_runs_out_is_infeasible(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, place: str
) -> None:
    def full(*_: Any, **__: Any) -> NoReturn:
        raise error

    run = open_run(make_runs(tmp_path))
    if place == "training":
        monkeypatch.setattr(Member, "advance", full)
    else:
        monkeypatch.setattr(Evaluator, "validation", full)
    progress = advance(run)
    assert progress.infeasible is not None
    assert progress.infeasible.startswith("out of memory")
    assert "\n" not in progress.infeasible
    assert progress.infeasible.endswith(" kimg")


def test_another_error_is_a_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> NoReturn:
        raise RuntimeError("shapes do not match")

    run = open_run(make_runs(tmp_path))
    monkeypatch.setattr(Member, "advance", broken)
    with pytest.raises(RuntimeError, match="shapes do not match"):
        advance(run)


def test_other_data_than_the_study_began_on_are_refused(tmp_path: Path) -> None:
    runs = make_runs(tmp_path)
    write_npz(tmp_path / "tiny.npz", count=210)
    with pytest.raises(ValueError, match=r"digest .* give every machine the same files"):
        open_run(runs)


def test_a_checkpoint_of_another_trial_is_refused(tmp_path: Path) -> None:
    runs = make_runs(tmp_path)
    run = open_run(runs)
    advance(run)
    (tmp_path / "saved").mkdir()
    run.snapshot().save(tmp_path / "saved")
    with pytest.raises(CheckpointError, match="other configurations or seeds"):
        open_run(runs, seed=6).load(tmp_path / "saved")


def test_an_heir_begins_from_the_state_of_its_donor_with_a_best_of_its_own(tmp_path: Path) -> None:
    runs = make_runs(tmp_path)
    donor = open_run(runs)
    advance(donor)
    folder = tmp_path / "saved"
    folder.mkdir()
    donor.snapshot().save(folder)
    params = {"learning_rate": 0.05, "d_dropout": 0.1}
    seat = OwnSeat(runs)
    seat.open({**TRIAL, "number": 5, "seed": 7, "params": params, "donor": str(folder)}, folder)
    heir = seat._run
    assert isinstance(heir, GANRun)
    ours, theirs = heir.trainer.state_dict(), donor.trainer.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert heir.best.parameters is None
    progress = seat.step(60.0)
    assert progress.metrics is not None
    assert (progress.kimg, heir.best.kimg) == (0.4, 0.4)


def test_lanes_that_nobody_uses_make_room_for_another_signature(tmp_path: Path) -> None:
    model = {name: value for name, value in SMALL.items() if name != "g_joint_units"}
    lanes = make_runs(tmp_path, model=model)("cpu", 2)
    lanes.fused = True  # as on a GPU, whose memory is dear

    def opened(joint_units: int) -> GANRun:
        return lanes.open({**TRIAL, "params": {**TRIAL["params"], "g_joint_units": joint_units}})

    first, second = opened(5), opened(5)
    stacked = weakref.ref(first.trainer.population)
    lanes.advance([first, second], 2)
    first.close()
    other = opened(6)
    second.close()
    again = opened(5)
    assert again.trainer.population is stacked() is second.trainer.population
    again.close()
    del first, second, again
    opened(7)
    assert stacked() is None
    assert opened(6).trainer.population is other.trainer.population


def test_a_source_is_the_same_from_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write_npz(tmp_path / "tiny.npz")
    monkeypatch.chdir(tmp_path)
    source = DataSource(path="tiny.npz")
    settled = source.settled(source.load())
    assert settled == DataSource(path=str(file), subset=False)
    monkeypatch.chdir("/")
    assert settled.load().digest == load_data(path=file).digest


def test_what_a_study_asks_of_its_data_is_found_again_from_its_record(tmp_path: Path) -> None:
    file = write_npz(tmp_path / "tiny.npz")
    section = DataSection.model_validate(
        {
            "path": "tiny.npz",
            "condition": "masked_image",
            "mask": {"top": 0, "left": 1, "height": 2, "width": 3},
        }
    )
    recorded = {"path": str(file), "conditions": None, "subset": False}
    splits = DataSource.of(section, 0, recorded).load()
    assert splits.mask == Mask(0, 1, 2, 3)
    plain = DataSource(path=str(file)).load()
    assert splits.images_digest == plain.images_digest
    assert hash(DataSource.of(section, 0, recorded)) == hash(DataSource.of(section, 0, recorded))


def test_a_run_on_masked_pictures_is_scored(tmp_path: Path) -> None:
    file = write_npz(tmp_path / "tiny.npz")
    data = DataSource(path=str(file), condition="masked_image", mask="left_half")
    runs = make_runs(tmp_path, data=data, protocol=protocol_for(data.load()), kimg_per_trial=0.2)
    metrics = finish(open_run(runs))[-1].metrics
    assert metrics is not None
    assert math.isfinite(metrics["validation_log_likelihood"])
