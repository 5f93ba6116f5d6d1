"""What a study has claimed: cells, the trials that have them, and the runs of those."""

from dataclasses import dataclass, field

from search.cell import cell_key
from search.events import Checkpointed, Donor, Proposed, Replicated
from search.run_state import RunState
from search.trial import TrialState


@dataclass
class Claims:
    """Every cell exactly once, and the trial and the runs that were claimed with it.

    Attributes:
        trials: Every trial by its number 0, 1, 2, ... in order.
        cells: The number under which each cell was claimed.
    """

    trials: dict[int, TrialState] = field(default_factory=dict)
    cells: dict[str, int] = field(default_factory=dict)

    def refusal(self, event: Proposed | Replicated) -> str | None:
        """Says why `event` cannot follow; None where it can. A replicate's trial must be there."""
        if isinstance(event, Proposed):
            return self._refusal_to_propose(event)
        return self._refusal_to_replicate(event)

    def take(self, event: Proposed | Replicated) -> None:
        """Takes in an event that was not refused."""
        if isinstance(event, Proposed):
            self._propose(event)
        else:
            self._replicate(event)

    def _refusal_to_propose(self, event: Proposed) -> str | None:
        if event.number != len(self.trials):
            return f"`number == {len(self.trials)}` must hold, but got number={event.number}"
        key = cell_key(event.params)
        if event.cell != key:
            return f"`cell` must be {key}, but got cell={event.cell}"
        if key in self.cells:
            return f"its cell {key} is trial {self.cells[key]} already"
        if event.donor is not None:
            return self._refusal_to_exploit(event, event.donor)
        return None

    def _refusal_to_exploit(self, event: Proposed, donor: Donor) -> str | None:
        if any(number not in self.trials for number in (donor.number, event.replaces)):
            return "its donor and the trial that it replaces must be trials"
        saved = self.trials[donor.number].first.checkpoint
        if saved is None or (saved.kimg, saved.path) != (donor.kimg, donor.path):
            return f"its donor {donor.number} has no such checkpoint at {donor.kimg} kimg"
        if any(trial.replaces == event.replaces for trial in self.trials.values()):
            return f"trial {event.replaces} is replaced already"
        return None

    def _refusal_to_replicate(self, event: Replicated) -> str | None:
        trial = self.trials[event.number]
        if event.replicate != len(trial.runs):
            return (
                f"`replicate == {len(trial.runs)}` must hold, but got replicate={event.replicate}"
            )
        if event.continues is None:
            return None
        stopped = trial.runs.get(event.continues)
        if stopped is None or stopped.purpose != "search" or stopped.state != "STOPPED":
            return f"its replicate {event.continues} is no run of the search that was stopped"
        if (event.seed, event.fold) != (stopped.seed, stopped.fold):
            return f"it must have seed and fold of replicate {event.continues}, which it continues"
        before = trial.shadows.get(event.continues)
        if before is not None and not before.cut_off:
            return f"its replicate {event.continues} is continued already"
        return None

    def _propose(self, event: Proposed) -> None:
        self.trials[event.number] = TrialState(
            number=event.number,
            stage=event.stage,
            stage_index=event.stage_index,
            params=event.params,
            cell=event.cell,
            seed=event.seed,
            proposed_at=event.at,
            donor=event.donor,
            replaces=event.replaces,
        )
        self.cells[event.cell] = event.number
        self._claim_runs(event)

    def _claim_runs(self, event: Proposed) -> None:
        runs = self.trials[event.number].runs
        for replicate, seed in enumerate((event.seed, *event.further_seeds)):
            runs[replicate] = RunState(
                number=event.number,
                replicate=replicate,
                purpose="search",
                seed=seed,
                fold=event.fold(replicate),
                noise_draw=0,
                claimed_at=event.at,
            )
        if event.donor is not None:
            self._inherit(runs[0], event.donor)

    def _inherit(self, run: RunState, donor: Donor) -> None:
        before = self.trials[donor.number].first
        run.checkpoint = Checkpointed(number=run.number, kimg=donor.kimg, path=donor.path)
        run.inherited_kimg = donor.kimg
        run.streams, run.torch, run.processor = before.streams, before.torch, before.processor

    def _replicate(self, event: Replicated) -> None:
        runs = self.trials[event.number].runs
        if event.continues is not None:
            runs[event.replicate] = runs[event.continues].continued(event)
            return
        runs[event.replicate] = RunState(
            number=event.number,
            replicate=event.replicate,
            purpose=event.purpose,
            seed=event.seed,
            fold=event.fold,
            noise_draw=event.noise_draw,
            claimed_at=event.at,
        )
