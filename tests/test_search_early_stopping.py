"""Every rule over the fake trainer, killed at any measurement and resumed from the journal."""

from pathlib import Path
from typing import Any

import pytest
from closed_form import study
from fake_pool import drive
from tiny_schedulers import SCHEDULERS

from search.early_stopping import early_stopping
from search.events import Ended, Measured, Proposed
from search.hyperband import Hyperband
from search.ledger import Ledger
from search.median import MedianStopping
from search.scheduling import Halving
from search.study import SpecError, StudySpec

RULES = ("asha", "paired", "hyperband", "median")


def spec_of(name: str) -> StudySpec:
    return study(grid=11, model=0, scheduler=SCHEDULERS[name])


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("kills", [(), (3,), (14, 17, 21), (38,)], ids=str)
def test_a_study_decides_by_its_record_alone(
    tmp_path: Path, name: str, kills: tuple[int, ...]
) -> None:
    spec = spec_of(name)
    events = drive(spec, tmp_path, kills)
    assert len({e.cell for e in events if isinstance(e, Proposed)}) == 12
    stopping = early_stopping(spec, tmp_path)
    assert stopping is not None
    rule = stopping.rule
    assert rule is not None
    ledger, falls = Ledger(), dict[int, bool]()
    for event in events:
        ledger.apply(event)
        if isinstance(event, Measured):
            full = event.kimg == spec.budget.kimg_per_trial
            level = rule.rung_to_stop_at(event.number, ledger.trials)
            falls[event.number] = level is not None and not full
        if isinstance(event, Ended):
            assert event.state == ("STOPPED" if falls[event.number] else "COMPLETED")
    count = ledger.count_by_state()
    assert count["STOPPED"] >= 2
    assert count["COMPLETED"] >= 1
    assert count["STOPPED"] + count["COMPLETED"] == 12
    best = ledger.incumbent(spec.objective.metric)
    assert best is not None
    assert best.params == {"learning_rate": 0.1, "d_dropout": 0.3}


def test_chance_saves_trials_that_the_plain_rule_stops(tmp_path: Path) -> None:
    stopped = {}
    for name in ("asha", "paired"):
        events = drive(spec_of(name), tmp_path / name)
        stopped[name] = {e.number for e in events if isinstance(e, Ended) and e.reason}
    assert stopped["paired"] < stopped["asha"]


@pytest.mark.parametrize(
    ("name", "kind"), [("asha", Halving), ("hyperband", Hyperband), ("median", MedianStopping)]
)
def test_the_rule_is_that_of_the_spec(tmp_path: Path, name: str, kind: type[Any]) -> None:
    stopping = early_stopping(spec_of(name), tmp_path)
    assert stopping is not None
    assert isinstance(stopping.rule, kind)
    assert stopping.rule.name == SCHEDULERS[name]["kind"]
    assert stopping.points is None
    assert early_stopping(study(), tmp_path) is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scheduler": {"kind": "median"}}, "`grace_kimg` must be given where `kind` is median"),
        ({"scheduler": {**SCHEDULERS["median"], "paired": True}}, "but got kind=median"),
        (
            {"scheduler": SCHEDULERS["paired"], "objective": {"metric": "label_accuracy"}},
            "but got metric=label_accuracy",
        ),
    ],
)
def test_a_rule_that_cannot_be_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        study(**changes)
