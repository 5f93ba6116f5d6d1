"""What models are told of an earlier study: its own record, frozen, and nothing incomparable."""

# ruff: noqa: E501 - an exact message is one line

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from closed_form import open_history, study
from fake_pool import drive
from test_search_replication import spec_of as replicated
from test_search_samplers import SPACE, value_of, work_off
from tiny_schedulers import noisy
from tiny_study import content, write_npz

from search.cell import cell_key
from search.earlier_study import check_comparable
from search.events import Ended, Measured, SessionOpened, Started
from search.history import History
from search.ledger import Ledger
from search.lines import Lines
from search.objective import ObjectiveSection
from search.parquet import RecordError
from search.prepared import PreparedStudy
from search.proposer import Proposer
from search.record import write_record
from search.seen_trial import SeenTrial, seen
from search.study import SpecError, StudySpec
from search.study_file import StudyError
from search.warm_start import EARLIER_STAGE, FOLDER, WarmStart

DIGESTS = {"dataset_digest": "d" * 64, "protocol_digest": "p" * 64}


def spec_of(sampler: str = "tpe", trials: int = 24, **changes: Any) -> StudySpec:
    sections: dict[str, Any] = {
        "space": SPACE,
        "stages": [{"kind": "model", "sampler": sampler, "trials": trials}],
        "budget": {"kimg_per_trial": 400.0, "measure_kimg": 100.0, "trials": trials},
    }
    fixed = changes.pop("model", {"momentum": 0.5})
    return study(**(sections | changes)).model_copy(update={"model": fixed})


def record(history: History, objective: ObjectiveSection) -> None:
    write_record(
        history.ledger,
        history.folder,
        DIGESTS["dataset_digest"],
        DIGESTS["protocol_digest"],
        {},
        metric=objective.metric,
        direction=objective.direction,
    )


@pytest.fixture(scope="module")
def earlier(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Ledger]:
    """A record of 24 ended trials, one FAILED and one still running; and its ledger."""
    folder, spec = tmp_path_factory.mktemp("earlier"), spec_of("sobol", 26, seed=5)
    with open_history(folder, spec) as history:
        work_off(history, spec, 24)
        for number, reason in ((24, "disk"), (25, None)):
            proposal = Proposer(spec).propose(history.ledger)
            assert proposal is not None
            history.append(proposal)
            history.append(Started(number=number, attempt=0, node="n", device="cpu", pid=1))
            if reason is not None:
                history.append(Ended(number=number, state="FAILED", reason=reason))
        record(history, spec.objective)
        return folder, history.ledger


def gather(folders: Sequence[Path], spec: StudySpec) -> tuple[WarmStart, list[str]]:
    said: list[str] = []
    return WarmStart.gather(folders, spec.space, said.append), said


@pytest.mark.parametrize(
    "objective",
    [
        ObjectiveSection(),
        ObjectiveSection(constraints=("recall >= 0.2",)),
        ObjectiveSection.model_validate({"also": [{"metric": "recall"}]}),
    ],
)
def test_a_record_tells_what_the_ledger_would(
    earlier: tuple[Path, Ledger], objective: ObjectiveSection
) -> None:
    folder, ledger = earlier
    warm, said = gather([folder], spec_of())
    ended = [t for t in ledger.trials.values() if t.state not in ("RUNNING", "FAILED")]
    assert {t.state for t in ended} == {"COMPLETED", "STOPPED", "INFEASIBLE"}
    wanted = tuple(replace(seen(trial, objective), stage_index=EARLIER_STAGE) for trial in ended)
    assert warm.seen(objective) == wanted
    assert said == [
        f"warm start: models are told 24 trials of {folder}; left out: 2 not ended, or FAILED"
    ]


@pytest.mark.parametrize("scheduler", ["none", "asha"])
def test_trials_of_several_runs_are_told_by_their_means(scheduler: str, tmp_path: Path) -> None:
    spec = replicated(scheduler)
    ledger = Ledger(drive(spec, tmp_path / "study", runs=noisy(tmp_path), workers=2))
    write_record(ledger, tmp_path, "d", "p", {})
    warm, _ = gather([tmp_path], spec)
    wanted = [seen(trial, spec.objective) for trial in ledger.trials.values()]
    assert warm.seen(spec.objective) == tuple(
        replace(trial, stage_index=EARLIER_STAGE) for trial in wanted
    )
    assert {len(trial.runs) for trial in ledger.trials.values()} == {3}


