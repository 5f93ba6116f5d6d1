"""How long a study still takes: by its plan at first, then at the pace that it keeps."""

from collections.abc import Mapping
from itertools import pairwise

from search import confirming
from search.estimate import Estimate
from search.events import RunKey
from search.ledger import Ledger
from search.run_state import RunState
from search.study import StudySpec

SURE_SECONDS = 30.0  # before that, workers are starting and a pace says nothing


class TimeLeft:
    """What is left of one driver's turn at a study: of its search, and of its confirmation.

    Races and shadows count from when they are claimed; how many there will be nobody can say. A
    confirmation that has begun is taken to be the last.

    Args:
        spec: the study.
        ledger: all that happened, up to date.
        cost: what the whole was expected to cost.
        limit_seconds: what is left of the time budget as this turn begins, or None.
    """

    def __init__(
        self, spec: StudySpec, ledger: Ledger, cost: Estimate, limit_seconds: float | None
    ) -> None:
        self._spec, self._ledger, self._cost = spec, ledger, cost
        self._limit_seconds = limit_seconds
        self._extra_before = ledger.extra_seconds
        self._points = (0.0, *cost.rungs, spec.budget.kimg_per_trial)
        self._counts = (spec.budget.trials, *cost.survivors)  # of trials between two points
        self._planned_seconds = self._seconds_of_plan()
        self._kimg_before = self._kimg_trained({})

    def seconds(self, elapsed_seconds: float, running: Mapping[RunKey, float]) -> float:
        """Returns the seconds left.

        Args:
            elapsed_seconds: since the first run of this turn began; 0 before.
            running: kimg of the runs that are training.
        """
        trained = self._kimg_trained(running) - self._kimg_before
        to_train = self._kimg_left(running)
        if elapsed_seconds < SURE_SECONDS or trained <= 0:
            left = self._planned_seconds - elapsed_seconds
            if left <= 0 and to_train:  # workers took longer to start than the rest was to take
                left = self._planned_seconds * to_train / (to_train + trained)
        else:
            left = to_train * elapsed_seconds / trained
        if self._limit_seconds is not None:
            extra_seconds = self._ledger.extra_seconds - self._extra_before
            left = min(left, self._limit_seconds + extra_seconds - elapsed_seconds)
        return max(left, 0.0)

    def _seconds_of_plan(self) -> float:
        """Those left as this turn begins."""
        budget, cost = self._spec.budget, self._cost
        runs = self._ledger.unfinished()
        searched = self._kimg_unclaimed() + sum(
            self._kimg_to_go(run, _reached(run, {})) for run in runs if run.purpose == "search"
        )
        plan = budget.trials * self._spec.replication.replicates * self._kimg_thinned(0.0)
        whole = [
            self._kimg_to_go(run, _reached(run, {})) for run in runs if run.purpose != "search"
        ]
        at_a_time = max(sum(whole) / cost.processes, max(whole, default=0.0))
        return (
            cost.seconds * searched / plan
            + cost.trial_seconds * at_a_time / budget.kimg_per_trial
            + cost.seconds_of(self._confirmations_to_come())
        )

    def _kimg_left(self, running: Mapping[RunKey, float]) -> float:
        """What is to be trained; where not all places are taken, as if they were."""
        to_go = {
            run.key: self._kimg_to_go(run, _reached(run, running))
            for run in self._ledger.unfinished()
        }
        # The last run of a phase trains by itself, at its own share of the pace.
        longest = max((to_go[key] for key in running if key in to_go), default=0.0)
        now = max(sum(to_go.values()) + self._kimg_unclaimed(), longest * len(running))
        rounds = -(-self._confirmations_to_come() // self._cost.processes)
        return now + rounds * self._cost.processes * self._spec.budget.kimg_per_trial

    def _kimg_unclaimed(self) -> float:
        """What the search is to train in trials that nobody has proposed yet."""
        if self._ledger.search_over:
            return 0.0
        proposed = sum(trial.donor is None for trial in self._ledger.trials.values())
        unproposed = max(self._spec.budget.trials + self._ledger.added_trials - proposed, 0)
        return unproposed * self._spec.replication.replicates * self._kimg_thinned(0.0)

    def _kimg_to_go(self, run: RunState, kimg: float) -> float:
        """What a run that has come so far trains further; rungs stop those of the search alone."""
        if run.purpose == "search":
            return self._kimg_thinned(kimg)
        return max(self._spec.budget.kimg_per_trial - kimg, 0.0)

    def _kimg_thinned(self, kimg: float) -> float:
        """What a run of the search is expected to train further, as halving is to stop it."""
        passed = sum(rung <= kimg for rung in self._points[1:-1])
        stretches = list(zip(self._counts, pairwise(self._points), strict=True))[passed:]
        return sum(
            count / self._counts[passed] * (end - max(start, kimg))
            for count, (start, end) in stretches
        )

    def _confirmations_to_come(self) -> int:
        """Trainings in full that are planned or due, and not claimed."""
        if self._ledger.confirmation is None:
            return self._cost.confirm_runs
        return len(confirming.claims(self._spec, self._ledger))

    def _kimg_trained(self, running: Mapping[RunKey, float]) -> float:
        return sum(
            max(0.0, _reached(run, running) - self._begun_at(run)) for run in self._ledger.runs
        )

    def _begun_at(self, run: RunState) -> float:
        """Kimg that others had trained: the donor of an exploit, the run that a shadow continues.

        A shadow whose checkpoint was gone began at 0.
        """
        kimg = run.inherited_kimg
        if run.continues is not None:
            stopped = self._ledger.trials[run.number].runs[run.continues]
            kimg = stopped.checkpoint.kimg if stopped.checkpoint else 0.0
        return min(kimg, run.from_kimg) if run.attempts else kimg


def _reached(run: RunState, running: Mapping[RunKey, float]) -> float:
    """Kimg that a run has come to; one that waits stands at its checkpoint."""
    if run.ended:
        return run.total_kimg
    return running.get(run.key, run.checkpoint.kimg if run.checkpoint else 0.0)
