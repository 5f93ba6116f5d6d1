"""The fault campaign's checks find what they are there for, in records that were doctored."""

from collections.abc import Mapping
from dataclasses import replace

import pytest

from benchmarks.fault_checks import Findings, TrackedRun, courses, findings, name
from benchmarks.orbits import METRIC, is_hopeless, orbit, orbit_study, score
from search.events import (
    Ended,
    Event,
    Measured,
    Proposed,
    Replicated,
    Retried,
    RunKey,
    SessionClosed,
    SessionOpened,
    Started,
    StudyOpened,
)
from search.ledger import Ledger
from search.proposer import Proposer
from search.record import MeasurementRecord, RunRecord

KIMGS = (100.0, 200.0, 300.0, 400.0)


def trained(number: int, replicate: int, seed: int, params: Mapping[str, object]) -> list[Event]:
    """A run from its start to its end, one attempt of which was lost after a measurement."""
    here = {"number": number, "replicate": replicate}
    events: list[Event] = [
        Started(**here, attempt=0, node="n", device="cpu", pid=1),
        measured(number, replicate, seed, params, 100.0),
        Retried(**here, cause="its process died", kind="machine"),
        Started(**here, attempt=1, node="n", device="cpu", pid=2),
    ]
    if is_hopeless(params):
        return [*events, Ended(**here, state="INFEASIBLE", reason="cannot be trained")]
    events += [measured(number, replicate, seed, params, kimg) for kimg in KIMGS]
    return [*events, Ended(**here, state="COMPLETED")]


def measured(
    number: int, replicate: int, seed: int, params: Mapping[str, object], kimg: float
) -> Measured:
    metrics = {METRIC: score(params, kimg), "standard_error": 1.0, "orbit": orbit(seed, kimg)}
    return Measured(
        number=number, replicate=replicate, kimg=kimg, elapsed_seconds=kimg, metrics=metrics
    )


@pytest.fixture(scope="module")
def journal() -> list[Event]:
    """The whole study, one run after another, and a confirmation of trial 5."""
    spec = orbit_study()
    proposer = Proposer(spec)
    events: list[Event] = [
        StudyOpened(
            study=spec.study,
            study_id="s",
            spec=spec.model_dump(mode="json"),
            spec_digest=spec.digest,
            dataset_digest="none",
            protocol_digest="none",
        ),
        SessionOpened(pid=1),
    ]
    ledger = Ledger(events)
    while (claimed := proposer.propose(ledger)) is not None:
        new = [claimed, *trained(claimed.number, 0, claimed.seed, dict(claimed.params))]
        for event in new:
            ledger.apply(event)
        events += new
    params = dict(ledger.trials[5].params)
    for replicate in (1, 2):
        seed = 70 + replicate
        claim = Replicated(number=5, replicate=replicate, purpose="confirmation", seed=seed)
        events += [claim, *trained(5, replicate, seed, params)]
    return [*events, SessionClosed(reason="finished")]


def found(
    events: list[Event],
    undisturbed: list[Event],
    tracked: list[TrackedRun] | None = None,
    rows: list[RunRecord] | None = None,
) -> Findings:
    """What the checks say where the records are those of the journal, unless others are given."""
    measurements = [
        MeasurementRecord.of(one) for course in courses(events).values() for one in course.values()
    ]
    return findings(
        events,
        undisturbed,
        recorded(events) if rows is None else rows,
        measurements,
        shown(events) if tracked is None else tracked,
    )


def recorded(events: list[Event]) -> list[RunRecord]:
    ends = {event.run: event for event in events if isinstance(event, Ended)}
    return [
        RunRecord(
            number=run.number,
            replicate=run.replicate,
            purpose="search",
            state=ends[run].state if run in ends else "RUNNING",
            seed=0,
            retries=sum(isinstance(e, Retried) and e.run == run for e in events),
        )
        for run in courses(events)
    ]


def shown(events: list[Event]) -> list[TrackedRun]:
    """What a faithful MLflow holds."""
    params = {e.number: e.params for e in events if isinstance(e, Proposed)}
    runs = [TrackedRun("s", "FINISHED", {}, {}, {})]
    rows = recorded(events)
    for row in rows:
        course = courses(events)[RunKey(row.number, row.replicate)]
        retries = row.retries
        if row.replicate == 0:  # the run of the trial, which counts what all its runs lost
            retries = sum(other.retries for other in rows if other.number == row.number)
        runs.append(
            TrackedRun(
                key=f"s/{row.number}/{row.replicate}",
                status="FINISHED" if row.state == "COMPLETED" else "FAILED",
                tags={"state": row.state, "retries": str(retries)},
                params={key: repr(value) for key, value in params[row.number].items()},
                course={
                    (int(kimg), metric): [one.metrics[metric]]
                    for kimg, one in course.items()
                    for metric in (METRIC, "orbit")
                },
            )
        )
    return runs


def test_a_whole_study_passes_though_runs_were_lost_and_retried(journal: list[Event]) -> None:
    assert found(journal, journal) == Findings()
    assert any(isinstance(e, Ended) and e.state == "INFEASIBLE" for e in journal)


