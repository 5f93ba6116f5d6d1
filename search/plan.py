"""What a study will do and cost, in a few lines."""

import math

from search.confirming import kept_back_seconds
from search.estimate import Estimate, brackets_of, duration, survivors_of
from search.ledger import Ledger
from search.study import StudySpec

_ELSEWHERE = (
    "            (times are by a processor of this machine; trials train on GPUs, and once they "
    "do, the time left is by those)"
)


def describe(spec: StudySpec, cost: Estimate, *, on_gpus: bool = False) -> list[str]:
    """Says in a few lines what a study will do and cost.

    Args:
        spec: the study.
        cost: its estimate, measured on a processor of this machine.
        on_gpus: whether it will train on others.
    """
    time = f"time        about {duration(cost.seconds + cost.confirm_seconds)}"
    return [
        *describe_trials(spec, cost),
        *([_ELSEWHERE] if on_gpus else []),
        "; ".join([time, *at_most(spec, cost)]),
        *describe_afterwards(spec, cost),
        f"work        about {cost.device_seconds / 3600:.1f} device-hours, at most "
        f"{cost.device_seconds_at_most / 3600:.1f}",
        f"disk        at most {size(cost.disk_bytes)}",
    ]


def describe_rest(spec: StudySpec, ledger: Ledger, concurrent: int, seconds: float) -> str:
    """Says what is left of a study that is gone on with.

    Args:
        spec: the study.
        ledger: all that happened, what extends it included.
        concurrent: trials at a time.
        seconds: what is left of search and confirmation.
    """
    planned = spec.budget.trials + ledger.added_trials
    ended = sum(trial.state != "RUNNING" for trial in ledger.trials.values())
    trials = f"{max(planned - ended, 0)} of {planned} trials, {concurrent} at a time"
    return f"left        {trials}: about {duration(seconds)}"


def describe_trials(spec: StudySpec, cost: Estimate) -> list[str]:
    """Says what is trained, and who is stopped when."""
    plan = ", ".join(f"{planned.trials} {planned.stage.kind}" for planned in spec.stage_plan)
    lines = [
        f"trials      {spec.budget.trials} ({plan}), {cost.concurrent} at a time, "
        f"{spec.budget.kimg_per_trial:g} kimg each",
    ]
    if spec.replication.replicates > 1:
        lines.append(f"replicates  {_replicates(spec)}")
    if cost.pack > 1:
        device = "a GPU" if spec.resources.gpus_per_trial else "a node's CPUs"
        lines.append(f"packs       {cost.pack} trials share an engine and {device} in equal parts")
    if cost.rungs:
        lines += _stopping(spec, cost)
    if spec.scheduler.population:
        lines.append(
            f"population  compared every {spec.scheduler.interval_kimg:g} kimg; of the worst each "
            f"place is taken by a copy of one of the best ({spec.scheduler.kind})"
        )
    return [*lines, f"one trial   {duration(cost.trial_seconds)} in full, on this machine"]


def at_most(spec: StudySpec, cost: Estimate, pace: float = 1.0) -> list[str]:
    """Says what bounds the time: no trial stopped, at so many times the pace; the time budget."""
    raced, limit = cost.seconds_of(cost.race_runs_at_most), spec.budget.time
    most = duration(pace * (cost.seconds_at_most + raced + cost.confirm_seconds))
    bounds = []
    if cost.rungs:
        bounds.append(f"at most {most} if no trial is stopped")
    elif raced:
        bounds.append(f"at most {most}")
    return (
        bounds if limit is None else [*bounds, f"the time budget ends it after {duration(limit)}"]
    )


def describe_afterwards(spec: StudySpec, cost: Estimate) -> list[str]:
    """Says what is trained after the search."""
    lines = []
    if cost.race_runs_at_most:
        most = spec.replication.seeds
        lines.append(f"racing      up to {most} seeds for those that the best is not clear of")
    if cost.confirm_runs:
        top = cost.confirm_runs // spec.confirm.seeds
        kept = duration(kept_back_seconds(spec, cost))
        lines.append(
            f"confirming  the best {top} on {_counted(spec.confirm.seeds, 'fresh seed')} each, "
            f"in full: {duration(cost.confirm_seconds)} of that"
            + ("" if spec.budget.time is None else f", {kept} kept back")
        )
    return lines


def _stopping(spec: StudySpec, cost: Estimate) -> list[str]:
    scheduler = spec.scheduler
    if scheduler.kind == "median":
        return [
            f"stopping    from {cost.rungs[0]:g} kimg on, who is below the median of the others; "
            f"about {cost.survivors[0]} go on (median)"
        ]
    if scheduler.kind == "hyperband":
        shares = [(b.rungs, count) for b, count in brackets_of(scheduler, spec.budget) if count]
        heads = ["brackets    ", *[" " * 12] * len(shares)]
        return [
            f"{head}{_counted(count, 'trial')}: "
            + (_steps(own, survivors_of(count, len(own), scheduler)) if own else "all in full")
            for head, (own, count) in zip(heads, shares, strict=False)
        ]
    if scheduler.mode == "promotion":
        steps = _steps(cost.rungs, cost.survivors)
        return [f"rungs       all pause at each; {steps} are promoted (asha)"]
    return [f"rungs       {_steps(cost.rungs, cost.survivors)} (asha)"]


def _steps(rungs: tuple[float, ...], survivors: tuple[int, ...]) -> str:
    steps = (f"{left} past {rung:g} kimg" for rung, left in zip(rungs, survivors, strict=True))
    return "about " + ", ".join(steps)


def _replicates(spec: StudySpec) -> str:
    seeds, folds = spec.replication.replicates // spec.replication.folds, spec.replication.folds
    parts = f", {folds} folds times {seeds} seeds" if folds > 1 else " with seeds of their own"
    return f"each trial is {spec.replication.replicates} runs{parts}, judged by their mean"


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def size(count: float) -> str:
    """Returns so many bytes as people say it."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{math.ceil(count / 1e6)} MB"
