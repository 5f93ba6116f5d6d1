"""What is known about one trial of a study: its configuration, and the runs that train it."""

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from statistics import fmean, stdev
from typing import Self

from search.cause import CauseKind
from search.event_fields import Params
from search.events import Donor, Measured, Stage
from search.redraw import redraw_standard_error
from search.run_state import Direction, RunState, TrialStateName

__all__ = ["STANDARD_ERRORS", "Direction", "Objective", "TrialState", "TrialStateName"]

# Of the metrics that are means over points: where their standard error is measured.
STANDARD_ERRORS: Mapping[str, str] = {
    "validation_log_likelihood": "standard_error",
    "conditional_log_likelihood": "conditional_standard_error",
}
# What a run's end means for its trial: the first of these that any of them ended in.
_WORST_FIRST: tuple[TrialStateName, ...] = ("INFEASIBLE", "FAILED", "STOPPED")


@dataclass(frozen=True, kw_only=True)
class Objective:
    """A trial's score so far: the mean over its runs of each one's best measurement.

    Attributes:
        value: The mean.
        points_error: Its standard error from the evaluated points, None where the metric has
            none. Runs that are scored on the same points share it; it is averaged over them, which
            is its upper bound, and independent between folds.
        redraw_error: That of the generator's finite sample (`search.redraw`); None where nothing
            was scored twice.
        replicates_error: Its standard error from seeds and folds, s / sqrt(n); None for one run.
        kimg: Where the first run was at its best.
        replicates: How many runs are averaged.
        metrics: All that was measured there, averaged over the runs.
    """

    value: float
    points_error: float | None
    redraw_error: float | None
    replicates_error: float | None
    kimg: float
    replicates: int
    metrics: Mapping[str, float]

    @property
    def standard_error(self) -> float | None:
        """From the runs where there are several (they differ in points' luck too), else points."""
        return self.points_error if self.replicates == 1 else self.replicates_error


@dataclass(kw_only=True)
class TrialState:
    """All that is known about one trial.

    Attributes:
        seed: That of its first run.
        promoted_kimg: The last rung that it was promoted from, where rungs pause trials.
        stop_asked: Why it is to end though its rungs let it go on.
        donor: From whose state it begins, if from any.
        replaces: The trial of the population whose place it takes.
        runs: Its trainings by replicate.
    """

    number: int
    stage: Stage
    stage_index: int
    params: Params
    cell: str
    seed: int
    proposed_at: datetime
    promoted_kimg: float = -1.0
    stop_asked: str | None = None
    donor: Donor | None = None
    replaces: int | None = None
    runs: dict[int, RunState] = field(default_factory=dict)

    @property
    def first(self) -> RunState:
        """The run that was claimed with the trial."""
        return self.runs[0]

    @property
    def search_runs(self) -> list[RunState]:
        """The runs by which rungs judge the trial."""
        return [run for run in self.runs.values() if run.purpose == "search"]

    @property
    def own_runs(self) -> list[RunState]:
        """All but shadows, which tell of the rule that stopped it and are nothing to the trial."""
        return [run for run in self.runs.values() if run.purpose != "shadow"]

    @property
    def shadows(self) -> dict[int, RunState]:
        """The runs that continue stopped ones, by the replicate that they continue.

        Of one that the clock cut and the one in its place, the latter.
        """
        found = [run for run in self.runs.values() if run.purpose == "shadow"]
        return {run.continues: run for run in found if run.continues is not None}

    @property
    def confirmations(self) -> list[RunState]:
        """The runs that confirm it."""
        return [run for run in self.runs.values() if run.purpose == "confirmation"]

    @property
    def state(self) -> TrialStateName:
        """RUNNING while a run of the search is, else the worst of how those ended.

        A run that diverged counts against its trial and is never dropped.
        """
        runs = self.search_runs
        if any(not run.ended for run in runs):
            return "RUNNING"
        ends = {run.state for run in runs}
        return next((state for state in _WORST_FIRST if state in ends), "COMPLETED")

    @property
    def eligible(self) -> bool:
        """Whether it may win: none of the runs that score it diverged or failed."""
        runs = (run for run in self.runs.values() if run.purpose in ("search", "race"))
        return all(run.state not in ("INFEASIBLE", "FAILED") for run in runs)

    @property
    def refuted(self) -> bool:
        """Whether it diverged on a fresh seed that was to confirm it, so that it cannot win."""
        return any(run.state == "INFEASIBLE" for run in self.confirmations)

    @property
    def reason(self) -> str | None:
        """Why it ended as it did."""
        return next((run.reason for run in self.search_runs if run.state == self.state), None)

    @property
    def stop_reason(self) -> str | None:
        """Why its runs must all stop: one did so before the end of its budget, or it was asked."""
        for run in self.search_runs:
            if run.state in ("INFEASIBLE", "FAILED"):
                return f"replicate {run.replicate} is {run.state}"
            if run.state == "STOPPED":
                return run.reason or "stopped"
        return self.stop_asked

    @property
    def measurements(self) -> list[Measured]:
        """Those of all its own runs, run by run."""
        return [measured for run in self.own_runs for measured in run.measurements]

    @property
    def kimg(self) -> float:
        """Training in kimg up to which all runs of the search were measured."""
        return min(run.total_kimg for run in self.search_runs)

    @property
    def total_kimg(self) -> float:
        """Training up to the last measurement in kimg, summed over runs."""
        return sum(run.total_kimg for run in self.own_runs)

    @property
    def elapsed_seconds(self) -> float:
        """Training time up to the last measurement in seconds, summed over runs."""
        return sum(run.elapsed_seconds for run in self.own_runs)

    @property
    def losses(self) -> Counter[CauseKind]:
        """How many attempts at its runs were lost and followed by others, by cause."""
        return sum((run.losses for run in self.own_runs), Counter())

    @property
    def retries(self) -> int:
        """The same in all."""
        return self.losses.total()

    @property
    def started_at(self) -> datetime | None:
        """When its first run began."""
        return min((r.started_at for r in self.own_runs if r.started_at), default=None)

    @property
    def ended_at(self) -> datetime | None:
        """When the last of its runs in the search ended; None before."""
        ends = [run.ended_at for run in self.search_runs]
        return None if None in ends else max(end for end in ends if end is not None)

    def objective(self, metric: str, direction: Direction = "maximize") -> Objective | None:
        """Scores the trial by `metric`, as far as all runs of its search have come.

        None before each of them was measured: a mean over some of them would favour the lucky.
        """
        whole = [
            run for run in self.runs.values() if run.purpose == "race" and run.state == "COMPLETED"
        ]
        up_to = math.inf if len(self.search_runs) == 1 else self.kimg
        if any(run.best(metric, direction, up_to) is None for run in self.search_runs):
            return None
        return score([*self.search_runs, *whole], metric, direction, up_to)

    def curve(self) -> dict[float, dict[str, float]]:
        """Its metrics by kimg, averaged over the runs of the search, as far as all have come."""
        return mean_curve(self.search_runs)

    def copy(self) -> Self:
        """A copy that later events do not change."""
        twin = object.__new__(type(self))
        twin.__dict__.update(self.__dict__)
        twin.runs = {replicate: run.copy() for replicate, run in self.runs.items()}
        return twin