def test_a_lost_cell_is_found(journal: list[Event]) -> None:
    gone = [e for e in journal if getattr(e, "number", None) != 4]
    (cell,) = [e.cell for e in journal if isinstance(e, Proposed) and e.number == 4]
    assert found(gone, journal).lost == [f"cell {cell} was never claimed"]
    failed = [
        Ended(number=4, state="FAILED", reason="boom")
        if isinstance(e, Ended) and e.number == 4
        else e
        for e in journal
    ]
    assert found(failed, journal).lost == [f"cell {cell} ended FAILED, not COMPLETED"]
    open_end = [e for e in journal if not (isinstance(e, Ended) and e.run == RunKey(5, 2))]
    assert found(open_end, journal).lost == ["confirmation run 1 ended None, not COMPLETED"]


def test_a_doubled_cell_is_found(journal: list[Event]) -> None:
    (claim,) = [e for e in journal if isinstance(e, Proposed) and e.number == 3]
    again = claim.model_copy(update={"number": 12})
    twice = [*journal, again, *trained(12, 0, again.seed, dict(again.params))]
    assert found(twice, journal).doubled == [f"cell {claim.cell} was claimed 2 times"]
    assert found([*journal, claim], journal).doubled == [
        f"cell {claim.cell} was claimed 2 times",
        "run 3-0 was claimed 2 times",
    ]
    ended = Ended(number=3, state="COMPLETED")
    assert found([*journal, ended], journal).doubled == ["run 3-0 ended 2 times"]
    (model,) = [e for e in journal if isinstance(e, Proposed) and e.number == 11]
    more = model.model_copy(update={"number": 12, "cell": "another"})
    assert found([*journal, more], journal).lost == ["model trial 2 is none of the study's"]


def test_a_course_that_is_not_the_undisturbed_one_is_found(journal: list[Event]) -> None:
    def altered(kimg: float, **metrics: float) -> list[Event]:
        return [
            e.model_copy(update={"metrics": e.metrics | metrics})
            if isinstance(e, Measured) and e.run == RunKey(2, 0) and e.kimg == kimg
            else e
            for e in journal
        ]

    assert found(altered(300.0, orbit=0.5), journal).changed == [
        "run 2-0 has another orbit at 300 kimg"
    ]
    # What a lost attempt measured does not stand, so it may be anything.
    first = next(i for i, e in enumerate(journal) if isinstance(e, Measured) and e.number == 2)
    lost = [*journal]
    lost[first] = journal[first].model_copy(update={"metrics": {METRIC: 1.0, "orbit": 2.0}})
    assert found(lost, journal).changed == []
    holed = [
        e
        for e in journal
        if not (isinstance(e, Measured) and e.run == RunKey(2, 0) and e.kimg == 200.0)
    ]
    assert found(holed, journal).changed == ["run 2-0 was measured at [100.0, 300.0, 400.0] kimg"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"status": "RUNNING"}, "('RUNNING', 'COMPLETED', '1'), not COMPLETED after 1 retries"),
        ({"tags": {"state": "COMPLETED", "retries": "0"}}, "not COMPLETED after 1 retries"),
        ({"params": {}}, "has parameters"),
        ({"course": {}}, "holds {}"),
    ],
)
def test_a_disagreeing_run_of_mlflow_is_found(
    journal: list[Event], change: dict[str, object], words: str
) -> None:
    tracked = [
        replace(run, **change) if run.key == "s/1/0" else run  # type: ignore[arg-type]
        for run in shown(journal)
    ]
    (problem,) = found(journal, journal, tracked).disagreeing
    assert problem.startswith(f"MLflow: run {name(RunKey(1))}")
    assert words in problem


def test_missing_doubled_and_foreign_runs_of_mlflow_are_found(journal: list[Event]) -> None:
    tracked = shown(journal)
    foreign = replace(tracked[0], key="s/99/0")
    wrong = [run for run in tracked if run.key != "s/5/1"] + [tracked[3], foreign]
    assert found(journal, journal, wrong).disagreeing == [
        f"MLflow has 2 runs of {tracked[3].key}",
        "MLflow has no run s/5/1",
        "MLflow has a run s/99/0 that is FINISHED",
    ]
    twice = replace(tracked[1], course={k: [*v, *v] for k, v in tracked[1].course.items()})
    (problem,) = found(journal, journal, [tracked[0], twice, *tracked[2:]]).disagreeing
    assert problem.startswith("MLflow: run 0-0 holds")
    unfinished = [replace(tracked[0], status="RUNNING"), *tracked[1:]]
    assert found(journal, journal, unfinished).disagreeing == [
        "MLflow has a run s that is RUNNING"
    ]


def test_a_disagreeing_row_of_the_record_is_found(journal: list[Event]) -> None:
    rows = [replace(row, state="RUNNING") if row.number == 7 else row for row in recorded(journal)]
    assert found(journal, journal, rows=rows).disagreeing == [
        "runs.parquet: run 7-0 is RUNNING after 1 retries"
    ]
    assert found(journal, journal, rows=recorded(journal)[1:]).disagreeing == [
        "runs.parquet has 13 runs, the journal 14"
    ]
