"""What `--dry-run` says beyond a plan: times as intervals, and what else they would buy."""

from collections.abc import Sequence
from statistics import fmean

from search.alternatives import Alternative, alternatives
from search.calibration import Calibration
from search.estimate import Estimate, duration
from search.forecast import Forecast, forecast, interval, regret_ratio
from search.plan import at_most, describe_afterwards, describe_trials, size
from search.study import StudySpec
from search.winner_error import WinnerError

INDENT = " " * 12


def preview(
    spec: StudySpec, cost: Estimate, calibration: Calibration, error: WinnerError
) -> list[str]:
    """Simulates a study and its alternatives, and says what it will do, cost and come to."""
    plan = forecast(spec, calibration, cost)
    afterwards = describe_afterwards(spec, cost)
    if spec.replication.adaptive:
        raced = interval([one.race_seconds for one in plan])
        afterwards[0] += f": {span(*map(duration, raced))} of that"
    work = (one.device_seconds / 3600 for one in plan)
    hours = span(*(f"{h:.0f}" if h >= 10 else f"{h:.1f}" for h in interval([*work])))
    return [
        *describe_trials(spec, cost),
        *_times(spec, cost, calibration, plan),
        *afterwards,
        f"work        {hours} device-hours",
        f"disk        at most {size(cost.disk_bytes)}",
        *error.describe(),
        *error.describe_luck(spec, fmean(one.completed for one in plan)),
        *_table(spec, plan, alternatives(spec, calibration, cost, plan), error),
    ]


def span(low: str, high: str) -> str:
    """Joins the ends of an interval; what both end in is said once: `13 to 23 min`."""
    if low == high:
        return low
    low_words, high_words = low.split(), high.split()
    if len(low_words) == len(high_words) == 2 and low_words[1] == high_words[1]:
        return f"{low_words[0]} to {high}"
    return f"{low} to {high}"


def _time(of: Forecast) -> str:
    return span(*map(duration, interval([one.seconds for one in of])))


def _counts(values: Sequence[int]) -> str:
    return span(*(f"{value:.0f}" for value in interval(values)))


def _times(spec: StudySpec, cost: Estimate, calibration: Calibration, plan: Forecast) -> list[str]:
    completed = _counts([one.completed for one in plan])
    lines = [
        f"time        {_time(plan)} (90 % of {len(plan)} simulated studies), "
        f"{completed} of {spec.budget.trials} trials trained in full",
        *(INDENT + line for line in at_most(spec, cost, max(calibration.paces))),
    ]
    if cut := fmean(one.cut_short for one in plan):
        begun = _counts([one.begun for one in plan])
        lines[-1] += f": {100 * cut:.0f} % of the searches, with {begun} trials begun"
    return lines


def _table(
    spec: StudySpec, plan: Forecast, others: Sequence[Alternative], error: WinnerError
) -> list[str]:
    rows = [("as asked", _trials(spec, spec), plan, error.of(spec), "1")]
    for other in others:
        ratio = regret_ratio(other.forecast, plan)
        says = "unknown" if ratio is None else "{:.1f} ({:.1f} to {:.1f})".format(*ratio)
        shown = _trials(other.spec, spec)
        rows.append((other.name, shown, other.forecast, error.of(other.spec), says))
    cells = [
        ("plan", "trials", "in full", "time", "winner", "regret"),
        *(
            (name, trials, _counts([one.completed for one in of]), _time(of), sure, regret)
            for name, trials, of, sure, regret in rows
        ),
    ]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return [
        "instead     what else the time would buy, in simulated studies over curves by a formula:",
        *(
            INDENT + "  ".join(map(str.ljust, row, widths)).rstrip()  # a column is left-aligned
            for row in cells
        ),
        f"{INDENT}(regret: how far the winner is from the best there is, over that of the plan as",
        f"{INDENT}asked, with 90 % of it; the formula knows nothing of these nets)",
    ]


def _trials(spec: StudySpec, asked: StudySpec) -> str:
    count, runs = spec.budget.trials, spec.replication.replicates
    shown = f"{count} x {runs} runs" if runs > 1 else str(count)
    kimg = spec.budget.kimg_per_trial
    length = f"{kimg:.0f}" if kimg >= 100 else f"{kimg:g}"
    return shown if kimg == asked.budget.kimg_per_trial else f"{shown} of {length} kimg"
