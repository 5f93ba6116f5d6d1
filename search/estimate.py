"""What a study will cost, from its plan and a few seconds of work on this machine."""

import math
import time
from collections import Counter
from dataclasses import dataclass
from typing import get_args

import torch

from cgan_core.config import GANConfig
from cgan_core.evaluation import Evaluator
from cgan_core.evaluation_noise import SampleSet
from cgan_core.member import Member
from search.hyperband import bracket_of, make_brackets
from search.scheduling import rung_levels
from search.sections import BudgetSection, SchedulerSection
from search.study import StudySpec

WARM_UP_STEPS = 3
CALIBRATION_SECONDS = 2.0
ADAM_COPIES, SGD_COPIES = 3, 2  # parameters and the optimiser's buffers
BYTES = 4
GRID_BYTES = 60_000  # a sample grid as PNG, measured on digits


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """Speed and size of one trial on this machine, alone on its cores."""

    seconds_per_kimg: float
    seconds_per_measurement: float
    state_bytes: int
    generator_bytes: int


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """What a study costs.

    Args:
        rungs: kimg at which trials are compared.
        survivors: how many trials are expected to pass each rung.
        trial_seconds: one trial trained in full.
        device_seconds: all trials, as halving is expected to stop them.
        device_seconds_at_most: all trials, were none stopped.
        concurrent: trials at a time.
        pack: trials that share an engine, which are advanced one after another here.
        disk_bytes: checkpoints and pictures at their largest.
    """

    rungs: tuple[float, ...]
    survivors: tuple[int, ...]
    trial_seconds: float
    device_seconds: float
    device_seconds_at_most: float
    concurrent: int
    pack: int
    disk_bytes: int

    @property
    def seconds(self) -> float:
        """Wall time as halving is expected to go."""
        return max(self.device_seconds / self.processes, self.trial_seconds)

    @property
    def seconds_at_most(self) -> float:
        """Wall time were no trial stopped."""
        return max(self.device_seconds_at_most / self.processes, self.trial_seconds)

    @property
    def processes(self) -> int:
        """How many of them train at a time."""
        return math.ceil(self.concurrent / self.pack)


