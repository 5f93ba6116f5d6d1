"""Likelihood at equal kimg: alternating against simultaneous updates, over seeds.

    python -m benchmarks.updates --out runs/updates [--seeds 5] [--kimg 150] [--runs N]

Trains the quick study's net (`benchmarks.training`) on the bundled digits, with one thread. A
finished run stays in the output folder, so that a call goes on where the last one ended;
`--runs 1` makes one run and leaves. The difference is taken seed by seed, with Student's 95 %
interval of its mean.
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
from cgan_core import GANConfig, Trainer
from cgan_core.data import DataSplits
from cgan_core.data.digits import load_digits
from cgan_core.evaluation import Evaluator, protocol_for

UPDATES = ("alternating", "simultaneous")
MEASURE_KIMG = 50.0


def main() -> None:
    """Makes the runs that are missing, then prints what all of them gave."""
    parser = argparse.ArgumentParser(description="Alternating against simultaneous updates.")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--kimg", type=float, default=150.0, help="of each run")
    parser.add_argument("--runs", type=int, default=None, help="make at most so many now")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)  # as trials do
    options.out.mkdir(parents=True, exist_ok=True)
    files = {
        (update, seed): options.out / f"{update}-{seed}-{options.kimg:g}.json"
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
    changes = {"update": update, "fresh_noise": False}  # the quick study's alternating shares it
    config = GANConfig.from_mapping(SETTINGS["quick"].to_mapping() | changes)
    trainer = Trainer(config, splits, seed)
    course = []
    for measurement in trainer.run(kimg, MEASURE_KIMG):
        generator = trainer.members[0].generator
        samples = evaluator.draw(generator, config.noise, config.noise_dim)
        scores = evaluator.validation(samples)
        course.append(
            {
                "pooled": scores.log_likelihood,
                "conditional": scores.conditional_log_likelihood,
                "label_accuracy": scores.label_accuracy,
                **asdict(measurement),
            }
        )
        print(update, seed, course[-1], flush=True)
    return course


def print_table(courses: dict[tuple[str, int], list[dict[str, Any]]]) -> None:
    """Prints means over the seeds at each point, and the mean difference with its interval."""
    seeds = sorted({seed for _, seed in courses})
    print("nats         kimg" + "".join(f"{update:>26}" for update in UPDATES) + "  difference")
    kimgs = [point["kimg"] for point in courses[UPDATES[0], seeds[0]]]
    for score, (position, kimg) in itertools.product(("pooled", "conditional"), enumerate(kimgs)):
        by_update = [[courses[u, seed][position][score] for seed in seeds] for u in UPDATES]
        means = "".join(
            f"{statistics.mean(scores):14.1f} (sd {statistics.stdev(scores):5.1f})"
            for scores in by_update
        )
        print(f"{score:12} {kimg:4.0f}{means}  {difference(*by_update)}")
    for update in UPDATES:
        last = [courses[update, seed][-1] for seed in seeds]
        seconds = statistics.mean(point["elapsed_seconds"] for point in last)
        accuracy = statistics.mean(point["label_accuracy"] for point in last)
        print(f"{update}: {seconds:.0f} s of training, label accuracy {accuracy:.2f}")


def difference(early: list[float], late: list[float]) -> str:
    """The mean of the second less the first, pair by pair, with its 95 % interval."""
    differences = [b - a for a, b in zip(early, late, strict=True)]
    error = statistics.stdev(differences) / math.sqrt(len(differences))
    half = error * float(student.ppf(0.975, len(differences) - 1))
    return f"{statistics.mean(differences):+.1f} ± {half:.1f}"


if __name__ == "__main__":
    main()
