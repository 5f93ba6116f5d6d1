"""What likelihood and guardrails say of five stand-ins for a generator, made of real images.

    python -m benchmarks.guardrails [--full] [--model runs/mnist-quick/best] [--json]

The healthy one draws held-out (test) images; the others are it with its labels shuffled, blurred,
with one class replaced, and one that draws training images. All are scored like a trial, on
validation, with as many samples as there are test images (at most the protocol's N).
"""

import argparse
import dataclasses
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch
from scipy.ndimage import gaussian_filter

from cgan_core.data import DataSplits, load_data
from cgan_core.data.digits import load_digits
from cgan_core.evaluation import Evaluator, protocol_for
from cgan_core.model import Model
from cgan_core.samples import Samples
from cgan_core.streams import stream
from search.lines import Lines

T = TypeVar("T")

BLUR_PIXELS = 1.0  # standard deviation of the Gaussian filter
COLUMNS = (
    "log_likelihood",
    "conditional_log_likelihood",
    *("label_accuracy", "missing_classes", "memorization_ratio", "sharpness"),
    *("precision", "recall", "two_sample_accuracy", "frechet_distance"),
)


def main() -> None:
    """Prints the table, or one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--full", action="store_true", help="full MNIST, not the bundled digits")
    parser.add_argument("--model", type=Path, help="a trained generator's folder")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    splits = load_data("mnist", require_full=True) if options.full else load_digits("a benchmark")
    result = measured(splits, options.model)
    print(json.dumps(result) if options.json else table(result))


def measured(splits: DataSplits, model: Path | None = None) -> dict[str, Any]:
    """Scores every stand-in; seconds are processor time of this process, on one thread."""
    evaluator = small_evaluator(splits)
    _, prepared = timed(lambda: evaluator.guardrails)
    lines = Lines.of(evaluator)
    candidates = stand_ins(splits, evaluator.protocol.num_samples)
    if model is not None:
        candidates["trained"] = drawn(evaluator, Model.load(model))
    rows = {name: row(evaluator, samples, lines) for name, samples in candidates.items()}
    return {
        "samples": evaluator.protocol.num_samples,
        "lines": dataclasses.asdict(lines),
        "preparation_seconds": prepared,
        "rows": rows,
    }


def small_evaluator(splits: DataSplits) -> Evaluator:
    """The data's own evaluator, with no more samples than there are test images."""
    protocol = protocol_for(splits)
    count = min(protocol.num_samples, len(splits.test))
    return Evaluator(splits, dataclasses.replace(protocol, num_samples=count))


def stand_ins(splits: DataSplits, count: int, missing: int = 3) -> dict[str, Samples]:
    """Five "generators", four of them faulty in one way each; `missing` is never drawn by one."""
    held_out, labels = splits.test.pixels[:count], splits.test.condition_tensor
    assert labels is not None
    labels = labels[:count]
    rows = torch.from_numpy(stream(0, "stand-ins").permutation(len(splits.train))[:count])
    known = splits.train.condition_tensor
    assert known is not None
    order = torch.from_numpy(stream(1, "stand-ins").permutation(count))
    return {
        "healthy": Samples(held_out, labels),
        "shuffled": Samples(held_out, labels[order]),
        "blurred": Samples(blurred(held_out, splits.image_shape), labels),
        "memorizing": Samples(splits.train.pixels[rows], known[rows]),
        "missing a class": Samples(without(held_out, labels, missing), labels),
    }


def blurred(images: torch.Tensor, image_shape: tuple[int, ...]) -> torch.Tensor:
    """A Gaussian filter of every image."""
    pictures = images.view(-1, *image_shape).numpy()
    smooth = gaussian_filter(pictures, BLUR_PIXELS, axes=(1, 2))
    return torch.from_numpy(smooth).view(len(images), -1).clamp(0, 1)


def without(images: torch.Tensor, labels: torch.Tensor, missing: int) -> torch.Tensor:
    """Puts images of other classes, in turn, in the place of one class's."""
    gone, others = (labels == missing).nonzero()[:, 0], (labels != missing).nonzero()[:, 0]
    kept = images.clone()
    kept[gone] = images[others[torch.arange(len(gone)) % len(others)]]
    return kept


def drawn(evaluator: Evaluator, model: Model) -> Samples:
    """Samples of a trained generator."""
    return evaluator.draw(model.images, model.config)


def row(evaluator: Evaluator, samples: Samples, lines: Lines) -> dict[str, Any]:
    """Likelihoods in nats, guardrails, flags, and what each of the two cost."""
    scores, likelihood_seconds = timed(lambda: evaluator.validation(samples))
    guarded, guardrail_seconds = timed(lambda: evaluator.guard(samples))
    flags = lines.guardrails.flags(guarded.metrics)
    is_above = lines.above_real_data(scores.log_likelihood, scores.standard_error)
    above = ("above_real_data",) if is_above else ()
    return {
        "log_likelihood": scores.log_likelihood,
        "conditional_log_likelihood": scores.conditional_log_likelihood,
        **guarded.metrics,
        "standard_error": scores.standard_error,
        "flags": [*above, *flags],
        "likelihood_seconds": likelihood_seconds,
        "guardrail_seconds": guardrail_seconds,
    }


def timed(work: Callable[[], T]) -> tuple[T, float]:
    """The result, and the processor's seconds."""
    started = time.process_time()
    return work(), time.process_time() - started


def table(result: dict[str, Any]) -> str:
    """Markdown, one column a stand-in."""
    rows = result["rows"]
    lines = ["| | " + " | ".join(rows) + " |", "|---|" + "---|" * len(rows)]
    for name in (*COLUMNS, "likelihood_seconds", "guardrail_seconds"):
        digits = 1 if "likelihood" in name and "seconds" not in name else 3
        values = [f"{entry[name]:.{digits}f}" for entry in rows.values()]
        lines.append(f"| `{name}` | " + " | ".join(values) + " |")
    flags = [", ".join(entry["flags"]) or "none" for entry in rows.values()]
    lines.append("| flags | " + " | ".join(flags) + " |")
    facts = {key: value for key, value in result.items() if key != "rows"}
    return "\n".join([*lines, "", json.dumps(facts)])


if __name__ == "__main__":
    main()
