"""Likelihoods of several studies in one table, such as a GAN's beside a conditional GAN's.

`python -m reports.likelihoods DIR DIR ... [--out FILE.md]` holds the first study against each of
the others: validation at each checkpoint, test once. Studies of other data or under another
protocol are refused, for their numbers mean other things.
"""

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from reports.study import Study
from search.command_line import DONE, Parser, carry_out
from search.parquet import RecordError

SAME = (("dataset_digest", "data"), ("protocol_digest", "protocol"))
SCORE = "validation_log_likelihood"
CHECKPOINTS = 12  # rows of the table of checkpoints, at most
HALF_WIDTH = 1.96  # standard errors on each side of a 95 % interval


class Difference(NamedTuple):
    """A difference of two log-likelihoods in nats, and its standard error."""

    mean: float
    standard_error: float

    def __str__(self) -> str:
        low, high = (self.mean + sign * HALF_WIDTH * self.standard_error for sign in (-1, 1))
        return f"{self.mean:+.1f} ± {self.standard_error:.1f} (95 %: {low:+.1f} to {high:+.1f})"


def check_comparable(studies: Sequence[Study]) -> None:
    """Checks that scores mean the same in all studies.

    Raises:
        RecordError: naming what differs.
    """
    first = studies[0]
    for other in studies[1:]:
        for key, name in SAME:
            if other.opened[key] != first.opened[key]:
                raise RecordError(
                    f"{other.folder}: must be of the same {name} as {first.folder}, but {key} is "
                    f"{other.opened[key][:12]} there and {first.opened[key][:12]} here; "
                    "search both with equal `data` and `--seed`"
                )


def test_difference(study: Study, other: Study) -> Difference:
    """Returns the other's test log-likelihood less the study's.

    The points are the same, and what they have in common would cancel; their single values are
    not on record, so the standard errors are added as if they were independent, which is on the
    safe side.
    """
    here, there = study.summary["test"], other.summary["test"]
    error = math.hypot(here["standard_error"], there["standard_error"])
    return Difference(there["log_likelihood"] - here["log_likelihood"], error)


def validation_difference(study: Study, other: Study) -> Difference:
    """Returns the mean over validation points of the other's score less the study's, in pairs.

    Raises:
        RecordError: The points of a study are not on record.
    """
    here, there = study.points().pooled, other.points().pooled
    paired = there.astype(np.float64) - here.astype(np.float64)
    return Difference(float(paired.mean()), float(paired.std(ddof=1) / math.sqrt(len(paired))))


def fresh_difference(study: Study, other: Study) -> Difference | None:
    """Returns the difference of the winners' means over fresh seeds; None where one has none."""
    here, there = study.summary["confirmed"], other.summary["confirmed"]
    if not here or not there or here["mean"] is None or there["mean"] is None:
        return None
    errors = here["standard_error"], there["standard_error"]
    if None in errors:
        return None
    return Difference(there["mean"] - here["mean"], math.hypot(*errors))


def table(studies: Sequence[Study]) -> list[str]:
    """Returns the table of winners, as Markdown."""
    rows = [_row(study) for study in studies]
    head = ["study", "winner", "validation", "on fresh seeds", "test", "test, given y", "spent"]
    lines = [_line(head), _line(["---"] * len(head)), *map(_line, rows)]
    references = studies[0].summary.get("references") or {}
    for name, value in references.items():
        if value is not None and name != "label_shuffled":
            lines.append(_line([f"*{name}*", "", "", "", f"{value:.1f}", "", ""]))
    return lines


def _row(study: Study) -> list[str]:
    best, test, confirmed = (study.summary[key] for key in ("best", "test", "confirmed"))
    metrics = best["metrics"]
    trials = sum(study.summary["trials"].values())
    fresh = "not asked for"
    if confirmed and confirmed["mean"] is not None:
        fresh = _score(confirmed["mean"], confirmed["standard_error"])
        fresh += f" ({confirmed['seeds']} seeds)"
    return [
        study.title,
        f"trial {study.winner} at {best['kimg']:g} kimg",
        _score(metrics[SCORE], metrics["standard_error"]),
        fresh,
        _score(test["log_likelihood"], test["standard_error"]),
        _score(test.get("conditional_log_likelihood"), test.get("conditional_standard_error")),
        f"{trials} trials of {study.opened['spec']['budget']['kimg_per_trial']:g} kimg",
    ]


