"""A study of replicates, with confirmation, for real: its record, its runs, its one look."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from tiny_study import write_space

from search.driver import run_study
from search.history import JOURNAL_NAME
from search.journal import Journal
from search.ledger import Ledger
from search.record import read_measurements, read_runs, read_trials
from search.rerun import main as rerun
from search.study import load_spec

pytestmark = pytest.mark.ray


@dataclass(frozen=True)
class Confirmed:
    output: Path
    uri: str
    space: Path
    summary: dict[str, Any]

    @property
    def ledger(self) -> Ledger:
        return Ledger(Journal.read(self.output / JOURNAL_NAME))

    def go_on(self, **changes: Any) -> dict[str, Any]:
        return run_study(
            self.space,
            self.output,
            resume=True,
            tracking_uri=self.uri,
            progress=False,
            **changes,
        )


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory, local_ray: None) -> Confirmed:
    folder = tmp_path_factory.mktemp("confirmed")
    space = write_space(
        folder,
        replication={"seeds": 2},
        confirm={"top": 2, "seeds": 2},
        budget={"kimg_per_trial": 0.8, "measure_kimg": 0.2, "trials": 3},
    )
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    output = folder / "out"
    summary = run_study(load_spec(space), output, tracking_uri=uri, progress=False)
    return Confirmed(output, uri, space, summary)


def test_the_record_has_every_run(study: Confirmed) -> None:
    ledger = study.ledger
    runs = read_runs(study.output)
    assert [(r.number, r.replicate) for r in runs] == [tuple(run.key) for run in ledger.runs]
    assert [r.purpose for r in runs].count("search") == 6
    confirmations = [r for r in runs if r.purpose == "confirmation"]
    assert [r.noise_draw for r in confirmations] == [1, 2, 1, 2]
    assert {r.state for r in confirmations} == {"COMPLETED"}
    assert len({r.seed for r in runs}) == len(runs) == 10
    for trial in read_trials(study.output):
        assert trial.replicates == 2
        assert trial.standard_error == trial.replicates_error
        assert (trial.points_error or 0) > 0
        assert trial.redraw_error is not None
    measured = {(m.number, m.replicate) for m in read_measurements(study.output)}
    assert measured == {(r.number, r.replicate) for r in runs}


def test_the_summary_says_how_sure_the_winner_is(study: Confirmed) -> None:
    summary = study.summary
    confirmed = summary["confirmed"]
    assert confirmed.keys() >= {
        *("mean", "standard_error", "seeds", "probability_best", "winners_curse")
    }
    assert confirmed["seeds"] == 2
    assert summary["best"]["number"] == confirmed["ranking"][0]["number"]
    assert summary["best"]["standard_errors"].keys() == {"points", "redraw", "replicates"}
    assert summary["test"]["seeds"]["count"] == 2
    assert summary["test_looks"] == 1
    config = json.loads((study.output / "best" / "config.json").read_text())
    assert config["provenance"]["replicate"] == 2  # the first that confirmed it


def test_mlflow_shows_runs_below_their_trial(study: Confirmed) -> None:
    client = MlflowClient(study.uri, registry_uri=study.uri)
    experiment = client.get_experiment_by_name("tiny")
    assert experiment is not None
    runs = {run.info.run_id: run for run in client.search_runs([experiment.experiment_id])}
    assert len(runs) == 1 + 3 + 10
    assert {run.info.status for run in runs.values()} == {"FINISHED"}
    for run in runs.values():
        tags = run.data.tags
        if "purpose" not in tags:
            continue
        trial = runs[tags["mlflow.parentRunId"]]
        assert trial.data.tags["number"] == tags["number"]
        above = runs[trial.data.tags["mlflow.parentRunId"]]
        assert "number" not in above.data.tags


@pytest.mark.parametrize("place", ["folder", "MLflow"])
def test_any_run_repeats_bit_for_bit(
    study: Confirmed, place: str, capsys: pytest.CaptureFixture[str]
) -> None:
    winner = study.summary["best"]["number"]
    for replicate in (1, 3):  # of the search, and of the confirmation
        if place == "folder":
            words = [f"{study.output}:{winner}:{replicate}"]
        else:
            rows = read_runs(study.output)
            row = next(r for r in rows if (r.number, r.replicate) == (winner, replicate))
            words = [str(row.run_id), "--tracking-uri", study.uri]
        assert rerun(words) == 0
        assert "equal bit for bit" in capsys.readouterr().out


def test_a_second_look_is_refused_unless_it_is_asked_for(study: Confirmed) -> None:
    first = study.summary["test"]
    extended = study.go_on(extra_trials=4)
    assert sum(extended["trials"].values()) == 7
    if extended["best"]["number"] == study.summary["best"]["number"]:
        assert extended["test"] == first  # the same models: by the record of the look
        assert extended["test_looks"] == 1
        return
    assert extended["test"] is None
    assert "--look-again" in extended["notices"][0]
    again = study.go_on(look_again=True)
    assert again["test"] is not None
    assert again["test_looks"] == 2
    assert [look.again for look in study.ledger.looks] == [False, True]
