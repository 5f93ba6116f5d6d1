"""What a study that went through faults must come to, told from its records one by one.

Nothing here folds events by `search.ledger`, which refuses much of what is looked for.
"""

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from benchmarks.orbits import METRIC, orbit, score
from search.events import Ended, Event, Measured, Proposed, Replicated, Retried, RunKey, Started
from search.events import StudyOpened as Opened
from search.record import MeasurementRecord, RunRecord
from search.run_events import EndState

_STATUS = {"COMPLETED": "FINISHED", "STOPPED": "FINISHED"}  # in MLflow; others are FAILED
_BY_ORDER = ("model",)  # stages whose cells depend on who came first


@dataclass(frozen=True)
class TrackedRun:
    """A run as MLflow has it; `course` is (step, metric) -> all values that it holds there."""

    key: str
    status: str
    tags: Mapping[str, str]
    params: Mapping[str, str]
    course: Mapping[tuple[int, str], Sequence[float]]


@dataclass(frozen=True)
class Findings:
    """What is wrong, each in words.

    Attributes:
        lost: Cells and runs that should be there, or that did not end as they should.
        doubled: Cells and runs that were claimed, or came to an end, more than once.
        changed: Runs whose scores are not those of an undisturbed training.
        disagreeing: Where Parquet or MLflow differ from the journal.
    """

    lost: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    disagreeing: list[str] = field(default_factory=list)

    def __iter__(self) -> Iterator[tuple[str, list[str]]]:
        return iter(vars(self).items())


def findings(
    events: Sequence[Event],
    undisturbed: Sequence[Event],
    runs: Sequence[RunRecord],
    measurements: Sequence[MeasurementRecord],
    tracked: Sequence[TrackedRun],
) -> Findings:
    """Holds a study against the same one without faults, and its records against its journal."""
    return Findings(
        lost=[*_lost(events, undisturbed)],
        doubled=[*_doubled(events)],
        changed=[*_changed(events)],
        disagreeing=[*_recorded(events, runs, measurements), *_tracked(events, tracked)],
    )


def courses(events: Iterable[Event]) -> dict[RunKey, dict[float, Measured]]:
    """What stands of each run's measurements: those behind the checkpoint it last began from."""
    found: dict[RunKey, dict[float, Measured]] = {run: {} for run in _claims(events)}
    for event in events:
        if isinstance(event, Started):
            held = found.get(event.run, {})
            found[event.run] = {k: m for k, m in held.items() if k <= event.from_kimg}
        elif isinstance(event, Measured):
            found.setdefault(event.run, {})[event.kimg] = event
    return found


def _claims(events: Iterable[Event]) -> list[RunKey]:
    """Every claim of a run, in order."""
    claimed = []
    for event in events:
        if isinstance(event, Proposed):
            claimed.append(RunKey(event.number, 0))
        elif isinstance(event, Replicated):
            claimed.append(RunKey(event.number, event.replicate))
    return claimed


def _ends(events: Iterable[Event]) -> dict[RunKey, EndState]:
    return {event.run: event.state for event in events if isinstance(event, Ended)}


def _planned(events: Sequence[Event]) -> dict[str, EndState | None]:
    """The end of every claim: by cell, and by count where cells depend on the order."""
    ends = _ends(events)
    found: dict[str, EndState | None] = {}
    count: Counter[str] = Counter()
    for event in events:
        if isinstance(event, Proposed):
            name = f"cell {event.cell}"
            if event.stage in _BY_ORDER:
                name = f"{event.stage} trial {count[event.stage]}"
                count[event.stage] += 1
            found[name] = ends.get(RunKey(event.number, 0))
        elif isinstance(event, Replicated):
            name = f"{event.purpose} run {count[event.purpose]}"
            count[event.purpose] += 1
            found[name] = ends.get(RunKey(event.number, event.replicate))
    return found


def _lost(events: Sequence[Event], undisturbed: Sequence[Event]) -> Iterator[str]:
    found, wanted = _planned(events), _planned(undisturbed)
    for name, state in wanted.items():
        if name not in found:
            yield f"{name} was never claimed"
        elif found[name] != state:
            yield f"{name} ended {found[name]}, not {state}"
    yield from (f"{name} is none of the study's" for name in found.keys() - wanted.keys())


def _doubled(events: Sequence[Event]) -> Iterator[str]:
    cells = Counter(event.cell for event in events if isinstance(event, Proposed))
    ends = Counter(event.run for event in events if isinstance(event, Ended))
    yield from (f"cell {cell} was claimed {n} times" for cell, n in cells.items() if n > 1)
    claims = Counter(_claims(events))
    yield from (f"run {name(run)} was claimed {n} times" for run, n in claims.items() if n > 1)
    yield from (f"run {name(run)} ended {n} times" for run, n in ends.items() if n > 1)


