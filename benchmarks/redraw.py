"""What a second set of samples costs beside training, and what it says of a score.

    python -m benchmarks.redraw --model runs/mnist-quick/best [--rounds 6] [--draws 8] [--json]

Trains the quick study's net (`benchmarks.training`) on the bundled digits with one thread, and
between stretches of it scores a trained generator as a trial does, in turns, so that a busy
machine slows all alike. Then that generator is scored under several draws of the evaluation's
noise: the standard deviation over all of their sets against the estimate from their pairs.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, get_args

import torch

from benchmarks.training import SETTINGS
from cgan_core.data.digits import load_digits
from cgan_core.evaluation import Evaluator, protocol_for
from cgan_core.evaluation_noise import SampleSet
from cgan_core.member import Member
from cgan_core.model import Model
from cgan_core.samples import Samples
from search.redraw import REDRAWS, redraw_standard_error
from search.score_names import metrics_of, redraws_of

STEPS = 20  # of training a round
MEASURE_KIMG = 50.0  # of the quick study

T = TypeVar("T")


def main() -> None:
    """Prints seconds, their ratio, and the two spreads."""
    parser = argparse.ArgumentParser(description="What a second set of samples costs and says.")
    parser.add_argument("--model", type=Path, required=True, help="a trained generator's folder")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--draws", type=int, default=8)
    parser.add_argument("--folds", type=int, default=1, help="score on one of so many")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)  # as trials do
    splits = load_digits("a benchmark")
    fold = 0 if options.folds > 1 else None
    evaluator = Evaluator(splits, protocol_for(splits, folds=options.folds), fold=fold)
    model = Model.load(options.model)
    result = costs(evaluator, model, options.rounds) | spreads(evaluator, model, options.draws)
    lines = [f"{name}: {value}" for name, value in result.items()]
    print(json.dumps(result) if options.json else "\n".join(lines))


def drawn(evaluator: Evaluator, model: Model, draw: int, which: SampleSet) -> Samples:
    """Samples of the generator."""
    config = model.config
    return evaluator.draw(model.images, config, draw, which)


def timed(work: Callable[[], T]) -> tuple[T, float]:
    """The result, and the processor's seconds."""
    started = time.process_time()
    return work(), time.process_time() - started


def costs(evaluator: Evaluator, model: Model, rounds: int) -> dict[str, Any]:
    """Seconds of 50 kimg of training, and of a measurement's two sets of samples."""
    member = Member(SETTINGS["quick"], evaluator.examples, seed=0)
    turn(member, evaluator, model)  # warms up
    rows = [turn(member, evaluator, model) for _ in range(rounds)]
    return {key: summary([row[key] for row in rows]) for key in rows[0]}


def turn(member: Member, evaluator: Evaluator, model: Model) -> dict[str, float]:
    """Trains for some steps, then measures once."""
    before = member.kimg
    _, trained = timed(lambda: member.advance(STEPS))
    training = trained / (member.kimg - before) * MEASURE_KIMG
    samples, first = timed(lambda: drawn(evaluator, model, 0, "first"))
    _, scored = timed(lambda: evaluator.validation(samples))
    _, guarded = timed(lambda: evaluator.guard(samples))
    others, second = timed(lambda: drawn(evaluator, model, 0, "second"))
    _, rescored = timed(lambda: evaluator.validation(others))
    return {
        "training_seconds": training,
        "first_set_seconds": first + scored + guarded,
        "redraw_seconds": second + rescored,
        "redraw_over_training": (second + rescored) / training,
    }


def spreads(evaluator: Evaluator, model: Model, draws: int) -> dict[str, Any]:
    """Standard deviation of a score over all sets, and its estimate from their pairs, in nats."""
    pairs = []
    for draw in range(draws):
        sets = (drawn(evaluator, model, draw, which) for which in get_args(SampleSet))
        first, second = evaluator.validations(sets)
        pairs.append(metrics_of(first) | redraws_of(second))
    found: dict[str, Any] = {"standard_error_over_points": pairs[0]["standard_error"]}
    for metric, again in REDRAWS.items():
        values = [pair[name] for pair in pairs for name in (metric, again)]
        found[f"{metric}_deviation"] = statistics.stdev(values)
        found[f"{metric}_estimate"] = redraw_standard_error(pairs, metric)
    return found


def summary(values: list[float]) -> str:
    """Median, least and most."""
    return f"{statistics.median(values):.3g} ({min(values):.3g} to {max(values):.3g})"


if __name__ == "__main__":
    main()
