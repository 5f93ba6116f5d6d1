"""The end of a study in words: the winner, its test score beside the reference lines."""

import json
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from search.estimate import duration
from search.ledger import Ledger
from search.shadow import describe_shadow
from search.tracking_place import default_uri

SUMMARY_NAME = "summary.json"
WIDTH = 100
MEANING = {
    "real_data": "as many real training images",
    "kmeans": "as many k-means centroids of them (smoother than data)",
    "class_means": "one mean image a class",
    "untrained": "the paper's generator before training",
}


def read_summary(folder: Path, ledger: Ledger) -> dict[str, Any] | None:
    """Returns what `summary.json` holds; None where there is none, or only one of before.

    One of before an extension stays until the next is written, and counts fewer sessions.
    """
    try:
        summary: dict[str, Any] = json.loads((folder / SUMMARY_NAME).read_text())
    except FileNotFoundError:
        return None
    return summary if summary.get("sessions") == len(ledger.sessions) else None


def describe_summary(summary: Mapping[str, Any], output: Path) -> str:
    """Returns what `summary.json` says, for a terminal."""
    counts = ", ".join(f"{n} {state}" for state, n in summary["trials"].items() if n)
    counts = counts or "no trials"
    stages = ", ".join(f"{n} {stage}" for stage, n in summary["stages"].items() if n)
    lines = [
        "",
        f"study {summary['study']}: {counts} ({stages}) in {duration(summary['elapsed_seconds'])}",
    ]
    if summary["dataset"]["subset"]:
        lines.append("data: the bundled subset; never to be compared with full-MNIST numbers")
    if summary["best"] is None:
        place = f"summary: {output / 'summary.json'}"
        return "\n".join([*lines, f"no winner: {_why_none(summary)}", *_shadow(summary), place])
    told = [*_winner(summary["best"]), *_confirmed(summary["confirmed"]), *_front(summary)]
    told += [*_test(summary), *_shadow(summary)]
    told += [f"NOTE: {notice}" for notice in summary.get("notices", ())]
    return "\n".join([*lines, *told, *_places(summary, output)])


def _shadow(summary: Mapping[str, Any]) -> list[str]:
    entry = summary.get("shadow")  # older summaries have none
    return [] if entry is None else [describe_shadow(entry)]


def _why_none(summary: Mapping[str, Any]) -> str:
    trials = summary["trials"]
    if summary.get("notices"):
        return str(summary["notices"][0])
    if summary["measurements"]:
        kept = " and keeps every constraint" if summary["constraints"] else ""
        return f"no trial was measured that is better than an untrained generator{kept}"
    if trials["stopped"] or not any(trials.values()):  # halving stops only what was measured
        return (
            "the time budget ended before any measurement; begin anew with a longer `budget.time` "
            "or a shorter `budget.measure_kimg`"
        )
    return "no trial came to a measurement"


def _winner(best: Mapping[str, Any]) -> list[str]:
    score = _with_error(best["objective"], best["standard_error"])
    if best.get("replicates", 1) > 1:  # older summaries had one run a trial
        score += f" over {best['replicates']} runs"
    params = "  ".join(
        f"{name}={value:.4g}" if isinstance(value, float) else f"{name}={value}"
        for name, value in best["params"].items()
    )
    lines = [
        f"winner: trial {best['number']} ({best['stage']}), {best['metric']} {score} "
        f"at {best['kimg']:g} kimg",
        *textwrap.wrap(params, WIDTH, initial_indent="  ", subsequent_indent="  "),
    ]
    parts = best.get("standard_errors", {})
    errors = [f"{name} {error:.2f}" for name, error in parts.items() if error is not None]
    if len(errors) > 1:
        lines.append(f"  standard errors: {', '.join(errors)}")
    if best["flags"]:
        lines.append(f"  BEWARE: {', '.join(best['flags'])}")
    return lines


def _confirmed(confirmed: Mapping[str, Any] | None) -> list[str]:
    if confirmed is None:
        return []
    told, others = [], confirmed["ranking"]
    if confirmed["mean"] is not None:
        score = _with_error(confirmed["mean"], confirmed["standard_error"])
        told, others = [f"confirmed on {confirmed['seeds']} fresh seeds: {score}"], others[1:]
        if others:
            chance = confirmed["probability_best"]
            told[0] += f", the best of {len(others) + 1} with probability {chance:.2f}"
    for one in others:
        if one["diverged"]:
            told.append(f"  trial {one['number']:<3d} diverged on {one['diverged']} of its seeds")
            continue
        low, high = one["interval"]
        told.append(
            f"  trial {one['number']:<3d} is {one['behind']:.1f} behind (95 %: {low:.1f} to "
            f"{high:.1f}), the best with probability {one['probability_best']:.2f}"
        )
    if confirmed["winners_curse"] is not None:
        curse = confirmed["winners_curse"]
        told.append(f"  the best of the search was expected to promise {curse:.1f} too much")
    return told


def _with_error(value: float, error: float | None) -> str:
    return f"{value:.1f}" + ("" if error is None else f" ± {error:.1f}")


def _front(summary: Mapping[str, Any]) -> list[str]:
    """The Pareto front, where the study has several objectives: the winner's line is the first."""
    front = summary.get("pareto_front")  # a summary of before has none
    if not front:
        return []
    lines = ["Pareto front (no other trial is as good in each objective and better in one):"]
    for one in front:
        values = "  ".join(f"{metric} {value:.4g}" for metric, value in one["values"].items())
        lines.append(f"  trial {one['number']:<4d} {values}")
    return lines


def _test(summary: Mapping[str, Any]) -> list[str]:
    if summary["test"] is None:
        return []
    test, references = summary["test"], summary["references"]
    lines = [
        f"test log-likelihood in nats ({test['num_points']} points, {test['num_samples']} samples,"
        f" sigma {test['bandwidth']:.4f})",
        f"  {test['log_likelihood']:9.2f} ± {test['standard_error']:.2f}  the winner, pooled",
    ]
    if test["conditional_log_likelihood"] is not None:
        given, error = test["conditional_log_likelihood"], test["conditional_standard_error"]
        lines.append(f"  {given:9.2f} ± {error:.2f}  the winner, given class")
        shuffled = references["label_shuffled"]
        lines.append(f"  {shuffled:9.2f}         the winner, given class, labels shuffled")
    lines += [
        f"  {references[name]:9.2f}         {meaning}"
        for name, meaning in MEANING.items()
        if references[name] is not None
    ]
    if "seeds" in test:
        seeds = test["seeds"]
        score = _with_error(seeds["log_likelihood"], seeds["log_likelihood_standard_error"])
        lines.append(f"  {score} pooled over its {seeds['count']} seeds")
    if test["label_accuracy"] is not None:
        lines.append(f"label accuracy of its samples: {test['label_accuracy']:.3f}")
    return lines


def _places(summary: Mapping[str, Any], output: Path) -> list[str]:
    uri = summary["tracking_uri"]
    shown_by = " (make ui)" if uri == default_uri() else ""
    return [
        f"pictures: {output / 'best' / 'samples.png'}   summary: {output / 'summary.json'}",
        f"runs: {uri}{shown_by}",
    ]
