"""What a study tries next: manual points, cells of a grid, proposals of a model."""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import replace

from optuna.trial import FrozenTrial

from search.domains import CategoricalDomain, FloatDomain, Params
from search.events import Proposed
from search.grid import grid_cells, random_order
from search.ledger import Ledger, cell_key
from search.sampling import (
    SamplerName,
    make_sampler,
    proposal_seed,
    propose,
    rebuild_study,
    to_frozen_trial,
)
from search.space import Space, canonical_point
from search.spec_errors import ProblemsError
from search.stages import ManualStage, ModelStage, PlannedStage, RandomGridStage, plan_stages
from search.study import StudySpec
from search.trial import TrialState

_ASKS = 8  # of the model before its repeated proposals are given up


def trial_seed(study_seed: int, number: int, replicate: int = 0) -> int:
    """The seed of a training: 63 bits of a hash, so that it can be made anew on any machine."""
    digest = hashlib.sha256(f"{study_seed}/{number}/{replicate}".encode()).digest()
    return int.from_bytes(digest[:8]) >> 1


class Proposer:
    """Proposes cells that nobody has claimed, stage by stage; keeps no state of its own."""

    def __init__(self, spec: StudySpec) -> None:
        self._spec = spec
        self._grids: dict[int, dict[str, Params]] = {}

    def propose(self, ledger: Ledger) -> Proposed | None:
        """Returns the next proposal, not yet recorded; None when every stage has ended."""
        for planned in self._plan(ledger):
            if _taken(ledger, planned.index) >= planned.trials:
                continue
            params = self._unclaimed(planned, ledger)
            if params is not None:
                return self._proposed(planned, params, ledger.next_number())
        return None

    def _proposed(self, planned: PlannedStage, params: Params, number: int) -> Proposed:
        return Proposed(
            number=number,
            stage=planned.stage.kind,
            stage_index=planned.index,
            params=params,
            cell=cell_key(params),
            seed=trial_seed(self._spec.seed, number),
        )

    def _plan(self, ledger: Ledger) -> list[PlannedStage]:
        """The stages' shares; what `--trials +N` adds beyond them all goes to the last one."""
        budget = self._spec.budget.trials + ledger.extra_trials
        plan = list(plan_stages(self._spec.stages, budget))
        spare = budget - sum(planned.trials for planned in plan)
        plan[-1] = replace(plan[-1], trials=plan[-1].trials + spare)
        return plan

    def _unclaimed(self, planned: PlannedStage, ledger: Ledger) -> Params | None:
        stage = planned.stage
        candidates: Iterable[Params]
        if isinstance(stage, ManualStage):
            points = stage.points[: planned.trials]
            candidates = (canonical_point(self._spec.space, point) for point in points)
        elif isinstance(stage, RandomGridStage):
            candidates = self._grid(planned.index, stage).values()
        else:
            candidates = self._modelled(stage, ledger)
        return next((c for c in candidates if cell_key(c) not in ledger.cells), None)

    def _grid(self, index: int, stage: RandomGridStage) -> dict[str, Params]:
        if index not in self._grids:
            cells = random_order(grid_cells(self._spec.space, stage.levels), self._spec.seed)
            self._grids[index] = {cell_key(cell): cell for cell in cells}
        return self._grids[index]

    def _modelled(self, stage: ModelStage, ledger: Ledger) -> Iterator[Params]:
        """The model's proposals, then random ones: all cells there are, if they can be listed."""
        seed, number = self._spec.seed, ledger.next_number()
        told = [self._told(trial) for trial in ledger.trials.values()]
        for attempt in range(_ASKS):
            yield self._ask(stage.sampler, proposal_seed(seed, number, attempt), told)
        cells = _all_cells(self._spec.space)
        if cells is not None:
            yield from random_order(cells, proposal_seed(seed, number, _ASKS))
            return
        for attempt in range(_ASKS, 2 * _ASKS):
            yield self._ask("random", proposal_seed(seed, number, attempt), told)

    def _ask(self, sampler: SamplerName, seed: int, told: list[FrozenTrial]) -> Params:
        direction = self._spec.objective.direction
        study = rebuild_study(told, make_sampler(sampler, seed), direction)
        return propose(study, self._spec.space)

    def _told(self, trial: TrialState) -> FrozenTrial:
        metric, direction = self._spec.objective.metric, self._spec.objective.direction
        objective = trial.objective(metric, direction)
        measured = {m.kimg: m.metrics[metric] for m in trial.measurements if metric in m.metrics}
        unknown = trial.state == "COMPLETED" and objective is None
        return to_frozen_trial(
            self._spec.space,
            trial.params,
            "FAILED" if unknown else trial.state,
            objective.value if objective else None,
            measured,
            direction,
        )


def _taken(ledger: Ledger, stage_index: int) -> int:
    return sum(trial.stage_index == stage_index for trial in ledger.trials.values())


def _all_cells(space: Space) -> list[Params] | None:
    """Every cell of a finite space; None where they are endless or too many to list."""
    levels: dict[str, tuple[float | int | str | bool, ...]] = {}
    for name, branches in space.items():
        values: list[float | int | str | bool] = []
        for domain in branches:
            if isinstance(domain, CategoricalDomain):
                values += domain.choices
            elif isinstance(domain, FloatDomain):
                if domain.step is None and domain.low < domain.high:
                    return None
                step = domain.step or 1.0
                count = round((domain.high - domain.low) / step) + 1
                values += domain.spread(count)
            else:
                values += range(domain.low, domain.high + 1, domain.step)
        levels[name] = tuple(dict.fromkeys(values))
    try:
        return grid_cells(space, levels)
    except ProblemsError:
        return None
