"""What one section of a study asks of another."""

from collections.abc import Iterator, Sequence
from decimal import Decimal

from search.objective import ObjectiveSection
from search.sections import BudgetSection, SchedulerSection
from search.spec_errors import Problem
from search.stages import ModelStage, Stage
from search.trial import STANDARD_ERRORS


def check_paired(scheduler: SchedulerSection, objective: ObjectiveSection) -> list[Problem]:
    """Finds a paired rule over a metric that has no points to pair."""
    if not scheduler.paired or objective.metric in STANDARD_ERRORS:
        return []
    message = (
        f"`paired` needs an objective that is a mean over points ({', '.join(STANDARD_ERRORS)}), "
        f"but got metric={objective.metric}"
    )
    return [Problem(("scheduler", "paired"), message)]


def check_several(
    objective: ObjectiveSection, scheduler: SchedulerSection, stages: Sequence[Stage]
) -> Iterator[Problem]:
    """Finds what cannot be had with several objectives.

    A trial that is behind by one may be ahead by another, and no sampler learns from a trial that
    was stopped: it has no values, and Optuna prunes by one objective only.
    """
    if not objective.also:
        return
    where = "must hold where `objective.also` is given"
    if scheduler.kind != "none":
        why = "for a trial behind by one metric may be ahead by another"
        message = f"`kind: none` {where}, {why}, but got kind={scheduler.kind}"
        yield Problem(("scheduler", "kind"), message)
    for index, stage in enumerate(stages):
        if isinstance(stage, ModelStage) and stage.sampler == "cmaes":
            message = f"`sampler: nsga2` (or tpe, gp, sobol, random) {where}, but got cmaes"
            yield Problem(("stages", index, "sampler"), message)


def check_warm_start(folders: Sequence[str], stages: Sequence[Stage]) -> Iterator[Problem]:
    """Finds folders that are there twice, or of which nobody would learn."""
    for position, folder in enumerate(folders):
        if folder in folders[:position]:
            message = f"folders must differ, but {folder} is there twice"
            yield Problem(("warm_start", position), message)
    learn = (isinstance(s, ModelStage) and s.sampler not in ("sobol", "random") for s in stages)
    if folders and not any(learn):
        message = "a stage must learn from it, a `model` with `sampler` tpe, gp, cmaes or nsga2"
        yield Problem(("warm_start",), f"{message}, but none does")


def check_rungs(scheduler: SchedulerSection, budget: BudgetSection) -> list[Problem]:
    """Finds a first rung that no measurement falls on."""
    grace, path = scheduler.grace_kimg, ("scheduler", "grace_kimg")
    if scheduler.kind == "none" or grace is None:
        return []
    factor = scheduler.reduction_factor
    if scheduler.kind == "hyperband" and grace * factor > budget.kimg_per_trial:
        got = f"grace_kimg={grace}, reduction_factor={factor}"
        limit = f"`grace_kimg * reduction_factor <= {budget.kimg_per_trial}` (kimg_per_trial)"
        return [Problem(path, f"{limit} must hold, or no bracket stops anyone, but got {got}")]
    if grace > budget.kimg_per_trial:
        got = f"grace_kimg={grace}, kimg_per_trial={budget.kimg_per_trial}"
        return [Problem(path, f"`grace_kimg <= kimg_per_trial` must hold, but got {got}")]
    if Decimal(repr(grace)) % Decimal(repr(budget.measure_kimg)):
        got = f"grace_kimg={grace}, measure_kimg={budget.measure_kimg}"
        return [Problem(path, f"`grace_kimg` must be a multiple of `measure_kimg`, but got {got}")]
    return []
