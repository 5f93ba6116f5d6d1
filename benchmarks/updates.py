"""Likelihood at equal kimg: alternating updates against others, over seeds.

    python -m benchmarks.updates --out runs/updates [--seeds 5] [--kimg 150] [--runs N]

Trains the quick study's net (`benchmarks.training`) on the bundled digits, with one thread, by
alternating updates that share the noise (as that study does), by simultaneous ones, and by
alternating ones with fresh noise for the generator (Algorithm 1 to the letter). A
finished run stays in the output folder, so that a call goes on where the last one ended;
`--runs 1` makes one run and leaves. Differences to the first are taken seed by seed, with
Student's 95 % interval of their mean.
"""

import argparse
import itertools
import json
import math
import statistics
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from scipy.stats import t as student

from benchmarks.training import SETTINGS
from cgan_core import Trainer
from cgan_core.data import DataSplits
from cgan_core.data.digits import load_digits
from cgan_core.evaluation import Evaluator, protocol_for
from cgan_core.families import config_of

UPDATES: dict[str, dict[str, Any]] = {
    "alternating": {"update": "alternating", "fresh_noise": False},
    "simultaneous": {"update": "simultaneous", "fresh_noise": False},
    "fresh noise": {"update": "alternating", "fresh_noise": True},
}
MEASURE_KIMG = 50.0


def main() -> None:
    """Makes the runs that are missing, then prints what all of them gave."""
    parser = argparse.ArgumentParser(description="Alternating updates against others.")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--kimg", type=float, default=150.0, help="of each run")
    parser.add_argument("--runs", type=int, default=None, help="make at most so many now")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)  # as trials do
    options.out.mkdir(parents=True, exist_ok=True)
    files = {
        (update, seed): options.out / f"{update.replace(' ', '-')}-{seed}-{options.kimg:g}.json"
        for seed, update in itertools.product(range(options.seeds), UPDATES)
    }
    missing = [key for key, file in files.items() if not file.exists()][: options.runs]
    if missing:
        splits = load_digits("a benchmark")
        evaluator = Evaluator(splits, protocol_for(splits))
        for update, seed in missing:
            course = train(update, seed, options.kimg, splits, evaluator)
            partial = files[update, seed].with_suffix(".partial")
            partial.write_text(json.dumps(course))
            partial.replace(files[update, seed])
    if all(file.exists() for file in files.values()):
        print_table({key: json.loads(file.read_text()) for key, file in files.items()})


def train(
    update: str, seed: int, kimg: float, splits: DataSplits, evaluator: Evaluator
) -> list[dict[str, Any]]:
    """Trains one net and scores it on validation every `MEASURE_KIMG`."""
    config = config_of(SETTINGS["quick"].to_mapping() | UPDATES[update])
    trainer = Trainer(config, splits, seed)
    course = []
    for measurement in trainer.run(kimg, MEASURE_KIMG):
        generator = trainer.members[0].generator
        samples = evaluator.draw(generator, config)
        scores = evaluator.validation(samples)
        course.append(
            {
                "pooled": scores.log_likelihood,
                "conditional": scores.conditional_log_likelihood,
                "label_accuracy": evaluator.guard(samples).label_accuracy,
                **asdict(measurement),
            }
        )
        print(update, seed, course[-1], flush=True)
    return course


def print_table(courses: dict[tuple[str, int], list[dict[str, Any]]]) -> None:
    """Prints means over the seeds at each point, and the mean difference with its interval."""
    seeds = sorted({seed for _, seed in courses})
    first, *others = UPDATES
    print("nats         kimg" + f"{first:>24}" + "".join(f"{u:>42}" for u in others))
    kimgs = [point["kimg"] for point in courses[first, seeds[0]]]
    for score, (position, kimg) in itertools.product(("pooled", "conditional"), enumerate(kimgs)):
        by_update = {u: [courses[u, seed][position][score] for seed in seeds] for u in UPDATES}
        line = f"{score:12} {kimg:4.0f}{spread(by_update[first]):>24}"
        for update in others:
            apart = difference(by_update[first], by_update[update])
            line += f"{spread(by_update[update]):>24}{apart:>18}"
        print(line)
    for update in UPDATES:
        last = [courses[update, seed][-1] for seed in seeds]
        seconds = statistics.mean(point["elapsed_seconds"] for point in last)
        accuracy = statistics.mean(point["label_accuracy"] for point in last)
        print(f"{update}: {seconds:.0f} s of training, label accuracy {accuracy:.2f}")


def spread(scores: list[float]) -> str:
    """The mean, and the standard deviation over seeds."""
    return f"{statistics.mean(scores):.1f} (sd {statistics.stdev(scores):.1f})"


def difference(early: list[float], late: list[float]) -> str:
    """The mean of the second less the first, pair by pair, with its 95 % interval."""
    differences = [b - a for a, b in zip(early, late, strict=True)]
    error = statistics.stdev(differences) / math.sqrt(len(differences))
    half = error * float(student.ppf(0.975, len(differences) - 1))
    return f"{statistics.mean(differences):+.1f} ± {half:.1f}"


if __name__ == "__main__":
    main()
