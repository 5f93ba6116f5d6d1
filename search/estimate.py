"""What a study will cost, from its plan and the speed of a trial on this machine."""

import math
from collections import Counter
from dataclasses import dataclass

from search.calibration import Calibration
from search.hyperband import Bracket, bracket_of, make_brackets
from search.scheduling import rung_levels
from search.sections import BudgetSection, SchedulerSection
from search.study import StudySpec

GRID_BYTES = 60_000  # a sample grid as PNG, measured on digits


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """What a study costs.

    Args:
        rungs: kimg at which trials are compared.
        survivors: how many trials are expected to pass each rung.
        trial_seconds: one training in full.
        device_seconds: all trials, as halving is expected to stop them.
        device_seconds_at_most: all trials, were none stopped.
        confirm_runs: trainings in full after the search, on fresh seeds.
        race_runs_at_most: trainings in full that `replication.adaptive` may add.
        concurrent: trials at a time.
        pack: trials that share an engine, which are advanced one after another here.
        disk_bytes: checkpoints and pictures at their largest.
    """

    rungs: tuple[float, ...]
    survivors: tuple[int, ...]
    trial_seconds: float
    device_seconds: float
    device_seconds_at_most: float
    confirm_runs: int
    race_runs_at_most: int
    concurrent: int
    pack: int
    disk_bytes: int

    @property
    def seconds(self) -> float:
        """Wall time of the search as halving is expected to go."""
        return max(self.device_seconds / self.processes, self.trial_seconds)

    @property
    def seconds_at_most(self) -> float:
        """Wall time of the search were no trial stopped."""
        return max(self.device_seconds_at_most / self.processes, self.trial_seconds)

    @property
    def confirm_seconds(self) -> float:
        """Wall time of the confirmation."""
        return self.seconds_of(self.confirm_runs)

    def seconds_of(self, runs: int) -> float:
        """Wall time of trainings in full, of which as many run at a time as there is room for."""
        return math.ceil(runs / self.processes) * self.trial_seconds

    @property
    def processes(self) -> int:
        """How many of them train at a time."""
        return math.ceil(self.concurrent / self.pack)


def estimate(
    spec: StudySpec, calibration: Calibration, concurrent: int, pack: int = 1
) -> Estimate:
    """Adds up the trials of a study as its rungs are expected to thin them."""
    budget, replication = spec.budget, spec.replication
    rungs, survivors = _thinned(spec.scheduler, budget)
    kimg = _expected_kimg(budget.trials, rungs, survivors, budget.kimg_per_trial)
    measurements = math.ceil(budget.kimg_per_trial / budget.measure_kimg)
    per_kimg = (
        calibration.seconds_per_kimg + calibration.seconds_per_measurement / budget.measure_kimg
    )
    replicates, runs = replication.replicates, budget.trials * replication.replicates
    confirmed = min(spec.confirm.top, budget.trials) * spec.confirm.seeds
    raced = budget.trials * (replication.seeds * replication.folds - replicates)
    state = calibration.state_bytes + calibration.generator_bytes
    kept = runs + confirmed + raced
    return Estimate(
        rungs=rungs,
        survivors=survivors,
        trial_seconds=budget.kimg_per_trial * per_kimg,
        device_seconds=replicates * kimg * per_kimg,
        device_seconds_at_most=runs * budget.kimg_per_trial * per_kimg,
        confirm_runs=confirmed,
        race_runs_at_most=raced,
        concurrent=concurrent,
        pack=pack,
        disk_bytes=concurrent * 2 * state + kept * (state + measurements * GRID_BYTES),
    )


def brackets_of(scheduler: SchedulerSection, budget: BudgetSection) -> list[tuple[Bracket, int]]:
    """The brackets of a study by Hyperband, each with how many of its trials fall to it."""
    assert scheduler.grace_kimg is not None  # a spec has it
    factor = scheduler.reduction_factor
    brackets = make_brackets(
        scheduler.grace_kimg, budget.kimg_per_trial, factor, budget.measure_kimg
    )
    counts = Counter(bracket_of(number, brackets) for number in range(budget.trials))
    return [(bracket, counts[index]) for index, bracket in enumerate(brackets)]


def survivors_of(trials: int, rungs: int, scheduler: SchedulerSection) -> tuple[int, ...]:
    """How many of some trials are expected to pass each of so many rungs, one at least.

    Of n at a rung the stopping rules keep all above a quantile, n / factor rounded up; promotion
    takes n / factor rounded down, for it waits until there are enough.
    """
    factor = scheduler.reduction_factor
    if scheduler.mode == "promotion":
        return tuple(max(1, trials // factor ** (k + 1)) for k in range(rungs))
    return tuple(max(1, -(-trials // factor ** (k + 1))) for k in range(rungs))


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
        return rungs, survivors_of(trials, len(rungs), scheduler)
    shares = [(b.rungs, count) for b, count in brackets_of(scheduler, budget) if count]
    levels = [rung for rung in rungs if any(rung in own for own, _ in shares)]
    left = (
        sum(
            (count, *survivors_of(count, len(own), scheduler))[sum(b <= rung for b in own)]
            for own, count in shares
        )
        for rung in levels
    )
    return tuple(levels), tuple(left)


def _expected_kimg(
    trials: int, rungs: tuple[float, ...], survivors: tuple[int, ...], full_kimg: float
) -> float:
    total, before, running = 0.0, 0.0, trials
    for rung, left in zip((*rungs, full_kimg), (*survivors, 0), strict=True):
        total += running * (rung - before)
        before, running = rung, left
    return total


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
