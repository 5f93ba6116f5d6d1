"""How long a study still takes: by its plan at first, then at the pace that it keeps."""

from collections.abc import Mapping
from itertools import pairwise

from search.estimate import Estimate
from search.events import RunKey
from search.ledger import Ledger
from search.study import StudySpec

SURE_SECONDS = 30.0  # before that, workers are starting and a pace says nothing


class TimeLeft:
    """What is left of one driver's turn at a study.

    Args:
        spec: the study.
        ledger: all that happened, up to date.
        cost: what the whole was expected to cost.
        limit_seconds: what is left of the time budget as this turn begins, or None.
    """

    def __init__(
        self, spec: StudySpec, ledger: Ledger, cost: Estimate, limit_seconds: float | None
    ) -> None:
        self._budget, self._ledger, self._limit_seconds = spec.budget, ledger, limit_seconds
        self._replicates = spec.replication.replicates
        self._extra_before = ledger.extra_seconds
        self._points = (0.0, *cost.rungs, spec.budget.kimg_per_trial)
        self._counts = (spec.budget.trials, *cost.survivors)  # of trials between two points
        self._planned_seconds = cost.seconds * self._kimg_left({}) / self._kimg_of_plan()
        self._kimg_before = self._kimg_trained({})

    def seconds(self, elapsed_seconds: float, running: Mapping[RunKey, float]) -> float:
        """Returns the seconds left.

        Args:
            elapsed_seconds: since this turn began.
            running: kimg of the runs that are training.
        """
        trained = self._kimg_trained(running) - self._kimg_before
        if elapsed_seconds < SURE_SECONDS or trained <= 0:
            left = self._planned_seconds - elapsed_seconds
        else:
            longest = max(map(self._kimg_to_go, running.values()), default=0.0)
            # The last trial trains by itself, at its own share of the pace.
            kimg = max(self._kimg_left(running), longest * len(running))
            left = kimg * elapsed_seconds / trained
        if self._limit_seconds is not None:
            extra_seconds = self._ledger.extra_seconds - self._extra_before
            left = min(left, self._limit_seconds + extra_seconds - elapsed_seconds)
        return max(left, 0.0)

    def _kimg_to_go(self, kimg: float) -> float:
        """What a trial is expected to train further, as halving is planned to stop it."""
        passed = sum(rung <= kimg for rung in self._points[1:-1])
        stretches = list(zip(self._counts, pairwise(self._points), strict=True))[passed:]
        return sum(
            count / self._counts[passed] * (end - max(start, kimg))
            for count, (start, end) in stretches
        )

    def _kimg_of_plan(self) -> float:
        return self._budget.trials * self._replicates * self._kimg_to_go(0.0)

    def _kimg_left(self, running: Mapping[RunKey, float]) -> float:
        unproposed = self._budget.trials + self._ledger.added_trials - len(self._ledger.trials)
        reached = self._reached(running).values()
        unclaimed = max(unproposed, 0) * self._replicates
        return sum(map(self._kimg_to_go, reached)) + unclaimed * self._kimg_to_go(0.0)

    def _kimg_trained(self, running: Mapping[RunKey, float]) -> float:
        ended = [run.total_kimg for run in self._ledger.runs if run.ended]
        return sum(ended) + sum(self._reached(running).values())

    def _reached(self, running: Mapping[RunKey, float]) -> dict[RunKey, float]:
        """Kimg of the runs that have not ended; those that wait stand at their checkpoints."""
        return {
            run.key: running.get(run.key, run.checkpoint.kimg if run.checkpoint else 0.0)
            for run in self._ledger.unfinished()
        }