def mean_curve(runs: Sequence[RunState]) -> dict[float, dict[str, float]]:
    """The metrics of runs by kimg, averaged, as far as all have come."""
    courses = [{m.kimg: m.metrics for m in run.measurements} for run in runs]
    common = [kimg for kimg in courses[0] if all(kimg in course for course in courses)]
    return {kimg: _mean([course[kimg] for course in courses]) for kimg in sorted(common)}


def score(
    runs: Sequence[RunState],
    metric: str,
    direction: Direction = "maximize",
    up_to_kimg: float = math.inf,
) -> Objective:
    """Averages the best measurements of runs that were all measured."""
    bests = [(run, run.best(metric, direction, up_to_kimg)) for run in runs]
    measured = [(run, best) for run, best in bests if best is not None]
    values = [best.metrics[metric] for _, best in measured]
    return Objective(
        value=fmean(values),
        points_error=_points_error(measured, STANDARD_ERRORS.get(metric, "")),
        redraw_error=redraw_standard_error(mean_curve(runs).values(), metric),
        replicates_error=None if len(values) == 1 else stdev(values) / len(values) ** 0.5,
        kimg=measured[0][1].kimg,
        replicates=len(values),
        metrics=_mean([best.metrics for _, best in measured]),
    )


def _points_error(measured: Sequence[tuple[RunState, Measured]], name: str) -> float | None:
    by_fold: dict[int | None, list[float]] = defaultdict(list)
    for run, best in measured:
        if name not in best.metrics:
            return None
        by_fold[run.fold].append(best.metrics[name])
    if len(measured) == 1:
        return measured[0][1].metrics[name]
    weighted = (sum(errors) / len(measured) for errors in by_fold.values())
    return float(sum(part**2 for part in weighted) ** 0.5)


def _mean(all_metrics: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The mean of each metric that all of them have."""
    if len(all_metrics) == 1:
        return dict(all_metrics[0])
    common = [name for name in all_metrics[0] if all(name in m for m in all_metrics)]
    return {name: fmean(m[name] for m in all_metrics) for name in common}
