"""Replays learning curves in virtual time, to compare schedulers: `python -m search.simulate`."""

import argparse
import json
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from cgan_core.streams import derive_seed
from search.command_line import DONE, Parser, carry_out
from search.learning_curves import ClosedFormCurves, LearningCurves, RecordedCurves
from search.simulated_pruning import make_pruner
from search.simulated_sampling import RandomSampler, TPESampler
from search.simulation import SECONDS_PER_HOUR, Outcome, Sampler, SimulatedState, Simulation

SCHEDULERS = ("asha", "paired", "promotion", "median", "hyperband", "none")
HOURS_SHOWN = 10  # points of the anytime curve in the JSON


def parser() -> Parser:
    """Creates the parser."""
    p = Parser(prog="python -m search.simulate", description=__doc__)
    p.add_argument(
        "record",
        nargs="?",
        type=Path,
        metavar="RECORD",
        help="a study's folder; without it curves by a formula",
    )
    p.add_argument(
        "--scheduler",
        nargs="+",
        choices=SCHEDULERS,
        default=["asha"],
        help="those to compare (default: asha); paired needs curves by formula",
    )
    p.add_argument(
        "--sampler", choices=("random", "tpe"), default="random", help="tpe takes minutes"
    )
    for name, default, meaning in (
        ("--workers", 4, "trials at a time"),
        ("--trials", 100, "trials in all"),
        ("--studies", 1, "repeat over so many seeds"),
        ("--seed", 0, "of the first of them"),
    ):
        p.add_argument(
            name, type=int, default=default, metavar="N", help=f"{meaning} (default: {default})"
        )
    for name, kind, unit, meaning in (
        ("--hours", float, "H", "virtual time after which all ends"),
        ("--grace-kimg", float, "KIMG", "first rung; default: the record's, else 1"),
        ("--reduction-factor", int, "N", "default: the record's, else 3"),
    ):
        p.add_argument(name, type=kind, metavar=unit, help=meaning)
    p.add_argument("--json", action="store_true", help="print one JSON object")
    return p


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    return carry_out(_simulate, parser(), arguments, (ValueError,))


def _simulate(options: argparse.Namespace) -> int:
    report = simulate(options)
    sys.stdout.write((json.dumps(report) if options.json else table(report)) + "\n")
    return DONE


def simulate(options: argparse.Namespace) -> dict[str, Any]:
    """Simulates each scheduler over the same studies, and adds up what they came to.

    Raises:
        ValueError: An option makes no sense, or the record cannot be replayed.
    """
    for name, least in (("workers", 1), ("trials", 1), ("studies", 1), ("seed", 0)):
        if (given := getattr(options, name)) < least:
            raise ValueError(f"--{name}: must be at least {least}, but got {given}")
    recorded = RecordedCurves(options.record) if options.record else None
    if recorded and recorded.left_out:
        sys.stderr.write(
            f"NOTE: {recorded.left_out} trials were stopped early and cannot be replayed. The "
            f"{len(recorded)} that are left were chosen by the study's own scheduler and are no "
            "fair sample: to compare schedulers, record a study with --set scheduler.kind=none\n"
        )
    grace, factor = _rungs(options, recorded)
    for scheduler in options.scheduler:  # before any of them takes its time
        make_pruner(scheduler, recorded or ClosedFormCurves(options.seed), grace, factor)
    outcomes: dict[str, list[Outcome]] = {}
    for scheduler in options.scheduler:
        outcomes[scheduler] = [
            _study(options, scheduler, recorded, study, grace, factor)
            for study in range(options.studies)
        ]
    return {
        "record": str(options.record) if options.record else None,
        "curves": len(recorded) if recorded else None,
        "left_out": recorded.left_out if recorded else 0,
        **{name: getattr(options, name) for name in ("sampler", "workers", "trials", "studies")},
        "grace_kimg": grace,
        "reduction_factor": factor,
        "schedulers": {name: summary(studies) for name, studies in outcomes.items()},
    }


