"""One look at the test set: what it says of a winner's generators."""

import math
from collections.abc import Mapping, Sequence
from statistics import fmean, stdev
from typing import Any

from cgan_core.evaluation import Evaluator
from cgan_core.guardrails import GuardrailScores
from cgan_core.model import Model
from cgan_core.references import reference_lines
from cgan_core.scores import Scores


def test_scores(evaluator: Evaluator, models: Sequence[Model]) -> dict[str, Any]:
    """Scores a winner's generators on the test set, and what they are held against there.

    `test` is that of the first; of several its `seeds` are the means over all of them, with the
    standard error s / sqrt(n).
    """
    entries: list[dict[str, Any]] = []
    references: dict[str, float | None] = {}
    for model in reversed(models):
        samples = evaluator.draw(model.images, model.config)
        scores = evaluator.test(samples, evaluator.bandwidth(samples))
        entries.insert(0, test_entry(scores, evaluator.guard(samples)))
        references = reference_lines(evaluator, samples) if len(entries) == len(models) else {}
    return {
        "test": entries[0] | ({"seeds": _over_seeds(entries)} if len(entries) > 1 else {}),
        "references": references,
    }


def _over_seeds(entries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    told: dict[str, Any] = {"count": len(entries)}
    for name in ("log_likelihood", "conditional_log_likelihood", "label_accuracy"):
        values = [entry[name] for entry in entries if entry[name] is not None]
        if len(values) == len(entries):
            told[name] = fmean(values)
            told[f"{name}_standard_error"] = stdev(values) / math.sqrt(len(values))
    return told


def test_entry(scores: Scores, guarded: GuardrailScores) -> dict[str, Any]:
    """Returns test scores as `summary.json` holds them, in nats, and the label accuracy."""
    return {
        "log_likelihood": scores.log_likelihood,
        "standard_error": scores.standard_error,
        "conditional_log_likelihood": scores.conditional_log_likelihood,
        "conditional_standard_error": scores.conditional_standard_error,
        "label_accuracy": guarded.label_accuracy,
        "bandwidth": scores.bandwidth,
        "num_samples": scores.num_samples,
        "num_points": scores.num_points,
    }