def test_trials_outside_the_present_domains_are_left_out_and_counted(
    earlier: tuple[Path, Ledger],
) -> None:
    narrow = SPACE | {"d_dropout": {"type": "float", "low": 0.0, "high": 0.3}}
    warm, said = gather([earlier[0], earlier[0]], spec_of(space=narrow))
    inside = [
        t for t in earlier[1].trials.values() if t.number < 24 and float(t.params["d_dropout"]) <= 0.3
    ]  # fmt: skip
    assert [row.number for row in warm.trials] == list(range(2 * len(inside)))
    assert [row.params for row in warm.trials] == 2 * [trial.params for trial in inside]
    assert {m.number for m in warm.measurements} == {row.number for row in warm.trials}
    assert said[0] == (
        f"warm start: models are told {len(inside)} trials of {earlier[0]}; left out: "
        f"{24 - len(inside)} outside the present domains, 2 not ended, or FAILED"
    )


def test_what_was_told_is_kept_whatever_becomes_of_the_earlier_study(
    earlier: tuple[Path, Ledger], tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(earlier[0], copy)
    warm, _ = gather([copy], spec_of())
    digest = warm.freeze(tmp_path)
    shutil.rmtree(copy)
    assert WarmStart.thaw(tmp_path, digest) == warm
    replace(warm, trials=warm.trials[:-1]).freeze(tmp_path)
    with pytest.raises(RecordError, match="must be as this study wrote it") as caught:
        WarmStart.thaw(tmp_path, digest)
    assert digest[:12] in str(caught.value)
    shutil.rmtree(tmp_path / FOLDER)
    with pytest.raises(RecordError, match="is missing"):
        WarmStart.thaw(tmp_path, digest)


def proposals(
    spec: StudySpec, folder: Path, earlier: Sequence[SeenTrial], count: int
) -> list[dict[str, Any]]:
    proposer, made = Proposer(spec, earlier), list[dict[str, Any]]()
    with open_history(folder, spec) as history:
        while len(made) < count and (proposal := proposer.propose(history.ledger)):
            history.append(proposal)
            made.append(dict(proposal.params))
    return made


@pytest.mark.parametrize(("sampler", "count"), [("tpe", 5), ("gp", 1), ("cmaes", 5), ("nsga2", 5)])
def test_models_begin_where_the_earlier_study_came_to(
    sampler: str, count: int, earlier: tuple[Path, Ledger], tmp_path: Path
) -> None:
    spec = spec_of(sampler)
    told = gather([earlier[0]], spec)[0].seen(spec.objective)
    warm = proposals(spec, tmp_path / "warm", told, count)
    assert warm == proposals(spec, tmp_path / "again", told, count)
    cold = proposals(spec, tmp_path / "cold", (), count)
    assert sum(map(value_of, warm)) > sum(map(value_of, cold))


def test_a_cell_of_the_earlier_study_may_be_tried_again(tmp_path: Path) -> None:
    space = {
        "learning_rate": {"type": "categorical", "choices": [0.1]},
        "d_dropout": {"type": "categorical", "choices": [0.0, 0.2, 0.4]},
    }
    spec = spec_of("random", 3, space=space)
    with open_history(tmp_path / "earlier", spec) as history:
        work_off(history, spec)
        record(history, spec.objective)
    again = spec_of("tpe", 3, space=space)
    warm, _ = gather([tmp_path / "earlier"], again)
    made = proposals(again, tmp_path / "later", warm.seen(again.objective), 9)
    assert len({cell_key(params) for params in made}) == len(made) == 3


OTHERS: list[tuple[dict[str, Any], str]] = [
    ({"objective": {"metric": "recall"}}, "objective.metric is 'recall' there, 'validation_log_likelihood' here"),
    ({"objective": {"direction": "minimize"}}, "objective.direction is 'minimize' there, 'maximize' here"),
    ({"objective": {"also": [{"metric": "recall"}]}}, "objective.also is [{'metric': 'recall', 'direction': 'maximize'}] there, [] here"),
    ({"budget": {"kimg_per_trial": 200.0, "measure_kimg": 50.0, "trials": 24}}, "budget.kimg_per_trial is 200.0 there, 400.0 here\n  budget.measure_kimg is 50.0 there, 100.0 here"),
    ({"space": SPACE | {"g_dropout": {"type": "float", "low": 0.0, "high": 0.5}}}, "g_dropout is searched there only"),
    ({"space": {k: v for k, v in SPACE.items() if k != "d_steps"}}, "d_steps is searched here only"),
    ({"model": {"momentum": 0.7}}, "model.momentum is 0.7 there, 0.5 here"),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "message"), OTHERS, ids=[row[1][:40] for row in OTHERS])