def calibrate(config: GANConfig, evaluator: Evaluator, threads: int) -> Calibration:
    """Trains and scores one member for a few seconds."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        member = Member(config, evaluator.examples, seed=0)
        evaluator.guardrails  # noqa: B018 -- may train a classifier, once for all
        member.advance(WARM_UP_STEPS)
        started, kimg = time.perf_counter(), member.kimg
        while time.perf_counter() < started + CALIBRATION_SECONDS:
            member.advance(1)
        trained = time.perf_counter()
        noise, dim, sets = config.noise, config.noise_dim, get_args(SampleSet)
        drawn = [evaluator.draw(member.generator, noise, dim, which=which) for which in sets]
        evaluator.validations(drawn)
        evaluator.guard(drawn[0])
        measured = time.perf_counter()
    finally:
        torch.set_num_threads(before)
    g_values = sum(p.numel() for p in member.generator.parameters())
    d_values = sum(p.numel() for p in member.discriminator.parameters())
    copies = ADAM_COPIES if config.optimizer == "adam" else SGD_COPIES
    return Calibration(
        seconds_per_kimg=(trained - started) / (member.kimg - kimg),
        seconds_per_measurement=measured - trained,
        state_bytes=(g_values + d_values) * copies * BYTES,
        generator_bytes=g_values * BYTES,
    )


def estimate(
    spec: StudySpec, calibration: Calibration, concurrent: int, pack: int = 1
) -> Estimate:
    """Adds up the trials of a study as its rungs are expected to thin them."""
    budget, scheduler = spec.budget, spec.scheduler
    rungs, survivors = _thinned(scheduler, budget)
    replicates = spec.replication.replicates
    kimg = replicates * _expected_kimg(budget.trials, rungs, survivors, budget.kimg_per_trial)
    per_kimg = (
        calibration.seconds_per_kimg + calibration.seconds_per_measurement / budget.measure_kimg
    )
    running = concurrent * 2 * (calibration.state_bytes + calibration.generator_bytes)
    runs = budget.trials * replicates
    ended = runs * (calibration.state_bytes + calibration.generator_bytes)
    grids = runs * math.ceil(budget.kimg_per_trial / budget.measure_kimg) * GRID_BYTES
    return Estimate(
        rungs=rungs,
        survivors=survivors,
        trial_seconds=budget.kimg_per_trial * per_kimg,
        device_seconds=kimg * per_kimg,
        device_seconds_at_most=runs * budget.kimg_per_trial * per_kimg,
        concurrent=concurrent,
        pack=pack,
        disk_bytes=running + ended + grids,
    )


def _thinned(
    scheduler: SchedulerSection, budget: BudgetSection
) -> tuple[tuple[float, ...], tuple[int, ...]]:
    """The levels at which trials are stopped, and how many are expected to pass each."""
    grace, trials, factor = scheduler.grace_kimg, budget.trials, scheduler.reduction_factor
    if scheduler.kind == "none" or grace is None:
        return (), ()
    if scheduler.kind == "median":  # half of them, and most of those as soon as may be
        return ((grace,), (math.ceil(trials / 2),)) if grace < budget.kimg_per_trial else ((), ())
    rungs = rung_levels(grace, budget.kimg_per_trial, factor, budget.measure_kimg)
    if scheduler.kind == "asha":
        return rungs, tuple(_survivors(trials, k + 1, factor) for k in range(len(rungs)))
    brackets = make_brackets(grace, budget.kimg_per_trial, factor, budget.measure_kimg)
    counts = Counter(bracket_of(number, brackets) for number in range(trials))
    levels = [rung for rung in rungs if any(rung in b.rungs for b in brackets)]
    left = (
        sum(
            _survivors(count, sum(below <= rung for below in brackets[index].rungs), factor)
            for index, count in counts.items()
        )
        for rung in levels
    )
    return tuple(levels), tuple(left)


def _survivors(trials: int, halvings: int, reduction_factor: int) -> int:
    return max(1, math.ceil(trials / float(reduction_factor**halvings)))


def _expected_kimg(
    trials: int, rungs: tuple[float, ...], survivors: tuple[int, ...], full_kimg: float
) -> float:
    total, before, running = 0.0, 0.0, trials
    for rung, left in zip((*rungs, full_kimg), (*survivors, 0), strict=True):
        total += running * (rung - before)
        before, running = rung, left
    return total


def describe(spec: StudySpec, cost: Estimate) -> list[str]:
    """Says in a few lines what a study will do and cost."""
    plan = ", ".join(f"{planned.trials} {planned.stage.kind}" for planned in spec.stage_plan)
    lines = [
        f"trials      {spec.budget.trials} ({plan}), {cost.concurrent} at a time, "
        f"{spec.budget.kimg_per_trial:g} kimg each",
    ]
    if spec.replication.replicates > 1:
        lines.append(f"replicates  {_replicates(spec)}")
    if cost.pack > 1:
        device = "a GPU" if spec.resources.gpus_per_trial else "a node's CPUs"
        lines.append(f"packs       {cost.pack} trials share an engine and {device} in equal parts")
    if cost.rungs:
        steps = ", ".join(
            f"{left} past {rung:g} kimg"
            for rung, left in zip(cost.rungs, cost.survivors, strict=True)
        )
        lines.append(f"rungs       about {steps} ({spec.scheduler.kind})")
    limit = spec.budget.time
    cap = "" if limit is None else f"; the time budget ends it after {duration(limit)}"
    lines += [
        f"one trial   {duration(cost.trial_seconds)} in full, on this machine",
        f"time        about {duration(cost.seconds)}, at most {duration(cost.seconds_at_most)} "
        f"if no trial is stopped{cap}",
        f"work        about {cost.device_seconds / 3600:.1f} trial-hours, at most "
        f"{cost.device_seconds_at_most / 3600:.1f}",
        f"disk        at most {cost.disk_bytes / 1e9:.1f} GB",
    ]
    return lines


def _replicates(spec: StudySpec) -> str:
    seeds, folds = spec.replication.replicates // spec.replication.folds, spec.replication.folds
    parts = f", {folds} folds times {seeds} seeds" if folds > 1 else " with seeds of their own"
    return f"each trial is {spec.replication.replicates} runs{parts}, judged by their mean"


def duration(seconds: float) -> str:
    """Returns a time as people say it: 45 s, 12 min, 3 h 20 min, 5 days."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 120:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min" if minutes and hours < 10 else f"{hours} h"
    return f"{hours / 24:.0f} days"
