"""Population based training: at each interval the worst go on as changed copies of the best."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from cgan_core.streams import stream
from search.cell import cell_key
from search.domains import Params
from search.events import Donor, Ended, Promoted, Proposed
from search.explore import guided, perturbed
from search.gains import gains_of, score_at
from search.ledger import Ledger
from search.proposer import trial_seed
from search.run_state import RunState
from search.study import StudySpec
from search.time_varying_gp import TimeVaryingGP
from search.trial import TrialState
from search.unit_cube import coordinates_of
from search.waiting import Decision, stands_at

# Draws of a configuration that nobody has claimed; one of `pb2` offers hundreds.
_ATTEMPTS = {"pbt": 64, "pb2": 4}


class Generations:
    """Exploit and explore (Jaderberg et al. 2017), as pure functions of the ledger.

    The trials of the stages are the population. At each multiple of the interval every one waits
    for all the others, so that whoever trains faster, the decisions are the same. Then those in
    the bottom quantile by the score at that point stop, and each one's place is taken by a new
    trial: it begins from the state, at that point, of a *donor* drawn from the top quantile, with
    the donor's parameters perturbed (`pbt`), or chosen by what others gained with theirs (`pb2`).

    All exploits of an interval are recorded before anyone goes on: so a donor is still where its
    state is wanted, and a study that was killed in between decides the rest as it would have.

    Args:
        spec: The study.
    """

    strict: ClassVar[bool] = True

    def __init__(self, spec: StudySpec) -> None:
        interval, end = spec.scheduler.interval_kimg, spec.budget.kimg_per_trial
        assert interval is not None
        count = math.ceil(round(end / interval, 9)) - 1
        self._levels = tuple(interval * (index + 1) for index in range(count))
        self._spec = spec

    def waits(self, run: RunState, ledger: Ledger) -> bool:
        """Whether it stands at an interval at which nothing is decided yet of its trial.

        One that was lost before it was saved there has to come there again.
        """
        level = stands_at(run, self._levels)
        if level is None or level <= ledger.trials[run.number].promoted_kimg:
            return False
        return run.active or _waits_saved(ledger.trials[run.number], level)

    def decision(self, ledger: Ledger) -> Decision | None:
        """The next step of a population that is complete."""
        population = self._spec.budget.trials + ledger.added_trials
        return None if len(_founders(ledger)) < population else self.last_decision(ledger)

    def last_decision(self, ledger: Ledger) -> Decision | None:
        """The next step of the population, if it is to grow no more."""
        for level in self._levels:
            occupants = _occupants(ledger, level)
            if not all(_has_come(trial, level) for trial in occupants):
                return None
            decision = self._decide(ledger, level, occupants)
            if decision is not None:
                return decision
        return None

    def _decide(
        self, ledger: Ledger, level: float, occupants: Sequence[TrialState]
    ) -> Decision | None:
        """An exploit, then the end of those that were replaced, then the others go on."""
        replaced = {trial.replaces for trial in ledger.trials.values()}
        if all(trial.promoted_kimg < level for trial in occupants):
            pairs = list(self._pairs(level, occupants))
            losers = {pair.loser.number for pair in pairs}
            going_on = [t for t in occupants if not t.first.ended and t.number not in losers]
            for pair in pairs:
                if pair.loser.number in replaced:
                    continue
                exploit = self._exploit(pair, ledger, going_on)
                if exploit is not None:
                    return exploit
        waiting = [t for t in occupants if not t.first.ended and t.promoted_kimg < level]
        for trial in sorted(waiting, key=lambda one: one.number not in replaced):
            if trial.number in replaced:
                reason = self._spec.scheduler.kind
                return Ended(number=trial.number, state="STOPPED", reason=reason)
            return Promoted(number=trial.number, kimg=level)
        return None

    def _pairs(self, level: float, occupants: Sequence[TrialState]) -> "Iterator[_Pair]":
        """Who is to be replaced, and from whose state."""
        objective = self._spec.objective
        values = {trial.number: score_at(trial, level, objective) for trial in occupants}
        ranked = sorted(occupants, key=lambda trial: (values[trial.number], trial.number))
        count = max(1, math.floor(self._spec.scheduler.quantile * len(ranked)))
        donors = [trial for trial in ranked[-count:] if _is_donor(trial, level)]
        for loser in ranked[:count] if donors else []:
            rng = stream(self._spec.seed, "donor", loser.number)
            donor = donors[int(rng.integers(len(donors)))]
            if values[loser.number] < values[donor.number]:
                yield _Pair(loser, donor)

    def _exploit(
        self, pair: "_Pair", ledger: Ledger, going_on: Sequence[TrialState]
    ) -> Proposed | None:
        number, saved = ledger.next_number(), pair.donor.first.checkpoint
        assert saved is not None
        for params in self._explored(pair.donor, ledger, going_on):
            if cell_key(params) not in ledger.cells:
                return Proposed(
                    number=number,
                    stage="exploit",
                    stage_index=len(self._spec.stages),
                    params=params,
                    cell=cell_key(params),
                    seed=trial_seed(self._spec.seed, number),
                    donor=Donor(number=pair.donor.number, kimg=saved.kimg, path=saved.path),
                    replaces=pair.loser.number,
                )
        return None  # the loser goes on: its small space has nothing new to offer

    def _explored(
        self, donor: TrialState, ledger: Ledger, going_on: Sequence[TrialState]
    ) -> Iterator[Params]:
        """Configurations for a copy of a donor, the most wanted first."""
        space, kind, number = self._spec.space, self._spec.scheduler.kind, ledger.next_number()
        attempts = (
            stream(self._spec.seed, f"explore {number}", attempt)
            for attempt in range(_ATTEMPTS[kind])
        )
        if kind == "pbt":
            yield from (perturbed(space, donor.params, rng) for rng in attempts)
            return
        here = donor.first.total_kimg
        levels = [level for level in self._levels if level <= here * (1 + 1e-9)]
        gains = gains_of(ledger, space, self._spec.objective, levels)
        process = TimeVaryingGP.fit(gains.points, gains.intervals, gains.rewards)
        copies = [t for t in ledger.trials.values() if t.donor is not None]
        born = [t for t in copies if math.isclose(t.first.inherited_kimg, here)]
        pending = np.array([coordinates_of(space, t.params) for t in (*going_on, *born)])
        for rng in attempts:
            yield from guided(space, donor.params, process, float(len(levels)), pending, rng)


@dataclass(frozen=True)
class _Pair:
    loser: TrialState
    donor: TrialState


def _founders(ledger: Ledger) -> list[TrialState]:
    return [trial for trial in ledger.trials.values() if trial.donor is None]


def _occupants(ledger: Ledger, level: float) -> list[TrialState]:
    """Who has each place of the population just before the decisions at a level."""
    heirs = {trial.replaces: trial for trial in ledger.trials.values() if trial.donor is not None}
    occupants = []
    for trial in _founders(ledger):
        heir = heirs.get(trial.number)
        while heir is not None and heir.first.inherited_kimg < level * (1 - 1e-9):
            trial, heir = heir, heirs.get(heir.number)
        occupants.append(trial)
    return occupants


def _has_come(trial: TrialState, level: float) -> bool:
    """Whether it ended, was decided on there, or waits there with its state saved."""
    return trial.first.ended or trial.promoted_kimg >= level or _waits_saved(trial, level)


def _is_donor(trial: TrialState, level: float) -> bool:
    return not trial.first.ended and _waits_saved(trial, level)


def _waits_saved(trial: TrialState, level: float) -> bool:
    run = trial.first
    if run.active or run.checkpoint is None or not run.measurements:
        return False
    return math.isclose(run.total_kimg, level) and math.isclose(run.checkpoint.kimg, level)