def test_a_study_under_other_terms_is_refused(changes: dict[str, Any], message: str) -> None:
    recorded = {"spec": spec_of(**changes).model_dump(mode="json"), **DIGESTS}
    with pytest.raises(SpecError) as caught:
        check_comparable("runs/a", recorded, spec_of(), DIGESTS)
    head, listed = str(caught.value).split("\n  ", 1)
    assert head == (
        "warm_start: the scores of runs/a cannot be compared with those of this study; "
        "leave it out, or search as it did:"
    )
    assert listed == message


def test_both_digests_of_other_data_or_another_protocol_are_named() -> None:
    recorded = {"spec": spec_of().model_dump(mode="json"), **DIGESTS}
    at_defaults = spec_of(seed=9, model={"noise_dim": 100})  # and momentum is 0.5 by default
    check_comparable("runs/a", recorded, at_defaults, DIGESTS)
    with pytest.raises(SpecError, match="seed is 0 there, 9 here, and data or protocol follow it"):
        check_comparable("a", recorded, at_defaults, DIGESTS | {"protocol_digest": "x" * 64})
    for name, there in DIGESTS.items():
        with pytest.raises(SpecError, match=f"{name} is {there[:12]} there, {'x' * 12} here"):
            check_comparable("runs/a", recorded, spec_of(), DIGESTS | {name: "x" * 64})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sampler": "random"}, "warm_start: a stage must learn from it, a `model` with `sampler` tpe, gp, cmaes or nsga2, but none does"),
        ({"warm_start": ["a", "b", "a"]}, "warm_start.2: folders must differ, but a is there twice"),
        ({"warm_start": 3}, "warm_start: must be text, but got 3"),
        ({"warm_start": ""}, "warm_start: must not be empty"),
    ],
)  # fmt: skip
def test_a_wrong_key_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError) as caught:
        spec_of(**({"warm_start": "runs/a"} | changes))
    assert str(caught.value) == message


def test_one_folder_or_a_list_of_them() -> None:
    one = spec_of(warm_start="runs/a")
    assert one == spec_of(warm_start=["runs/a"])
    assert StudySpec.from_mapping(one.model_dump(mode="json")) == one
    assert spec_of().warm_start == ()


@pytest.mark.usefixtures("worker_settings")
def test_a_resumed_study_needs_the_earlier_one_no_more(tmp_path: Path) -> None:
    file, lines = write_npz(tmp_path / "tiny.npz"), Lines(untrained=-50.0, real_data=200.0)
    said: list[str] = []

    def prepared(name: str, *, resume: bool = False, **changes: Any) -> PreparedStudy:
        spec = StudySpec.from_mapping(content(file, **changes))
        return PreparedStudy(spec, tmp_path / name, resume=resume, say=said.append)

    before = prepared("earlier")
    with History.create(tmp_path / "earlier") as history:
        opened = before.opened()
        before.write_study(opened, lines)
        for event in (opened, SessionOpened(pid=1)):
            history.append(event)
        for number in range(3):
            proposal = Proposer(before.spec).propose(history.ledger)
            assert proposal is not None
            history.append(proposal)
            history.append(Started(number=number, attempt=0, node="n", device="cpu", pid=1))
            metrics = {"validation_log_likelihood": float(number)}
            history.append(Measured(number=number, kimg=0.8, elapsed_seconds=1, metrics=metrics))
            history.append(Ended(number=number, state="COMPLETED"))
        write_record(
            history.ledger, tmp_path / "earlier", before.protocol.dataset_digest, before.protocol.digest, {}
        )  # fmt: skip
    folder = str(tmp_path / "earlier")
    first = prepared("later", warm_start=folder)
    assert said == [f"NOTE: warm start: models are told 3 trials of {folder}"]
    first.write_study(first.opened(), lines)
    shutil.rmtree(folder)
    resumed = prepared("later", resume=True, warm_start=folder)
    assert len(said) == 1
    assert [trial.values for trial in resumed.earlier] == [(0.0,), (1.0,), (2.0,)]
    assert resumed.earlier == first.earlier
    with pytest.raises(StudyError, match="warm_start: must be the folder of a study, but"):
        prepared("another", warm_start=folder)
