"""A trial as its MLflow run has it."""

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from search.mlflow_client import connect
from search.mlflow_runs import KEY_TAG, PARENT_TAG
from search.parquet import RecordError
from search.recorded_trial import RecordedTrial
from search.run_picture import KIMG
from search.run_tags import CONFIG_TAG
from search.secrets import redacted
from search.study_file import STUDY_NAME, read_study
from search.tracking_place import TrackingPlace, find_place

# Of a measurement, but no scores: the clock's, and what follows from the others.
_BESIDE = frozenset({KIMG, "elapsed_seconds", "objective"})
_TAGS = ("reason", "device", "streams", "torch", "processor")


def read_tracked(run_id: str, uri: str | None) -> RecordedTrial:
    """Reads a trial from its MLflow run and the study's, which is its parent.

    Args:
        run_id: The trial's run.
        uri: Tracking URI; None for `MLFLOW_TRACKING_URI`, else `runs/mlflow.db`.

    Raises:
        TrackingError: No run can be kept at `uri`.
        RecordError: There is no such run, or it is not the whole record of a trial.
        StudyError: The study's `study.json` is not as the search wrote it.
    """
    place = find_place(uri)
    if place.database is not None and not place.database.exists():  # it would be created
        raise RecordError(f"{place.shown}: does not exist; give the place by --tracking-uri")
    from mlflow.exceptions import MlflowException

    client = connect(place)
    try:
        return _read(client, run_id, place)
    except (MlflowException, OSError, LookupError, json.JSONDecodeError) as error:
        cause = redacted(str(error).strip().partition("\n")[0])
        raise RecordError(f"run {run_id}: cannot be read from {place.shown} ({cause})") from None


def _read(client: Any, run_id: str, place: TrackingPlace) -> RecordedTrial:
    run = client.get_run(run_id)
    tags: Mapping[str, str] = run.data.tags
    _check(run_id, tags)
    with tempfile.TemporaryDirectory() as scratch:
        client.download_artifacts(_study_of(client, tags[PARENT_TAG]), STUDY_NAME, scratch)
        study = read_study(Path(scratch))
    config = json.loads(tags[CONFIG_TAG])
    return RecordedTrial(
        place=f"run {run_id} at {place.shown}",
        study=study,
        number=int(tags["number"]),
        replicate=int(tags["replicate"]),
        purpose=tags.get("purpose", "search"),
        fold=int(tags["fold"]) if "fold" in tags else None,
        noise_draw=int(tags.get("noise_draw", "0")),
        state=tags["state"],
        seed=config.pop("seed"),
        params=config,
        pack=int(tags.get("pack", "1")),
        threads=int(tags["threads"]) if "threads" in tags else None,
        measurements=_measurements(client, run),
        donor=None,
        donor_kimg=0.0,
        **{name: tags.get(name) for name in _TAGS},
    )


def _check(run_id: str, tags: Mapping[str, str]) -> None:
    """Refuses what is not the whole record of one training."""
    if KEY_TAG not in tags:
        raise RecordError(f"run {run_id}: is no run of this search; give one of a trial")
    if PARENT_TAG not in tags:
        raise RecordError(f"run {run_id}: is that of a study; give the run of one of its trials")
    if tags.get("replicates", "1") != "1":
        raise RecordError(f"run {run_id}: is that of several runs; give one of those below it")
    if CONFIG_TAG not in tags:
        raise RecordError(
            f"run {run_id}: has no tag `{CONFIG_TAG}`, as an older version of the search left it "
            "out; give STUDY_FOLDER:NUMBER instead"
        )
    if "donor" in tags:
        raise RecordError(
            f"run {run_id}: begins from the state of trial {tags['donor']} at "
            f"{tags['donor_kimg']} kimg, whose record is not in this run; give "
            "STUDY_FOLDER:NUMBER instead"
        )


def _study_of(client: Any, run_id: str) -> str:
    """The run at the top: a run of several for one trial has that of the trial above it."""
    above: str | None = client.get_run(run_id).data.tags.get(PARENT_TAG)
    return run_id if above is None else _study_of(client, above)


def _measurements(client: Any, run: Any) -> dict[float, dict[str, float]]:
    """Gathers the metrics that were logged at the step and time of each measurement."""
    found: dict[tuple[int, int], tuple[float, dict[str, float]]] = {}
    histories = {
        name: client.get_metric_history(run.info.run_id, name) for name in sorted(run.data.metrics)
    }
    for point in histories.get(KIMG, []):
        if (point.step, point.timestamp) in found:
            raise RecordError(
                f"run {run.info.run_id}: two measurements share a millisecond, which MLflow "
                "cannot tell apart; give STUDY_FOLDER:NUMBER instead"
            )
        found[point.step, point.timestamp] = (point.value, {})
    for name, history in histories.items():
        for point in history:
            at = (point.step, point.timestamp)
            if name not in _BESIDE and at in found:  # a winner's test scores are at no point
                found[at][1][name] = point.value
    return dict(sorted(found.values(), key=lambda measured: measured[0]))
