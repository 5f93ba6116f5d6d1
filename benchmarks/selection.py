"""Which winner a search chooses: its true regret at equal budget, against random search.

python -m benchmarks.selection [--studies 200] [--json] [--objective module:function]

Studies in virtual time (`search.simulate`) over noisy curves whose optimum is known, each on the
same workers for the same hours. `ours` is ASHA under random proposals, `tpe` the same under the
model, `random` trains every proposal in full. Seeds are common to all of them, so that differences
are paired. `--objective` names a function that makes curves from a seed
(`search.learning_curves.LearningCurves`).
"""

import argparse
import importlib
import json
import math
from collections.abc import Callable, Sequence
from statistics import fmean, stdev
from typing import Any

from cgan_core.streams import derive_seed
from search.learning_curves import ClosedFormCurves, LearningCurves
from search.simulate import make_pruner
from search.simulated_sampling import RandomSampler, TPESampler
from search.simulation import SECONDS_PER_HOUR, Sampler, Simulation

ALL_TRIALS = 10**6  # more than any budget here lasts for

Make = Callable[[int], LearningCurves]


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints the mean true regret of each way to search, and the differences."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--studies", type=int, default=200)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--hours", type=float, default=1.0, help="virtual, of every study")
    parser.add_argument("--tpe", action="store_true", help="also the model's proposals (slow)")
    parser.add_argument("--objective", metavar="MODULE:FUNCTION", help="curves from a seed")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    make: Make = ClosedFormCurves if options.objective is None else _named(options.objective)
    searches: dict[str, tuple[str, Callable[[Any, int], Sampler]]] = {
        "ours": ("asha", RandomSampler),
        "random": ("none", RandomSampler),
    }
    if options.tpe:
        searches["tpe"] = ("asha", TPESampler)
    regrets = {
        name: [
            regret(make, scheduler, sampler, study, options.workers, options.hours)
            for study in range(options.studies)
        ]
        for name, (scheduler, sampler) in searches.items()
    }
    report = summary(regrets)
    print(json.dumps(report) if options.json else table(report))


def regret(
    make: Make,
    scheduler: str,
    sampler: Callable[[Any, int], Sampler],
    study: int,
    workers: int,
    hours: float,
) -> float:
    """Runs one study in virtual time; returns the true regret of its winner in nats."""
    seed = derive_seed("selection", study)
    curves = make(seed)
    return (
        Simulation(
            curves,
            sampler(curves.space, seed % 2**32),
            make_pruner(
                scheduler, curves, grace_kimg=curves.kimg_per_trial / 9, reduction_factor=3
            ),
            workers=workers,
            num_trials=ALL_TRIALS,
            limit_seconds=hours * SECONDS_PER_HOUR,
        )
        .run()
        .regret
    )


def summary(regrets: dict[str, list[float]]) -> dict[str, Any]:
    """Adds up: means, and 95 % intervals of ours minus each other, study by study."""
    ours = regrets["ours"]
    differences = {}
    for name, others in regrets.items():
        if name == "ours":
            continue
        apart = [mine - other for mine, other in zip(ours, others, strict=True)]
        half = 1.96 * stdev(apart) / math.sqrt(len(apart))
        differences[name] = {
            "mean": fmean(apart),
            "interval": [fmean(apart) - half, fmean(apart) + half],
        }
    return {
        "studies": len(ours),
        "mean_regret": {name: fmean(values) for name, values in regrets.items()},
        "ours_minus": differences,
    }


def table(report: dict[str, Any]) -> str:
    """Writes a report in lines."""
    lines = [f"mean true regret of the winner over {report['studies']} studies, in nats"]
    lines += [f"  {name:<8}{value:8.2f}" for name, value in report["mean_regret"].items()]
    for name, apart in report["ours_minus"].items():
        low, high = apart["interval"]
        lines.append(
            f"  ours - {name}: {apart['mean']:.2f}, 95 % interval {low:.2f} to {high:.2f}"
        )
    return "\n".join(lines)


def _named(text: str) -> Make:
    module, _, name = text.partition(":")
    try:
        found: Make = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise SystemExit(f"--objective: {text} must be module:function, but: {error}") from None
    return found


if __name__ == "__main__":
    main()
