"""What a study tries next: manual points, cells of a grid, proposals of a model."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import replace

from optuna.trial import FrozenTrial

from search.cell import cell_key
from search.domains import Params
from search.events import Proposed
from search.events import Stage as StageName
from search.evolution import evolved_point
from search.frozen_trial import DIVERGED, to_frozen_trial
from search.grid import all_cells, random_order
from search.ledger import Ledger
from search.quasi_random import sobol_point
from search.sampling import make_sampler, proposal_seed, propose, rebuild_study
from search.seen_trial import SeenTrial, ranked, seen
from search.stage_plan import PlannedStage, plan_stages, stage_cells, stage_trials
from search.stages import ModelStage, SamplerName
from search.study import StudySpec
from search.trial import TrialState

_ASKS = 8  # of the model before its repeated proposals are given up


def trial_seed(study_seed: int, number: int, replicate: int = 0) -> int:
    """The seed of a training: 63 bits of a hash, so that it can be made anew on any machine."""
    digest = hashlib.sha256(f"{study_seed}/{number}/{replicate}".encode()).digest()
    return int.from_bytes(digest[:8]) >> 1


def claim(
    spec: StudySpec,
    params: Params,
    number: int,
    *,
    stage: StageName,
    index: int,
    request: str | None = None,
) -> Proposed:
    """Returns the event that claims a cell and the runs of its trial.

    Args:
        spec: the study.
        params: the cell's point, canonical.
        number: the next one.
        stage: the kind of stage that proposes it.
        index: the position of that stage; beyond the plan's where a request does.
        request: its id.
    """
    replication = spec.replication
    seeds = [trial_seed(spec.seed, number, r) for r in range(replication.replicates)]
    return Proposed(
        number=number,
        stage=stage,
        stage_index=index,
        params=params,
        cell=cell_key(params),
        seed=seeds[0],
        further_seeds=tuple(seeds[1:]),
        folds=replication.folds,
        request=request,
    )


class Proposer:
    """Proposes cells that nobody has claimed, stage by stage; keeps no state of its own.

    Args:
        spec: The study.
        earlier: Trials of earlier studies, which models are told of before its own. Their cells
            are not claimed: they may be tried again.
    """

    def __init__(self, spec: StudySpec, earlier: Sequence[SeenTrial] = ()) -> None:
        self._spec, self._earlier = spec, earlier
        self._counts = stage_trials(spec.stages, spec.space, spec.seed)
        self._cells: dict[int, dict[str, Params]] = {}

    def propose(self, ledger: Ledger) -> Proposed | None:
        """Returns the next proposal, not yet recorded; None when every stage has ended."""
        for planned in self._plan(ledger):
            if _taken(ledger, planned.index) >= planned.trials:
                continue
            params = self._unclaimed(planned, ledger)
            if params is not None:
                stage, index = planned.stage.kind, planned.index
                return claim(self._spec, params, ledger.next_number(), stage=stage, index=index)
        return None

    def has_more(self, ledger: Ledger) -> bool:
        """Whether a stage has trials left; cheap, and only a stage may find that it has not."""
        return any(
            _taken(ledger, planned.index) < planned.trials for planned in self._plan(ledger)
        )

    def _plan(self, ledger: Ledger) -> list[PlannedStage]:
        """The stages' shares; what `--trials +N` adds beyond them all goes to the last one."""
        budget = self._spec.budget.trials + ledger.extra_trials
        plan = list(plan_stages(self._spec.stages, self._counts, budget))
        spare = budget - sum(planned.trials for planned in plan)
        plan[-1] = replace(plan[-1], trials=plan[-1].trials + spare)
        return plan

    def _unclaimed(self, planned: PlannedStage, ledger: Ledger) -> Params | None:
        if isinstance(planned.stage, ModelStage):
            proposals = self._modelled(planned.stage.sampler, planned.index, ledger)
            return next((p for p in proposals if cell_key(p) not in ledger.cells), None)
        cells = self._listed(planned)
        return next((params for key, params in cells.items() if key not in ledger.cells), None)

    def _listed(self, planned: PlannedStage) -> dict[str, Params]:
        if planned.index not in self._cells:
            cells = stage_cells(planned.stage, self._spec.space, self._spec.seed)
            self._cells[planned.index] = {cell_key(cell): cell for cell in cells}
        return self._cells[planned.index]

    def _modelled(self, sampler: SamplerName, stage: int, ledger: Ledger) -> Iterator[Params]:
        """The model's proposals, then random ones: all cells there are, if they can be listed."""
        for attempt in range(_ASKS):
            yield self._ask(sampler, stage, ledger, attempt)
        cells = all_cells(self._spec.space)
        if cells is not None:
            seed = proposal_seed(self._spec.seed, ledger.next_number(), _ASKS)
            yield from random_order(cells, seed)
            return
        for attempt in range(_ASKS, 2 * _ASKS):
            yield self._ask("random", stage, ledger, attempt)

    def _ask(self, sampler: SamplerName, stage: int, ledger: Ledger, attempt: int) -> Params:
        spec, space = self._spec, self._spec.space
        seed = proposal_seed(spec.seed, ledger.next_number(), attempt)
        if sampler == "sobol":
            return sobol_point(space, spec.seed, _taken(ledger, stage) + attempt)
        own = [seen(trial, spec.objective) for trial in ledger.trials.values()]
        told = [*self._earlier, *own]
        if sampler == "cmaes":
            return self._evolved(told, stage, seed)
        directions = [aim.direction for aim in spec.objective.aims]
        study = rebuild_study(self._told(told), make_sampler(sampler, seed), directions)
        return propose(study, space)

    def _evolved(self, told: Sequence[SeenTrial], stage: int, seed: int) -> Params:
        ended = [trial for trial in told if trial.state not in ("RUNNING", "FAILED")]
        order = ranked(ended, self._spec.objective)
        rank = {id(trial): position for position, trial in enumerate(order)}
        own = [(t.params, rank[id(t)]) for t in ended if t.stage_index == stage]
        before = [trial.params for trial in order if trial.stage_index < stage]
        return evolved_point(self._spec.space, own, seed, before[0] if before else None)

    def told(self, trials: Sequence[TrialState]) -> list[FrozenTrial]:
        """The study's own trials as samplers are told of them."""
        return self._told([seen(trial, self._spec.objective) for trial in trials])

    def _told(self, trials: Sequence[SeenTrial]) -> list[FrozenTrial]:
        """The trials as Optuna's; a diverged one counts as the worst whole one.

        A Gaussian process takes values for what they are, and would see nothing beside a huge one.
        """
        directions = [aim.direction for aim in self._spec.objective.aims]
        whole = [t.values for t in trials if t.state == "COMPLETED" and t.values is not None]
        worst = [
            (min if way == "maximize" else max)(column)
            for way, column in zip(directions, zip(*whole, strict=True), strict=False)
        ]
        told = []
        for trial, violations in zip(trials, _violations(trials), strict=True):
            values = (worst or None) if trial.state == "INFEASIBLE" else trial.values
            unknown = trial.state == "COMPLETED" and values is None
            state = "FAILED" if unknown else trial.state
            told.append(
                to_frozen_trial(
                    self._spec.space,
                    trial.params,
                    state,
                    values,
                    trial.curve,
                    directions,
                    violations,
                )
            )
        return told


def _violations(trials: Sequence[SeenTrial]) -> list[dict[str, float]]:
    """How far each trial lies beyond the constraints that any breaks.

    One that nobody breaks teaches nothing, and costs a Gaussian process a second fit a proposal.
    """
    every = [{DIVERGED: float(t.state == "INFEASIBLE"), **t.violations} for t in trials]
    ended = [
        found
        for trial, found in zip(trials, every, strict=True)
        if trial.state not in ("RUNNING", "FAILED")
    ]
    broken = {name for found in ended for name, beyond in found.items() if beyond}
    return [{name: found[name] for name in found if name in broken} for found in every]


def _taken(ledger: Ledger, stage_index: int) -> int:
    return sum(trial.stage_index == stage_index for trial in ledger.trials.values())