def _rungs(options: argparse.Namespace, recorded: RecordedCurves | None) -> tuple[float, int]:
    grace, factor = options.grace_kimg, options.reduction_factor
    if recorded is not None:
        scheduler = recorded.spec.scheduler
        grace = grace or scheduler.grace_kimg or recorded.measure_kimg
        factor = factor or scheduler.reduction_factor
    return grace or 1.0, factor or 3


def _study(
    options: argparse.Namespace,
    scheduler: str,
    recorded: RecordedCurves | None,
    study: int,
    grace: float,
    factor: int,
) -> Outcome:
    seed = derive_seed(options.seed, "simulation", study)
    curves: LearningCurves = recorded or ClosedFormCurves(seed)
    sampler: Sampler = (RandomSampler if options.sampler == "random" else TPESampler)(
        curves.space, seed % 2**32
    )
    simulation = Simulation(
        curves,
        sampler,
        make_pruner(scheduler, curves, grace, factor),
        workers=options.workers,
        num_trials=options.trials,
        limit_seconds=options.hours * SECONDS_PER_HOUR if options.hours else None,
    )
    return simulation.run()


def summary(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Adds up studies of one scheduler: means, and the standard error of the mean regret."""
    regrets = [outcome.regret for outcome in outcomes]
    known = len(regrets) > 1 and all(map(math.isfinite, regrets))
    spread = stdev(regrets) / math.sqrt(len(regrets)) if known else None
    kills = [outcome.false_kills for outcome in outcomes]
    states: tuple[SimulatedState, ...] = ("COMPLETED", "STOPPED", "PAUSED", "INFEASIBLE")
    longest = max(outcome.seconds for outcome in outcomes)
    times = [longest * (step + 1) / HOURS_SHOWN for step in range(HOURS_SHOWN)]
    return {
        "regret": _finite(fmean(regrets)),
        "regret_standard_error": spread,
        "anytime_regret": _finite(fmean(outcome.mean_regret for outcome in outcomes)),
        "device_hours": fmean(outcome.device_hours for outcome in outcomes),
        "hours": fmean(outcome.seconds for outcome in outcomes) / SECONDS_PER_HOUR,
        "false_kills": sum(lost for lost, _ in kills),
        "best_trials": sum(count for _, count in kills),
        "measurements": sum(outcome.measurements for outcome in outcomes),
        "trials": {s.lower(): sum(o.count(s) for o in outcomes) for s in states},
        "regret_by_hour": [
            [at / SECONDS_PER_HOUR, _finite(fmean(outcome.regret_at(at) for outcome in outcomes))]
            for at in times
        ],
    }


def _finite(regret: float) -> float | None:
    return regret if math.isfinite(regret) else None  # before anything was measured


def table(report: Mapping[str, Any]) -> str:
    """Writes a report in columns."""
    lines = [
        f"{report['studies']} simulated studies of {report['trials']} trials on "
        f"{report['workers']} workers, sampler {report['sampler']}, first rung "
        f"{report['grace_kimg']:g} kimg, factor {report['reduction_factor']}",
        f"curves: {report['record'] or 'by formula, optimum 0 nats'}"
        + (f", {report['curves']} of them" if report["record"] else ""),
        f"{'scheduler':<11}{'regret':>8}{'±':>7}{'anytime':>9}{'device h':>11}{'hours':>9}"
        f"{'completed':>11}{'false kills':>15}",
    ]
    for name, row in report["schedulers"].items():
        regret, error, anytime = (
            "" if value is None else f"{value:.2f}"
            for value in (row["regret"], row["regret_standard_error"], row["anytime_regret"])
        )
        lines.append(
            f"{name:<11}{regret:>8}{error:>7}{anytime:>9}"
            f"{row['device_hours']:>11.1f}{row['hours']:>9.2f}"
            f"{row['trials']['completed']:>11}"
            f"{row['false_kills']:>8} of {row['best_trials']:<4}"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
