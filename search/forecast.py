"""What a study may come to: its own rules in virtual time, many times over."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, quantiles, stdev
from typing import Self

from cgan_core.streams import derive_seed, stream
from search.calibration import Calibration
from search.confirming import kept_back_seconds
from search.estimate import Estimate
from search.priced_curves import PricedCurves
from search.pruners import Pruner
from search.retraining import finish
from search.scheduling import ONE_SIDED_5_PERCENT
from search.simulated_pruning import make_pruner
from search.simulated_sampling import RandomSampler
from search.simulation import Simulation
from search.study import StudySpec

STUDIES = 30
MEASUREMENTS = 4_000  # of one simulated study; a larger one is simulated at a share of its size


@dataclass(frozen=True, kw_only=True)
class ForecastStudy:
    """What one simulated study came to.

    Attributes:
        seconds: Wall time of the search and what follows it.
        race_seconds: That of the seeds which racing added.
        device_seconds: All trainings.
        begun: How many trials were begun.
        completed: How many were trained in full.
        cut_short: Whether the time budget ended the search.
        regret: How much worse than the formula's optimum the winner is, in nats; infinite if
            there is none.
    """

    seconds: float
    race_seconds: float
    device_seconds: float
    begun: int
    completed: int
    cut_short: bool
    regret: float


Forecast = tuple[ForecastStudy, ...]


def forecast(
    spec: StudySpec,
    calibration: Calibration,
    cost: Estimate,
    studies: int = STUDIES,
    *,
    full_kimg: float | None = None,
    part: float | None = None,
) -> Forecast:
    """Simulates a study so many times.

    The curves are by formula (`ClosedFormCurves`), the proposals random, the rules of stopping
    the study's own; each simulated study trains at the pace of one of the calibration's repeats.

    Args:
        spec: The study.
        calibration: What training and measuring take here.
        cost: Of that study.
        studies: How many.
        full_kimg: T of the formula; by default the budget of the study's trials.
        part: The share of its trials and places that is simulated; by default `part_of(spec)`.
    """
    share = _Share.of(spec, cost, part or part_of(spec))
    full_kimg = full_kimg or spec.budget.kimg_per_trial
    return tuple(
        _study(spec, calibration, cost, share, full_kimg, index) for index in range(studies)
    )


def part_of(spec: StudySpec) -> float:
    """The share of a study whose simulation takes no longer than that of a hundred trials."""
    budget = spec.budget
    measurements = budget.trials * math.ceil(budget.kimg_per_trial / budget.measure_kimg)
    return min(1.0, MEASUREMENTS / measurements)


def interval(values: Sequence[float]) -> tuple[float, float]:
    """The 5 % and the 95 % quantile, between which 90 % lie."""
    if len(values) < 2:
        return values[0], values[0]
    cuts = quantiles(values, n=20, method="inclusive")
    return cuts[0], cuts[-1]


def regret_ratio(other: Forecast, plan: Forecast) -> tuple[float, float, float] | None:
    """Mean regret over that of the plan, and 90 % of it; None where one found no winner.

    By the standard error of a ratio estimator over pairs of studies, r = mean(y) / mean(x):
    s_d / (sqrt(n) mean(x)) with d = y - r x (Cochran, 1977, "Sampling Techniques", 6.4).
    """
    y, x = ([study.regret for study in one] for one in (other, plan))
    if not all(map(math.isfinite, (*y, *x))):
        return None
    ratio = fmean(y) / fmean(x)
    differences = [above - ratio * below for above, below in zip(y, x, strict=True)]
    error = stdev(differences) / math.sqrt(len(x)) / fmean(x)
    reach = ONE_SIDED_5_PERCENT * error
    return ratio, max(0.0, ratio - reach), ratio + reach


@dataclass(frozen=True, kw_only=True)
class _Share:
    """How a study is simulated: so many trials on so many workers, each slower or faster.

    The runs of a trial are simulated as one that takes their share of the places; where places
    are no multiple of the runs, all are a little slower, and the machine is as busy.
    """

    trials: int
    workers: int
    stretch: float

    @classmethod
    def of(cls, spec: StudySpec, cost: Estimate, part: float) -> Self:
        wanted, runs = spec.budget.trials, spec.replication.replicates
        at_once = math.ceil(cost.processes / runs)
        trials = max(1, round(wanted * part))
        workers = max(1, round(at_once * trials / wanted))
        by_share = wanted / trials * workers / at_once
        stretch = runs * at_once / cost.processes * by_share
        return cls(trials=trials, workers=workers, stretch=stretch)


def _study(
    spec: StudySpec,
    calibration: Calibration,
    cost: Estimate,
    share: _Share,
    full_kimg: float,
    index: int,
) -> ForecastStudy:
    seed = derive_seed(spec.seed, "forecast", index)
    rng = stream(seed, "forecast")
    pace = float(rng.choice(calibration.paces))
    curves = PricedCurves(
        spec,
        seed,
        full_kimg=full_kimg,
        calibration=calibration,
        stretch=share.stretch * pace,
    )
    limit = spec.budget.time
    search = Simulation(
        curves,
        RandomSampler(curves.space, seed),
        _pruner(spec, curves),
        workers=share.workers,
        num_trials=share.trials,
        limit_seconds=None if limit is None else limit - kept_back_seconds(spec, cost),
    ).run()
    ending = finish(spec, search, rng)
    scale = spec.budget.trials / share.trials
    trained = math.fsum(trial.seconds for trial in search.trials.values()) / share.stretch
    trained *= scale * spec.replication.replicates
    race_seconds = pace * cost.seconds_of(ending.raced)
    retrained = pace * cost.trial_seconds * (ending.raced + cost.confirm_runs)
    seconds = search.seconds + race_seconds + pace * cost.confirm_seconds
    return ForecastStudy(
        seconds=limit if limit and (search.cut_short or seconds > limit) else seconds,
        race_seconds=race_seconds,
        device_seconds=trained + retrained,
        begun=round(len(search.trials) * scale),
        completed=round(search.count("COMPLETED") * scale),
        cut_short=search.cut_short,
        regret=ending.regret,
    )


def _pruner(spec: StudySpec, curves: PricedCurves) -> Pruner:
    scheduler = spec.scheduler
    # What a population stops it begins again elsewhere: it costs what it would if it stopped none.
    rule = "none" if scheduler.population else str(scheduler.kind)
    if rule == "asha" and scheduler.paired:
        rule = "paired"
    elif scheduler.mode == "promotion":
        rule = "promotion"
    grace = scheduler.grace_kimg or curves.kimg_per_trial
    return make_pruner(rule, curves, grace, scheduler.reduction_factor)
