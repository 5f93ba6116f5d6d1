"""Runs of several folds and draws of noise in one process: each as it would be by itself."""

import gc
import weakref
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from test_search_engine import alone, together
from test_search_gan_run import TRIAL, advance, finish, make_runs

from cgan_core import Trainer, load_data
from cgan_core.data.folds import leave_out
from cgan_core.evaluation import Evaluator, protocol_for
from search.engine import Engine
from search.evaluators import MAX_IDLE, evaluator_of
from search.gan_run import GANRuns
from search.points import read_points
from search.redraw import REDRAWS
from search.score_names import metrics_of

pytestmark = pytest.mark.usefixtures("worker_settings")
FOLDS = 4


def runs_of_folds(folder: Path, folds: int = FOLDS, **changes: Any) -> GANRuns:
    runs = make_runs(folder, **changes)
    splits = load_data(path=folder / "tiny.npz")
    return replace(runs, protocol=protocol_for(splits, seed=0, folds=folds))


def trial(fold: int | None, **changes: Any) -> dict[str, Any]:
    return {**TRIAL, "fold": fold, **changes}


def test_a_run_trains_on_the_other_folds_alone(tmp_path: Path) -> None:
    run = runs_of_folds(tmp_path, kimg_per_trial=0.2)("cpu", 1).open(trial(2))
    finish(run)
    rest, _ = leave_out(load_data(path=tmp_path / "tiny.npz"), 2, FOLDS, seed=0)
    plain = Trainer(run.member.config, rest, TRIAL["seed"])
    plain.advance(run.member.t)
    found, expected = (t.model().generator.state_dict() for t in (run.trainer, plain))
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_the_points_of_a_run_are_those_of_its_fold(tmp_path: Path) -> None:
    runs = runs_of_folds(tmp_path)
    progress = finish(runs("cpu", 1).open(trial(1)))
    _, held_out = leave_out(load_data(path=tmp_path / "tiny.npz"), 1, FOLDS, seed=0)
    points = read_points(tmp_path / "out" / "points" / "4-0.parquet")
    assert len(points.pooled) == len(held_out) == 42
    values = [p.metrics["validation_log_likelihood"] for p in progress if p.metrics]
    assert points.pooled.mean() == pytest.approx(max(values), abs=1e-4)


def test_the_number_of_folds_changes_nothing_where_none_is_left_out(tmp_path: Path) -> None:
    folded, whole = (runs_of_folds(tmp_path, folds)("cpu", 1) for folds in (FOLDS, 1))
    found = [[advance(lanes.open(trial(None)))] for lanes in (folded, whole)]
    assert [p.metrics for p in found[0]] == [p.metrics for p in found[1]]


def test_runs_of_several_folds_share_an_engine(tmp_path: Path) -> None:
    runs = runs_of_folds(tmp_path, kimg_per_trial=0.4)
    folds = [0, 1, 0, None]
    configs = [trial(fold, number=n, seed=n) for n, fold in enumerate(folds)]
    expected = [[(p.kimg, p.metrics) for p in alone(runs, config)] for config in configs]
    courses = together(Engine(lambda: runs("cpu", 4), 4), configs)
    assert [[(p.kimg, p.metrics) for p in course] for course in courses] == expected


def test_stacked_lanes_learn_from_the_images_of_their_fold(tmp_path: Path) -> None:
    """As on a GPU: what one fold's run comes to does not depend on the other fold's."""
    runs = runs_of_folds(tmp_path, streams="device", kimg_per_trial=0.2)
    lanes = runs("cpu", 2)
    runs_of_both = [lanes.open(trial(fold)) for fold in (0, 1)]
    found = [finish(run)[-1].metrics for run in runs_of_both]
    expected = [finish(runs("cpu", 2).open(trial(fold)))[-1].metrics for fold in (0, 1)]
    assert found == expected


def test_members_of_two_folds_are_never_stacked(tmp_path: Path) -> None:
    lanes = runs_of_folds(tmp_path)("cpu", 4)
    first, other, again = (lanes.open(trial(fold)) for fold in (0, 1, 0))
    assert first.trainer.population is again.trainer.population
    assert first.trainer.population is not other.trainer.population
    assert first.signature == again.signature != other.signature
    assert first.evaluator is again.evaluator


def test_confirmations_train_alike_and_are_scored_on_noise_of_their_own(tmp_path: Path) -> None:
    runs = runs_of_folds(tmp_path)
    first, fresh, same = (
        advance(runs("cpu", 1).open(trial(None, noise_draw=draw))) for draw in (0, 1, 1)
    )
    assert first.metrics is not None
    assert fresh.metrics is not None
    assert fresh.metrics == same.metrics
    scored = {"validation_log_likelihood", "redraw_log_likelihood", "bandwidth"}
    differing = {name for name in first.metrics if first.metrics[name] != fresh.metrics[name]}
    assert scored <= differing
    assert not {"d_loss", "g_loss"} & differing


@pytest.mark.parametrize("noise_draw", [0, 2])
@pytest.mark.parametrize("fold", [None, 3])
def test_the_redraw_is_the_score_of_a_second_set(
    tmp_path: Path, fold: int | None, noise_draw: int
) -> None:
    runs = runs_of_folds(tmp_path)
    run = runs("cpu", 1).open(trial(fold, noise_draw=noise_draw))
    progress = advance(run)
    evaluator = Evaluator(load_data(path=tmp_path / "tiny.npz"), runs.protocol, fold=fold)
    config, generator = run.member.config, run.trainer.model().generator
    drawn = evaluator.draw(generator, config, noise_draw, "second")
    expected = metrics_of(evaluator.validation(drawn))
    assert progress.metrics is not None
    for metric, again in REDRAWS.items():
        assert progress.metrics[again] == expected[metric] != progress.metrics[metric]


@pytest.mark.parametrize("conditions", ["vectors", "none"])
def test_without_labels_there_is_no_conditional_redraw(tmp_path: Path, conditions: Any) -> None:
    progress = advance(make_runs(tmp_path, conditions)("cpu", 1).open(TRIAL))
    assert progress.metrics is not None
    assert "redraw_log_likelihood" in progress.metrics
    assert "redraw_conditional_log_likelihood" not in progress.metrics


def test_an_evaluator_is_shared_while_it_is_held_and_few_are_kept(tmp_path: Path) -> None:
    runs = runs_of_folds(tmp_path)

    def evaluator(fold: int) -> Evaluator:
        return evaluator_of(runs.data, runs.protocol, "cpu", fold)

    held = evaluator(0)
    passing = [weakref.ref(evaluator(fold)) for fold in (1, 2, 3)]
    gc.collect()
    assert sum(one() is not None for one in passing) == MAX_IDLE
    assert evaluator(0) is held
