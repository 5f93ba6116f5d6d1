"""Whether trials were stopped wrongly: a share of them is trained on, and nobody is told."""

import hashlib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from search.events import Replicated
from search.ledger import Ledger
from search.run_state import RunState
from search.study import StudySpec
from search.trial import TrialState

_Z = 1.959964  # of a standard normal, 95 % two-sided


def shadow_claims(spec: StudySpec, ledger: Ledger) -> list[Replicated]:
    """The shadows that are still missing; one that the clock cut is made anew.

    A stopped trial gets one for each of its runs that was stopped, so that what it would have
    come to is the same mean as any trial's objective. Which trials, a hash of study seed and
    number says.
    """
    return [
        claim
        for trial in ledger.trials.values()
        if _stopped(trial, spec) and shadowed(spec.seed, trial.number, spec.scheduler.shadow)
        for claim in _claims(trial)
    ]


def shadowed(study_seed: int, number: int, share: float) -> bool:
    """Whether a trial is trained on if it is stopped."""
    digest = hashlib.sha256(f"{study_seed}/{number}/shadow".encode()).digest()
    return int.from_bytes(digest[:8]) < share * 2**64


@dataclass(frozen=True, kw_only=True)
class FalseKills:
    """How often early stopping was wrong.

    A false kill is a trial that was stopped and would, trained in full, have been the winner: its
    objective is better than that of the search's best, it keeps all constraints and beats the
    untrained line. (Domhan et al. 2015 stop a run only where it is unlikely to beat the best one;
    this is how often that came out otherwise.)

    Attributes:
        stopped: Trials that the scheduler stopped.
        shadowed: Those of them that were trained to their end all the same, or diverged.
        false_kills: Those of these that would have won.
    """

    stopped: int
    shadowed: int
    false_kills: int

    @classmethod
    def of(cls, spec: StudySpec, ledger: Ledger, untrained: float | None) -> "FalseKills":
        """Counts them; `untrained` is the score that a winner must beat."""
        stopped = [trial for trial in ledger.trials.values() if _stopped(trial, spec)]
        whole = [one for trial in stopped if (one := _in_full(trial)) is not None]
        return cls(
            stopped=len(stopped),
            shadowed=len(whole),
            false_kills=sum(_would_win(trial, spec, ledger, untrained) for trial in whole),
        )

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval of their share."""
        return wilson_interval(self.false_kills, self.shadowed)

    def to_mapping(self) -> dict[str, Any]:
        """Returns the entry of `summary.json`; rate and interval are null where nobody was."""
        rate = self.false_kills / self.shadowed if self.shadowed else None
        return {
            "stopped": self.stopped,
            "shadowed": self.shadowed,
            "false_kills": self.false_kills,
            "false_kill_rate": rate,
            "interval": list(self.interval) if self.shadowed else None,
        }


def wilson_interval(successes: int, trials: int) -> tuple[float, float]:
    """The 95 % score interval of a share (Wilson 1927).

    (p + z^2/2n ± z sqrt(p (1 - p)/n + z^2/4n^2)) / (1 + z^2/n), with p = successes/trials.
    """
    n, p = trials, successes / trials
    center, scale = p + _Z**2 / (2 * n), 1 + _Z**2 / n
    half = _Z * math.sqrt(p * (1 - p) / n + _Z**2 / (4 * n**2))
    return max(0.0, (center - half) / scale), min(1.0, (center + half) / scale)


def describe_shadow(entry: Mapping[str, Any]) -> str:
    """Says in a line what the entry of `summary.json` does."""
    stopped, shadowed_too = entry["stopped"], entry["shadowed"]
    if not shadowed_too:
        return f"shadow: none of {stopped} stopped trials was trained on"
    low, high = (100 * end for end in entry["interval"])
    return (
        f"shadow: of {stopped} stopped trials {shadowed_too} were trained on in full, "
        f"{entry['false_kills']} would have won: {100 * entry['false_kill_rate']:.0f} % false "
        f"kills (95 % interval {low:.0f} to {high:.0f} %)"
    )


def _stopped(trial: TrialState, spec: StudySpec) -> bool:
    """Whether the scheduler stopped it, and not the clock or a user."""
    return trial.state == "STOPPED" and trial.reason == spec.scheduler.kind


def _claims(trial: TrialState) -> Iterator[Replicated]:
    halted = [run for run in trial.search_runs if run.state == "STOPPED"]
    had = {replicate for replicate, run in trial.shadows.items() if not run.cut_off}
    missing = [run for run in halted if run.replicate not in had]
    for replicate, run in enumerate(missing, start=len(trial.runs)):
        yield Replicated(
            number=run.number,
            replicate=replicate,
            purpose="shadow",
            seed=run.seed,
            fold=run.fold,
            noise_draw=run.noise_draw,
            continues=run.replicate,
        )


def _in_full(trial: TrialState) -> TrialState | None:
    """The trial as it would have been; None where not all of its shadows came to their end."""
    runs = dict(_runs_in_full(trial))
    ended = all(run.state in ("COMPLETED", "INFEASIBLE") for run in runs.values())
    return replace(trial, runs=runs) if ended else None


def _runs_in_full(trial: TrialState) -> Iterator[tuple[int, RunState]]:
    for run in trial.search_runs:
        shadow = trial.shadows.get(run.replicate, run)
        yield run.replicate, replace(shadow, replicate=run.replicate, purpose="search")


def _would_win(
    trial: TrialState, spec: StudySpec, ledger: Ledger, untrained: float | None
) -> bool:
    """Whether it would be the incumbent, and a better one than there is."""
    aim, others = spec.objective, Ledger()
    others.trials.update({**ledger.trials, trial.number: trial})
    best, now = (
        one.incumbent(aim.metric, aim.direction, untrained, aim.bounds) for one in (ledger, others)
    )
    if now is not trial or best is None:
        return now is trial
    before, after = (one.objective(aim.metric, aim.direction) for one in (best, now))
    return before is None or after is None or before.value != after.value
