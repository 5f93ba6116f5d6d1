"""What the studies of `benchmarks.selection` add up to."""

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from statistics import fmean, stdev
from typing import Any

from scipy import stats

from benchmarks.searches import Choice

Claim = tuple[float, float]
"""A claimed probability, and 1 or 0 as it was true or not; a share where several are the best."""

BINS = (0.0, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)


def report(studies: Sequence[Mapping[str, Choice]]) -> dict[str, Any]:
    """Adds up: mean regrets, ours minus each other, the claims and what became of them."""
    regrets = {name: [one[name].regret for one in studies] for name in studies[0]}
    ours = [one["ours"] for one in studies]
    claims = [
        (choice.probability, choice.share_of_best)
        for choice in ours
        if choice.probability is not None and choice.share_of_best is not None
    ]
    return {
        "studies": len(studies),
        "mean_regret": {name: fmean(values) for name, values in regrets.items()},
        "interval": {name: interval(values) for name, values in regrets.items()},
        "difference": {
            name: difference(regrets["ours"], values)
            for name, values in regrets.items()
            if name != "ours"
        },
        "mean_regret_of_best_score": {
            name: fmean(one[name].regret_of_best for one in studies) for name in regrets
        },
        "kimg": {name: fmean(one[name].kimg for one in studies) for name in regrets},
        "trials": {name: fmean(one[name].trials for one in studies) for name in regrets},
        "reliability": reliability(claims),
        "calibration": calibration(claims),
        "winners_curse": curse(ours),
    }


def curse(ours: Sequence[Choice]) -> dict[str, Any]:
    """How far the best scores lay above their fresh seeds on average, and should have."""
    expected = [one.expected_curse for one in ours if one.expected_curse is not None]
    found = [one.curse for one in ours if one.curse is not None]
    return {
        "expected": fmean(expected) if expected else None,
        "found": fmean(found) if found else None,
        "interval": interval(found),
    }


def interval(values: Sequence[float]) -> list[float] | None:
    """95 % of the mean of independent values, by Student's t; None below two."""
    if len(values) < 2:
        return None
    half = float(stats.t.ppf(0.975, len(values) - 1)) * stdev(values) / math.sqrt(len(values))
    return [fmean(values) - half, fmean(values) + half]


def difference(ours: Sequence[float], theirs: Sequence[float]) -> dict[str, Any]:
    """Ours minus theirs, study by study."""
    apart = [mine - other for mine, other in zip(ours, theirs, strict=True)]
    return {"mean": fmean(apart), "interval": interval(apart)}


def reliability(claims: Sequence[Claim]) -> list[dict[str, Any]]:
    """For each bin of the claimed probability: its mean, how often it was true, how many."""
    rows = []
    for low, high in pairwise(BINS):
        inside = [c for c in claims if low <= c[0] < high or c[0] == high == BINS[-1]]
        if inside:
            hits = math.fsum(true for _, true in inside)
            rows.append(
                {
                    "bin": [low, high],
                    "count": len(inside),
                    "claimed": fmean(claimed for claimed, _ in inside),
                    "observed": hits / len(inside),
                    "interval": exact_interval(hits, len(inside)),
                }
            )
    return rows


def exact_interval(hits: float, count: int) -> list[float]:
    """95 % of a proportion (Clopper & Pearson, 1934); hits may be shared."""
    low = stats.beta.ppf(0.025, hits, count - hits + 1) if hits > 0 else 0.0
    high = stats.beta.ppf(0.975, hits + 1, count - hits) if hits < count else 1.0
    return [float(low), float(high)]


def calibration(claims: Sequence[Claim]) -> dict[str, float]:
    """Claimed and true on the whole, and the expected calibration error over the bins.

    The error is the mean distance of claimed and observed, weighted by the counts (Naeini et al.,
    2015, "Obtaining well calibrated probabilities using Bayesian binning"). It is above 0 by
    chance alone: `error_by_chance` is what it would be on average, were every claim true.
    """
    rows = reliability(claims)
    return {
        "claimed": fmean(claimed for claimed, _ in claims),
        "observed": fmean(true for _, true in claims),
        "error": sum(r["count"] * abs(r["claimed"] - r["observed"]) for r in rows) / len(claims),
        "error_by_chance": sum(
            math.sqrt(2 / math.pi * r["count"] * r["claimed"] * (1 - r["claimed"])) for r in rows
        )
        / len(claims),
    }


def table(found: Mapping[str, Any]) -> str:
    """Writes a report in lines."""
    lines = [
        f"{found['objective']}: mean true regret of the winner, {found['studies']} studies of "
        f"{found['trainings']:g} trainings",
        f"{'search':<22}{'regret':>8}{'95 %':>16}{'ours - it':>11}{'95 %':>18}{'trials':>8}",
    ]
    for name, regret in found["mean_regret"].items():
        line = f"{name:<22}{regret:>8.2f}{_between(found['interval'][name]):>16}"
        apart = found["difference"].get(name)
        shown = f"{apart['mean']:>11.2f}{_between(apart['interval']):>18}" if apart else " " * 29
        lines.append(f"{line}{shown}{found['trials'][name]:>8.0f}")
    whole = found["calibration"]
    lines += [
        "claimed to be the best of those confirmed, and true",
        *(
            f"  {row['bin'][0]:.1f} to {row['bin'][1]:.1f}{row['count']:>6} studies"
            f"{row['claimed']:>8.2f}{row['observed']:>8.2f}  ({_between(row['interval'])})"
            for row in found["reliability"]
        ),
        f"  all       {found['studies']:>6} studies{whole['claimed']:>8.2f}"
        f"{whole['observed']:>8.2f}  expected calibration error {whole['error']:.3f}, by chance "
        f"{whole['error_by_chance']:.3f}",
    ]
    excess = found["winners_curse"]
    if excess["found"] is not None:
        lines.append(
            f"winner's curse: {excess['expected']:.2f} expected, {excess['found']:.2f} found "
            f"({_between(excess['interval'])})"
        )
    return "\n".join(lines)


def _between(ends: Sequence[float] | None) -> str:
    return "" if ends is None else f"{ends[0]:.2f} to {ends[1]:.2f}"
