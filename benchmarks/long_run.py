"""Trains one setting for long, outside the platform, and scores it on the test set.

    python -m benchmarks.long_run --total-kimg 4000 --out runs/long learning_rate=0.001 …

Killed and started again with the same arguments it goes on from its last checkpoint.
"""

import argparse
import json
import time
from pathlib import Path

import torch
import yaml

from cgan_core import Trainer, load_data
from cgan_core.configs.mlp import MLPConfig
from cgan_core.evaluation import Evaluator, protocol_for
from cgan_core.model import Model
from cgan_core.pictures import class_grid, save_grid, to_bytes
from cgan_core.references import reference_lines
from cgan_core.stopping import BestState
from cgan_core.training import PROGRESS_FILE


def main() -> None:
    """Trains, measures, keeps the best generator, and scores it at the end."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("settings", nargs="*", help="GANConfig field=value")
    parser.add_argument("--total-kimg", type=float, required=True)
    parser.add_argument("--measure-kimg", type=float, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.set_flush_denormal(True)
    settings = dict(pair.split("=", 1) for pair in options.settings)
    config = MLPConfig.paper(**{k: yaml.safe_load(v) for k, v in settings.items()})
    splits = load_data("mnist")
    print(splits.notice or f"data: {splits.name} from {splits.source}", flush=True)
    evaluator = Evaluator(splits, protocol_for(splits))
    best = _train(options, Trainer(config, splits, options.seed), evaluator)
    kind = evaluator.examples.kind
    assert best.parameters is not None
    model = Model.of(config, splits.image_shape, kind, best.parameters)
    _report(model, evaluator, options.out, best)


def _train(options: argparse.Namespace, trainer: Trainer, evaluator: Evaluator) -> BestState:
    checkpoint, best = options.out / "checkpoint", BestState()
    if (checkpoint / PROGRESS_FILE).exists():
        trainer.load(checkpoint)
        best = BestState.load(checkpoint)
    member = trainer.members[0]
    started = time.perf_counter()
    for measurement in trainer.run(options.total_kimg, options.measure_kimg):
        if measurement.infeasible:
            raise SystemExit(measurement.infeasible)
        samples = evaluator.draw(member.generator, member.config)
        scores, guarded = evaluator.validation(samples), evaluator.guard(samples)
        best.offer(scores.log_likelihood, measurement.kimg, member.generator)
        print(
            f"{measurement.kimg:8.0f} kimg {measurement.elapsed_seconds:7.0f} s "
            f"({time.perf_counter() - started:6.0f} s here)  "
            f"validation {scores.log_likelihood:8.2f} ± {scores.standard_error:.2f}  "
            f"conditional {scores.conditional_log_likelihood:8.2f}  "
            f"sigma {scores.bandwidth:.4f}  label accuracy {guarded.label_accuracy:.3f}",
            flush=True,
        )
        trainer.save(checkpoint)
        best.save(checkpoint)
    return best


def _report(model: Model, evaluator: Evaluator, out: Path, best: BestState) -> None:
    samples = evaluator.draw(model.images, model.config)
    result: dict[str, object] = {"best_kimg": best.kimg, "validation": best.score}
    for method in ("exact", "grid"):
        sigma = evaluator.bandwidth(samples, method)
        scores = evaluator.test(samples, sigma)
        result[method] = {
            "bandwidth": sigma,
            "log_likelihood": scores.log_likelihood,
            "standard_error": scores.standard_error,
            "conditional_log_likelihood": scores.conditional_log_likelihood,
        }
    result["guardrails"] = evaluator.guard(samples).metrics
    result["references"] = reference_lines(evaluator, samples)
    grid = class_grid(model.generator, model.config, model.condition)
    save_grid(to_bytes(grid, model.image_shape), out / "samples.png")
    model.save(out / "model")
    (out / "result.json").write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
