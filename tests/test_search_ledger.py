"""Laws of the ledger: exactly once, no gaps, only legal steps, and replay gives the same."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from tiny_events import proposed

from search.cell import cell_key
from search.constraints import Constraint
from search.event_fields import Params
from search.events import (
    Checkpointed,
    Ended,
    EndState,
    Event,
    Measured,
    Proposed,
    Retried,
    SessionClosed,
    SessionOpened,
    Stage,
    Started,
    StudyOpened,
    from_line,
)
from search.ledger import STAGES, Ledger, LedgerError

METRIC = "validation_log_likelihood"


def study_opened() -> StudyOpened:
    return StudyOpened(
        study="toy",
        study_id="0" * 32,
        spec={},
        spec_digest="s",
        dataset_digest="d",
        protocol_digest="p",
    )


def started(number: int, attempt: int = 0, from_kimg: float = 0.0) -> Started:
    return Started(
        number=number, attempt=attempt, from_kimg=from_kimg, node="n", device="cpu", pid=1
    )


def measured(number: int, kimg: float, value: float, replicate: int = 0) -> Measured:
    return Measured(
        number=number,
        replicate=replicate,
        kimg=kimg,
        elapsed_seconds=2 * kimg,
        metrics={METRIC: value, "standard_error": 3.0},
    )


def checkpointed(number: int, kimg: float) -> Checkpointed:
    return Checkpointed(number=number, kimg=kimg, path=f"tune/{number}/{kimg:g}")


def ended(number: int, state: EndState = "COMPLETED") -> Ended:
    return Ended(number=number, state=state, reason="said so")


def everything(ledger: Ledger) -> dict[str, Any]:
    return dict(vars(ledger))


def course(number: int, *values: float, state: EndState | None = "COMPLETED") -> list[Event]:
    """A whole trial, measured at 10, 20, ... kimg."""
    events: list[Event] = [proposed(number), started(number)]
    events += [measured(number, 10.0 * (i + 1), value) for i, value in enumerate(values)]
    return events if state is None else [*events, ended(number, state)]


class Study(RuleBasedStateMachine):
    """Drives a ledger with any interleaving of steps, legal or not, and with restarts."""

    def __init__(self) -> None:
        super().__init__()
        self.events: list[Event] = [study_opened(), SessionOpened(pid=1)]
        self.ledger = Ledger(self.events)
        self.accepted_ends: dict[int, str] = {}

    def offer(self, event: Event) -> bool:
        before = everything(Ledger(self.events))
        try:
            self.ledger.apply(event)
        except LedgerError:
            assert everything(self.ledger) == before
            return False
        self.events.append(event)
        return True

    @rule(skip=st.integers(-1, 1), x=st.integers(0, 6), stage=st.sampled_from(STAGES))
    def propose(self, skip: int, x: int, stage: Stage) -> None:
        number = self.ledger.next_number() + skip
        if number < 0:
            return
        taken = any(trial.params == {"x": x} for trial in self.ledger.trials.values())
        assert self.offer(proposed(number, {"x": x}, stage)) == (skip == 0 and not taken)

    @rule(number=st.integers(0, 4), attempt=st.integers(0, 2), checkpoint=st.booleans())
    def start(self, number: int, attempt: int, checkpoint: bool) -> None:
        trial = self.ledger.trials.get(number)
        found = trial.first.checkpoint if trial and checkpoint else None
        kimg = found.kimg if found else 0.0
        can = trial and trial.state == "RUNNING" and not trial.first.active
        legal = bool(can and trial and trial.first.attempts == attempt)
        assert self.offer(started(number, attempt, kimg)) == legal

    @rule(number=st.integers(0, 4), kimg=st.integers(0, 5), value=st.floats(-300, 300))
    def measure(self, number: int, kimg: int, value: float) -> None:
        if self.offer(measured(number, float(kimg), value)):
            assert self.ledger.trials[number].first.active

    @rule(number=st.integers(0, 4), kimg=st.integers(0, 5))
    def checkpoint(self, number: int, kimg: int) -> None:
        if self.offer(checkpointed(number, float(kimg))):
            assert self.ledger.trials[number].first.active

    @rule(number=st.integers(0, 4))
    def machine_fails(self, number: int) -> None:
        trial = self.ledger.trials.get(number)
        legal = trial is not None and trial.state == "RUNNING"
        assert self.offer(Retried(number=number, cause="node died")) == legal

    @rule(number=st.integers(0, 4), state=st.sampled_from(["COMPLETED", "STOPPED", "FAILED"]))
    def end(self, number: int, state: EndState) -> None:
        if self.offer(ended(number, state)):
            assert number not in self.accepted_ends
            self.accepted_ends[number] = state

    @rule()
    def kill_the_driver(self) -> None:
        self.ledger = Ledger(self.events)
        assert self.offer(SessionOpened(pid=2, extra_trials=1))
        assert not any(trial.first.active for trial in self.ledger.trials.values())

    @precondition(lambda self: self.ledger.trials)
    @rule()
    def open_twice(self) -> None:
        assert not self.offer(study_opened())

    @invariant()
    def numbers_have_no_gaps(self) -> None:
        assert list(self.ledger.trials) == list(range(self.ledger.next_number()))

    @invariant()
    def every_cell_is_once(self) -> None:
        cells = [trial.cell for trial in self.ledger.trials.values()]
        assert {cell: number for number, cell in enumerate(cells)} == self.ledger.cells
        assert len(set(cells)) == len(cells)

    @invariant()
    def an_end_is_final(self) -> None:
        states = {n: t.state for n, t in self.ledger.trials.items() if t.state != "RUNNING"}
        assert states == self.accepted_ends
        unfinished = {trial.number for trial in self.ledger.unfinished()}
        assert unfinished == set(self.ledger.trials) - set(states)

    @invariant()
    def a_course_is_in_order_and_once(self) -> None:
        for trial in self.ledger.trials.values():
            kimg = [m.kimg for m in trial.measurements]
            assert kimg == sorted(set(kimg))

    @invariant()
    def counts_add_up(self) -> None:
        total = len(self.ledger.trials)
        assert sum(self.ledger.count_by_state().values()) == total
        assert sum(self.ledger.count_by_stage().values()) == total

    def teardown(self) -> None:
        assert everything(Ledger(self.events)) == everything(self.ledger)
        for length in range(len(self.events)):
            Ledger(self.events[:length])


TestStudy = Study.TestCase
TestStudy.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


NUMBERS = st.integers(-(10**11), 10**11)
VALUES = st.one_of(
    st.booleans(),
    NUMBERS,
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(st.characters(exclude_categories=["Cs"])),
)
PARAMS = st.dictionaries(st.text(max_size=5), VALUES, max_size=5)


@given(PARAMS, st.randoms())
def test_a_cell_does_not_depend_on_order(params: Params, random: Any) -> None:
    names = list(params)
    random.shuffle(names)
    assert cell_key({name: params[name] for name in names}) == cell_key(params)


@given(NUMBERS)
def test_a_whole_number_is_one_cell_as_int_and_as_float(number: int) -> None:
    assert cell_key({"x": number}) == cell_key({"x": float(number)})


@given(PARAMS)
def test_a_cell_survives_its_own_json(params: Params) -> None:
    event = Proposed.model_validate_json(proposed(0, params).model_dump_json())
    assert cell_key(event.params) == cell_key(params)


@given(st.integers(-(10**15), 10**15), st.integers(-(10**15), 10**15))
def test_different_ints_are_different_cells(one: int, other: int) -> None:
    assert (cell_key({"x": one}) == cell_key({"x": other})) == (one == other)


def test_cells_are_canonical() -> None:
    assert (
        cell_key({"b": 0.1 + 0.2, "a": -0.0}) == '{"a":0,"b":0.3}' == cell_key({"a": 0, "b": 0.3})
    )
    assert len({cell_key({"x": value}) for value in (True, 1, "1", "true", 1.5, 1e300)}) == 6
    assert cell_key({}) == "{}"


def test_a_cell_on_the_grid_and_by_hand_is_one() -> None:
    ledger = Ledger([proposed(0, {"rate": 1, "units": 200}, "manual")])
    with pytest.raises(LedgerError, match=r"its cell .* is trial 0 already"):
        ledger.apply(proposed(1, {"units": 200, "rate": 1.0}, "random_grid"))


def test_a_cell_that_is_not_of_its_params_is_refused() -> None:
    forged = proposed(0).model_copy(update={"cell": "other"})
    with pytest.raises(LedgerError, match="`cell` must be"):
        Ledger([forged])


def test_objective_is_the_best_measurement() -> None:
    ledger = Ledger(course(0, -40.0, 130.0, 120.0))
    trial = ledger.trials[0]
    most, least = trial.objective(METRIC), trial.objective(METRIC, "minimize")
    assert most
    assert (most.value, most.kimg, most.standard_error) == (130.0, 20.0, 3.0)
    assert least
    assert least.value == -40.0
    assert trial.objective("absent") is None
    assert (trial.total_kimg, trial.elapsed_seconds) == (30.0, 60.0)


def test_objective_averages_replicates() -> None:
    twice = proposed(0).model_copy(update={"further_seeds": (8,)})
    second = started(0).model_copy(update={"replicate": 1})
    first: list[Event] = [twice, started(0), measured(0, 5, 1.0), measured(0, 9, 9.0), second]
    assert Ledger(first).trials[0].objective(METRIC) is None  # a mean would be of one of them
    ledger = Ledger([*first, measured(0, 5, 6.0, 1)])
    objective = ledger.trials[0].objective(METRIC)
    assert objective
    assert (objective.value, objective.replicates) == (3.5, 2)  # both at 5 kimg
    assert objective.standard_error == pytest.approx(2.5)
    assert ledger.trials[0].total_kimg == 14.0
    with pytest.raises(LedgerError, match="replicate 2 was never claimed"):
        ledger.apply(measured(0, 5, 6.0, 2))


def test_incumbent_keeps_every_constraint_where_its_objective_is_best() -> None:
    def trial(number: int, *points: tuple[float, float]) -> list[Event]:
        events = course(number, 0.0, state=None)[:2]
        for kimg, (value, accuracy) in enumerate(points, start=1):
            metrics = {METRIC: value, "label_accuracy": accuracy}
            events.append(
                Measured(number=number, kimg=kimg, elapsed_seconds=kimg, metrics=metrics)
            )
        return events

    ledger = Ledger(
        [*trial(0, (10.0, 0.95)), *trial(1, (5.0, 0.99), (90.0, 0.5)), *course(2, 99.0)]
    )
    found = {}
    for text in ("label_accuracy >= 0.9", "label_accuracy <= 0.6", "label_accuracy >= 0.96"):
        best = ledger.incumbent(METRIC, constraints=[Constraint.parse(text)])
        found[text] = None if best is None else best.number
    assert list(found.values()) == [0, 1, None]  # trial 2 has no label accuracy


def test_incumbent_is_neither_infeasible_nor_failed_nor_below_the_floor() -> None:
    ledger = Ledger(
        [
            *course(0, 10.0),
            *course(1, 90.0, state="INFEASIBLE"),
            *course(2, 80.0, state="FAILED"),
            *course(3, 50.0, state="STOPPED"),
            *course(4, 50.0),
            *course(5, state=None),
        ]
    )
    best = ledger.incumbent(METRIC)
    assert best
    assert best.number == 3
    least = ledger.incumbent(METRIC, "minimize")
    assert least
    assert least.number == 0
    assert ledger.incumbent(METRIC, untrained=50.0) is None
    assert ledger.incumbent(METRIC, "minimize", untrained=49.0) is best
    assert ledger.count_by_state() == {
        "RUNNING": 1,
        "COMPLETED": 2,
        "STOPPED": 1,
        "INFEASIBLE": 1,
        "FAILED": 1,
    }


def test_a_retried_trial_goes_on_from_its_checkpoint_without_what_was_lost() -> None:
    ledger = Ledger([*course(0, 1.0, 2.0, state=None), checkpointed(0, 20.0)])
    for event in (measured(0, 30.0, 99.0), Retried(number=0, cause="node died")):
        ledger.apply(event)
    ledger.apply(started(0, attempt=1, from_kimg=20.0))
    trial = ledger.trials[0]
    objective = trial.objective(METRIC)
    assert objective
    assert objective.value == 2.0
    assert (trial.retries, trial.first.attempts, trial.total_kimg) == (1, 2, 20.0)
    ledger.apply(measured(0, 20.0, 2.0))  # the checkpoint came before this measurement
    with pytest.raises(LedgerError, match=r"`kimg > 20.0` must hold, but got kimg=10.0"):
        ledger.apply(measured(0, 10.0, 1.0))
    assert [m.kimg for m in trial.measurements] == [10.0, 20.0]


def test_a_measurement_that_arrives_twice_is_refused() -> None:
    with pytest.raises(LedgerError, match=r"`kimg > 10.0` must hold, but got kimg=10.0"):
        Ledger([*course(0, 1.0, state=None), measured(0, 10.0, 1.0)])


def test_a_trial_started_from_scratch_forgets_its_course() -> None:
    ledger = Ledger([*course(0, 1.0, state=None), checkpointed(0, 10.0), SessionOpened(pid=2)])
    ledger.apply(started(0, attempt=1))
    assert ledger.trials[0].first.checkpoint is None
    assert ledger.trials[0].objective(METRIC) is None


@pytest.mark.parametrize(
    ("event", "message"),
    [
        (started(0, attempt=1), "running it already"),
        (proposed(5), r"`number == 1` must hold, but got number=5"),
        (measured(7, 1.0, 1.0), "trial 7 was never proposed"),
        (SessionClosed(reason="finished"), "no session is open"),
        (study_opened(), "opened once, before all else"),
    ],
)
def test_what_cannot_follow_says_why(event: Event, message: str) -> None:
    with pytest.raises(LedgerError, match=message):
        Ledger([proposed(0), started(0)]).apply(event)


def test_a_start_from_an_unknown_checkpoint_is_refused() -> None:
    with pytest.raises(LedgerError, match=r"one of \[0.0\], but got from_kimg=20.0"):
        Ledger([proposed(0), started(0, from_kimg=20.0)])


def test_a_trial_that_never_started_cannot_complete_but_can_be_stopped() -> None:
    with pytest.raises(LedgerError, match="never started"):
        Ledger([proposed(0), ended(0)])
    assert Ledger([proposed(0), ended(0, "STOPPED")]).trials[0].state == "STOPPED"


def test_sessions_add_to_the_budget_and_their_time_adds_up() -> None:
    noon = datetime(2026, 1, 1, 12, tzinfo=UTC)
    events: list[Event] = [
        proposed(0).model_copy(update={"at": noon}),
        SessionOpened(pid=1, at=noon),
        started(0).model_copy(update={"at": noon + timedelta(seconds=20)}),
        checkpointed(0, 10.0).model_copy(update={"at": noon + timedelta(seconds=50)}),  # kill -9
        SessionOpened(pid=2, at=noon + timedelta(hours=1), extra_trials=20, extra_seconds=60.0),
        started(0, 1, 10.0).model_copy(update={"at": noon + timedelta(hours=2)}),
        SessionClosed(reason="interrupted", at=noon + timedelta(hours=2, seconds=5)),
    ]
    ledger = Ledger(events)
    assert (ledger.extra_trials, ledger.extra_seconds, ledger.spent_seconds) == (20, 60.0, 35.0)
    assert not ledger.session_open


def test_a_session_that_waits_for_machines_spends_no_time() -> None:
    noon = datetime(2026, 1, 1, 12, tzinfo=UTC)
    ledger = Ledger([SessionOpened(pid=1, at=noon)])
    ledger.apply(proposed(0).model_copy(update={"at": noon + timedelta(hours=3)}))
    assert (ledger.spent_seconds, ledger.session_training) == (0.0, False)
    ledger.apply(started(0).model_copy(update={"at": noon + timedelta(hours=4)}))
    assert (ledger.spent_seconds, ledger.session_training) == (0.0, True)
    ledger.apply(SessionOpened(pid=2, at=noon + timedelta(hours=5)))
    assert (ledger.spent_seconds, ledger.session_training) == (0.0, False)


@pytest.mark.parametrize("step", [timedelta(days=400), timedelta(days=-400)])
def test_a_clock_that_is_set_spends_no_time(step: timedelta) -> None:
    noon = datetime(2026, 1, 1, 12, tzinfo=UTC)
    rest: list[Event] = [proposed(0), started(0), checkpointed(0, 10.0), checkpointed(0, 20.0)]
    events: list[Event] = [
        event.model_copy(update={"at": noon + step * (index > 1), "session_seconds": 10.0 * index})
        for index, event in enumerate([SessionOpened(pid=1), *rest])
    ]
    assert Ledger(events).spent_seconds == 20.0


def test_a_course_remembers_every_kind_of_machine_it_was_trained_on() -> None:
    def start(attempt: int, from_kimg: float, torch: str) -> Started:
        places = {"torch": torch, "streams": "host", "processor": None, "threads": 1}
        return started(0, attempt, from_kimg).model_copy(update=places)

    events: list[Event] = [proposed(0), start(0, 0.0, "2.1"), checkpointed(0, 10.0)]
    events += [Retried(number=0, cause="c"), start(1, 10.0, "2.1")]
    events += [Retried(number=0, cause="c"), start(2, 10.0, "2.2")]
    trial = Ledger(events).trials[0].first
    assert (trial.torch, trial.streams, trial.processor) == ("2.1 then 2.2", "host", None)
    again = [*events, Retried(number=0, cause="c"), start(3, 0.0, "2.2")]
    assert Ledger(again).trials[0].first.torch == "2.2"  # from scratch


def test_the_pack_is_that_of_the_last_start() -> None:
    ledger = Ledger([proposed(0), proposed(1)])
    assert ledger.pack is None
    for number, pack in ((0, 8), (1, 4)):
        start = started(number).model_copy(update={"pack": pack})
        ledger.apply(start)
        assert ledger.pack == ledger.trials[number].first.pack == pack
    line = started(0).model_dump_json(exclude={"pack"})  # as before there were packs
    old = from_line(line.encode())
    assert isinstance(old, Started)
    assert old.pack == 1