def _changed(events: Sequence[Event]) -> Iterator[str]:
    """A run that was trained to its end has its whole orbit; no kimg is missing or changed."""
    seeds, params = _seeds(events), {e.number: e.params for e in events if isinstance(e, Proposed)}
    found = courses(events)
    full = max((kimg for course in found.values() for kimg in course), default=0.0)
    for run, state in _ends(events).items():
        course = found.get(run, {})
        if state == "COMPLETED" and (not course or max(course) != full):
            yield f"run {name(run)} is COMPLETED at {max(course, default=0.0):g} kimg"
        if list(course) != [full / 4 * step for step in range(1, len(course) + 1)]:
            yield f"run {name(run)} was measured at {list(course)} kimg"
        for kimg, measured in course.items():
            wanted = {"orbit": orbit(seeds[run], kimg), METRIC: score(params[run.number], kimg)}
            for metric, value in wanted.items():
                if not math.isclose(measured.metrics[metric], value, abs_tol=1e-12):
                    yield f"run {name(run)} has another {metric} at {kimg:g} kimg"


def _seeds(events: Iterable[Event]) -> dict[RunKey, int]:
    seeds = {}
    for event in events:
        if isinstance(event, Proposed):
            seeds[RunKey(event.number, 0)] = event.seed
        elif isinstance(event, Replicated):
            seeds[RunKey(event.number, event.replicate)] = event.seed
    return seeds


def _recorded(
    events: Sequence[Event],
    runs: Sequence[RunRecord],
    measurements: Sequence[MeasurementRecord],
) -> Iterator[str]:
    ends, retries = _ends(events), _retries(events)
    rows = {RunKey(row.number, row.replicate): row for row in runs}
    if sorted(_claims(events)) != sorted(RunKey(row.number, row.replicate) for row in runs):
        yield f"runs.parquet has {len(runs)} runs, the journal {len(_claims(events))}"
    for run, row in rows.items():
        if (row.state, row.retries) != (ends.get(run, "RUNNING"), retries[run]):
            yield f"runs.parquet: run {name(run)} is {row.state} after {row.retries} retries"
    written = sorted(
        (m.number, m.replicate, m.kimg, sorted(m.metrics.items())) for m in measurements
    )
    happened = sorted(
        (m.number, m.replicate, m.kimg, sorted(m.metrics.items()))
        for course in courses(events).values()
        for m in course.values()
    )
    if written != happened:
        yield f"measurements.parquet has {len(written)} rows, the journal {len(happened)}"


def _tracked(events: Sequence[Event], tracked: Sequence[TrackedRun]) -> Iterator[str]:
    study_id = next(event.study_id for event in events if isinstance(event, Opened))
    ends, retries, found = _ends(events), _retries(events), courses(events)
    params = {e.number: e.params for e in events if isinstance(e, Proposed)}
    count = Counter(run.key for run in tracked)
    yield from (f"MLflow has {n} runs of {key}" for key, n in count.items() if n > 1)
    by_key = {run.key: run for run in tracked}
    wanted = {f"{study_id}/{run.number}/{run.replicate}": run for run in _claims(events)}
    yield from (f"MLflow has no run {key}" for key in wanted.keys() - by_key.keys())
    for key, shown in by_key.items():
        run = wanted.get(key)
        if run is None:
            if (key, shown.status) != (study_id, "FINISHED"):
                yield f"MLflow has a run {key} that is {shown.status}"
            continue
        state = ends.get(run, "RUNNING")
        facts = (shown.status, shown.tags.get("state"), shown.tags.get("retries"))
        lost = retries[run]
        if run.replicate == 0:  # which stands for its whole trial
            lost = sum(n for other, n in retries.items() if other.number == run.number)
        if facts != (_STATUS.get(state, "FAILED"), state, str(lost)):
            yield f"MLflow: run {name(run)} is {facts}, not {state} after {lost} retries"
        given = {key: float(shown.params.get(key, "nan")) for key in params[run.number]}
        if given != params[run.number]:
            yield f"MLflow: run {name(run)} has parameters {given}"
        if dict(shown.course) != _shown(found[run]):
            yield f"MLflow: run {name(run)} holds {dict(shown.course)}"


def _shown(course: Mapping[float, Measured]) -> dict[tuple[int, str], list[float]]:
    """What MLflow is to hold of a course: one value of each metric at each step."""
    return {
        (int(kimg + 0.5), metric): [measured.metrics[metric]]
        for kimg, measured in course.items()
        for metric in (METRIC, "orbit")
    }


def _retries(events: Iterable[Event]) -> Counter[RunKey]:
    return Counter(event.run for event in events if isinstance(event, Retried))


def name(run: RunKey) -> str:
    """Names a run in words."""
    return f"{run.number}-{run.replicate}"
