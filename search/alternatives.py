"""What else a study's time would buy: fewer trials that are surer, or more that are shorter."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import fmean

from search.calibration import Calibration
from search.estimate import Estimate, estimate
from search.forecast import Forecast, forecast, part_of
from search.sections import ReplicationSection
from search.study import StudySpec

PILOT_STUDIES = 8  # to settle how many trials fit
ROUNDS = 2


@dataclass(frozen=True, kw_only=True)
class Alternative:
    """A study with another plan, and what it may come to."""

    name: str
    spec: StudySpec
    forecast: Forecast


def alternatives(
    spec: StudySpec, calibration: Calibration, cost: Estimate, plan: Forecast
) -> tuple[Alternative, Alternative]:
    """Two other plans, with as many trials as take the expected time of the one asked for.

    Both may be made of any study. `surer` gives each trial twice the seeds; `wider` trains each
    half as long, from rungs half as high. What a shorter training leaves unlearnt counts as
    regret.

    Args:
        spec: The study as asked for.
        calibration: What training and measuring take here.
        cost: Of that study.
        plan: What it may come to.
    """
    trials = spec.budget.trials
    ways: tuple[tuple[str, Callable[[int], StudySpec], int], ...] = (
        ("surer", lambda count: surer(spec, count), trials // 2),
        ("wider", lambda count: wider(spec, count), trials * 2),
    )
    first, second = (
        Alternative(name=name, spec=fitted, forecast=_simulated(fitted, spec, calibration, cost))
        for name, make, guess in ways
        for fitted in [_fitted(make, guess, spec, calibration, cost, plan)]
    )
    return first, second


def surer(spec: StudySpec, trials: int) -> StudySpec:
    """So many trials with twice the seeds each."""
    before = spec.replication
    seeds = 2 * (1 if before.adaptive else before.seeds)
    replication = ReplicationSection(seeds=seeds, folds=before.folds)
    return _with_trials(spec, trials, replication=replication)


def wider(spec: StudySpec, trials: int) -> StudySpec:
    """So many trials of half the training each, with rungs half as high."""
    budget, scheduler = spec.budget, spec.scheduler
    kimg = budget.kimg_per_trial / 2
    unit = min(budget.measure_kimg, kimg)
    halved = spec.model_copy(
        update={"budget": budget.model_copy(update={"kimg_per_trial": kimg, "measure_kimg": unit})}
    )
    if scheduler.grace_kimg is not None:
        grace = min(math.ceil(scheduler.grace_kimg / 2 / unit - 1e-9) * unit, kimg)
        scheduler = scheduler.model_copy(update={"grace_kimg": grace})
    return _with_trials(halved, trials, scheduler=scheduler)


def _with_trials(spec: StudySpec, trials: int, **sections: object) -> StudySpec:
    budget = spec.budget.model_copy(update={"trials": max(1, trials)})
    return spec.model_copy(update={"budget": budget, **sections})


def _fitted(
    make: Callable[[int], StudySpec],
    guess: int,
    spec: StudySpec,
    calibration: Calibration,
    cost: Estimate,
    plan: Forecast,
) -> StudySpec:
    """The study with as many trials as take the plan's time, from a first guess."""
    wanted = fmean(study.seconds for study in plan)
    for _ in range(ROUNDS):
        pilot = _simulated(make(guess), spec, calibration, cost, PILOT_STUDIES)
        guess = max(1, round(guess * wanted / fmean(study.seconds for study in pilot)))
    return make(guess)


def _simulated(
    other: StudySpec, spec: StudySpec, calibration: Calibration, cost: Estimate, *studies: int
) -> Forecast:
    return forecast(
        other,
        calibration,
        estimate(other, calibration, cost.concurrent, cost.pack),
        *studies,
        full_kimg=spec.budget.kimg_per_trial,
        part=part_of(spec),
    )
