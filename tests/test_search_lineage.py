"""A trial that began from the state of another is repeated with all its ancestors: bit for bit."""

import json
from pathlib import Path

import pytest
from tiny_study import content, write_npz

from search import run_study
from search.parquet import RecordError
from search.record import TrialRecord, read_trials
from search.rerun import main
from search.study import StudySpec
from search.tracked_trial import read_tracked

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("worker_settings")]


def depth(trial: TrialRecord, trials: list[TrialRecord]) -> int:
    return 0 if trial.donor is None else 1 + depth(trials[trial.donor], trials)


def test_a_lineage_is_replayed(
    local_ray: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changes = {
        "stages": [{"kind": "model", "sampler": "sobol", "trials": 4}],
        "scheduler": {"kind": "pbt", "interval_kimg": 0.2, "quantile": 0.5},
        "budget": {"kimg_per_trial": 0.8, "measure_kimg": 0.2, "trials": 4},
    }
    spec = StudySpec.from_mapping(content(write_npz(tmp_path / "tiny.npz"), **changes))
    output, uri = tmp_path / "out", f"sqlite:///{tmp_path}/runs.db"
    summary = run_study(spec, output, tracking_uri=uri, max_concurrent=2, progress=False)
    trials = read_trials(output)
    assert summary["stages"]["exploit"] == len(trials) - 4 > 0
    deepest = max(trials, key=lambda trial: (depth(trial, trials), trial.state == "COMPLETED"))
    assert depth(deepest, trials) >= 2
    assert main([f"{output}:{deepest.number}", "--json"]) == 0
    told = capsys.readouterr()
    assert json.loads(told.out)["verdict"] == "equal"
    assert told.err.count("from trial") == depth(deepest, trials)
    assert deepest.run_id is not None
    with pytest.raises(RecordError, match=f"from the state of trial {deepest.donor}"):
        read_tracked(deepest.run_id, uri)