def _score(value: float | None, error: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.1f}" if error is None else f"{value:.1f} ± {error:.1f}"


def checkpoints(studies: Sequence[Study]) -> list[str]:
    """Returns each winner's validation score at each checkpoint, as Markdown."""
    courses = [{one.kimg: one.metrics for one in study.course()} for study in studies]
    points = sorted(set().union(*courses))
    stride = max(1, math.ceil(len(points) / CHECKPOINTS))
    chosen = sorted({*points[stride - 1 :: stride], points[-1]})
    head = ["kimg", *(study.title for study in studies)]
    lines = [_line(head), _line(["---:"] * len(head))]
    for kimg in chosen:
        scores = [course.get(kimg, {}) for course in courses]
        cells = [
            _score(one.get(SCORE), one.get("standard_error")) if one else "" for one in scores
        ]
        lines.append(_line([f"{kimg:g}", *cells]))
    return lines


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def verdict(study: Study, other: Study) -> str:
    """Returns in words which of two is ahead, and how sure that is."""
    by_test = test_difference(study, other)
    sure = abs(by_test.mean) > HALF_WIDTH * by_test.standard_error
    ahead = other if by_test.mean > 0 else study
    said = f"{ahead.title} is ahead" if sure else "the test set does not tell them apart"
    fresh = fresh_difference(study, other)
    by_seeds = "no seeds but the winners' own were tried (`confirm`)"
    if fresh is not None:
        by_seeds = f"over fresh seeds, {fresh} nats of the objective"
    return (
        f"{other.title} less {study.title}: test {by_test} nats, {said}; validation, in pairs "
        f"of points, {validation_difference(study, other)} nats. Those errors are of the points "
        f"alone; {by_seeds}."
    )


def report(studies: Sequence[Study]) -> str:
    """Returns the whole comparison, as Markdown.

    Raises:
        RecordError: The studies cannot be compared, or lack what is compared.
    """
    check_comparable(studies)
    dataset = studies[0].opened["dataset"]
    whole = "a bundled part of it" if dataset["subset"] else "the whole"
    protocol: dict[str, Any] = studies[0].opened["protocol"]
    lines = [
        f"Gaussian Parzen log-likelihoods in nats on {dataset['name']} ({whole}, "
        f"{dataset['source']}), N = {protocol['num_samples']:,} samples, one protocol "
        f"({studies[0].opened['protocol_digest'][:12]}).",
        "",
        *table(studies),
        "",
        *(verdict(studies[0], other) for other in studies[1:]),
        *_unequal(studies),
        "",
        "Validation at the winners' checkpoints:",
        "",
        *checkpoints(studies),
    ]
    return "\n".join(lines) + "\n"


def _unequal(studies: Sequence[Study]) -> list[str]:
    """Says where the budgets differ."""
    budgets = [
        {key: study.opened["spec"]["budget"].get(key) for key in ("kimg_per_trial", "trials")}
        for study in studies
    ]
    if all(budget == budgets[0] for budget in budgets):
        return []
    return ["BEWARE: the studies had different budgets, and more of it finds better winners."]


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    parser = Parser(
        prog="python -m reports.likelihoods",
        description="Hold the likelihoods of finished studies against each other.",
    )
    parser.add_argument("studies", type=Path, nargs="+", metavar="DIR", help="a study's folder")
    parser.add_argument("--out", type=Path, help="write the Markdown here too")
    return carry_out(_run, parser, arguments, (RecordError, OSError))


def _run(options: argparse.Namespace) -> int:
    if len(options.studies) < 2:
        raise RecordError("DIR: at least two studies must be given, but got one")
    text = report([Study.read(folder) for folder in options.studies])
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(text)
    sys.stdout.write(text)
    return DONE


if __name__ == "__main__":
    sys.exit(main())
