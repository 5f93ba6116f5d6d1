"""Which winner a search chooses: its true regret at equal budget, beside Ray's own search.

python -m benchmarks.selection [--studies 200] [--json] [--objective module:function] [--ablations]

Studies in virtual time over noisy learning curves whose truth is known (`benchmarks.problem`).
All searches have the same workers and the same kimg, confirmation included: `ours` (TPE, rungs,
then the best few on fresh seeds), `stock` (Ray's `OptunaSearch` and `ASHAScheduler`, by default)
and `random` (without stopping). Problem and seed are common to all, so differences are paired.
"""

import argparse
import importlib
import json
import multiprocessing
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial

from benchmarks.problem import Problem
from benchmarks.searches import ABLATIONS, SEARCHES, SEEDS, TOP, Budget, Choice
from benchmarks.selection_report import report, table
from cgan_core.streams import derive_seed

DEFAULT = "benchmarks.gan_like:GanLike"

Make = Callable[[int], Problem]


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints the mean true regret of each way to search, and the differences."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--studies", type=int, default=200)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--trainings", type=float, default=36, help="budget of every search")
    parser.add_argument("--objective", metavar="MODULE:FUNCTION", default=DEFAULT)
    parser.add_argument("--ablations", action="store_true", help="also what each part is worth")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    if options.studies < 2:
        parser.error(f"--studies: must be at least 2, but got {options.studies}")
    if not options.trainings > TOP * SEEDS:
        parser.error(f"--trainings: must be above {TOP * SEEDS}, but got {options.trainings:g}")
    _named(options.objective)
    names = [*SEARCHES, *(ABLATIONS if options.ablations else ())]
    budget = Budget(trainings=options.trainings, workers=options.workers)
    studies = compare(options.objective, names, budget, options.studies, options.processes)
    found = {"objective": options.objective, "trainings": options.trainings, **report(studies)}
    print(json.dumps(found) if options.json else table(found))


def compare(
    objective: str, names: Sequence[str], budget: Budget, studies: int, processes: int
) -> list[Mapping[str, Choice]]:
    """Runs the studies, some at a time; each depends on its index alone."""
    one = partial(study, objective, names, budget)
    if processes == 1:
        return [one(index) for index in range(studies)]
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=context) as pool:
        return list(pool.map(one, range(studies)))


def study(objective: str, names: Sequence[str], budget: Budget, index: int) -> dict[str, Choice]:
    """Lets each search loose on one problem."""
    seed = derive_seed("selection", index)
    problem = _named(objective)(seed)
    searches = {**SEARCHES, **ABLATIONS}
    return {name: searches[name](problem, seed % 2**32, budget) for name in names}


def _named(text: str) -> Make:
    module, _, name = text.partition(":")
    try:
        found: Make = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise SystemExit(f"--objective: {text} must be module:function, but: {error}") from None
    return found


if __name__ == "__main__":
    main()
