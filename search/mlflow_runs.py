"""MLflow's side of a study: makes a run equal to its picture, found or created by its key."""

import fcntl
import json
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from search.mlflow_client import connect
from search.run_picture import KIMG, Dataset, Point, RunPicture
from search.tracking_place import TrackingPlace

KEY_TAG = "trial_key"
PARENT_TAG = "mlflow.parentRunId"
_METRICS_A_BATCH = 1000  # MLflow's own limit
_DIGEST_LENGTH = 16  # it is shown whole; the tag `dataset_digest` has all of it

_Value = TypeVar("_Value")


@dataclass(kw_only=True)
class _Known:
    """What MLflow is known to hold of a run; a point is its kimg, step and milliseconds."""

    run_id: str
    status: str
    tags: dict[str, str]
    params: dict[str, str]
    results: dict[str, float]
    points: set[tuple[float, int, int]]
    has_dataset: bool
    artifacts: dict[str, int] = field(default_factory=dict)


class MlflowRuns:
    """Runs of one experiment, through `MlflowClient` alone: no global state, no `./mlruns`."""

    def __init__(self, place: TrackingPlace, experiment: str) -> None:
        self._place = place
        self._experiment = experiment
        self._experiment_id = ""
        self._client: Any = None
        self._known: dict[str, _Known] = {}

    def open(self) -> None:
        """Connects; creates database and experiment where missing. Later calls do nothing."""
        if self._client is not None:
            return
        with _creation_lock(self._place.database):
            client = connect(self._place)
            self._experiment_id = self._find_experiment(client)
        self._client = client

    def mirror(self, picture: RunPicture) -> str:
        """Makes the run equal to `picture` and returns its run ID."""
        try:
            known = self._find(picture)
            if picture.status == "RUNNING" != known.status:
                self._client.update_run(known.run_id, status="RUNNING")
            self._log(known, picture)
            self._upload(known, picture)
            if picture.status not in ("RUNNING", known.status):
                self._client.set_terminated(known.run_id, picture.status, picture.ended)
            known.status = picture.status
        except BaseException:
            # Whether the last call arrived is unknown: the next one asks MLflow what it holds.
            self._known.pop(picture.key, None)
            raise
        return known.run_id

    def log_metrics(self, run_id: str, point: Point) -> None:
        """Adds metrics that no picture holds."""
        self._client.log_batch(run_id, metrics=_metrics(point))

    def _find_experiment(self, client: Any) -> str:
        found = client.get_experiment_by_name(self._experiment)
        if found is None:
            try:
                return str(client.create_experiment(self._experiment, self._place.artifacts))
            except Exception:
                # Another driver may have been faster.
                found = client.get_experiment_by_name(self._experiment)
                if found is None:
                    raise
        return str(found.experiment_id)

    def _find(self, picture: RunPicture) -> _Known:
        known = self._known.get(picture.key) or self._search(picture) or self._create(picture)
        if known.points - {_trace(point) for point in picture.points}:
            # It holds what a lost attempt measured past its checkpoint. MLflow removes no
            # single metric, so the run is drawn afresh.
            self._client.delete_run(known.run_id)
            known = self._create(picture)
        self._known[picture.key] = known
        return known

    def _search(self, picture: RunPicture) -> _Known | None:
        where = f"tags.{KEY_TAG} = '{picture.key}'"
        found = self._client.search_runs([self._experiment_id], where, max_results=1)
        if not found:
            return None
        known = _know(found[0])
        history = self._client.get_metric_history(known.run_id, KIMG)
        known.points = {(m.value, m.step, m.timestamp) for m in history}
        if known.status == picture.status != "RUNNING":
            known.artifacts = _stamps(picture)  # a run is ended last, so all of it is there
        return known

    def _create(self, picture: RunPicture) -> _Known:
        tags = {KEY_TAG: picture.key, **picture.tags}
        if picture.parent is not None:
            tags[PARENT_TAG] = picture.parent
        run = self._client.create_run(self._experiment_id, picture.started, tags, picture.name)
        return _know(run)

    def _log(self, known: _Known, picture: RunPicture) -> None:
        from mlflow.entities import Param, RunTag

        new_tags = _news(known.tags, picture.tags)
        new_params = {k: v for k, v in picture.params.items() if k not in known.params}
        tags = [RunTag(key, value) for key, value in new_tags.items()]
        params = [Param(key, value) for key, value in new_params.items()]
        points = [point for point in picture.points if _trace(point) not in known.points]
        if results := _news(known.results, picture.results):
            points.append(Point(step=0, milliseconds=int(time.time() * 1000), values=results))
        for batch in _batches(points) or ([[]] if tags or params else []):
            metrics = [metric for point in batch for metric in _metrics(point)]
            self._client.log_batch(known.run_id, metrics=metrics, params=params, tags=tags)
            tags, params = [], []
        if not known.has_dataset:
            self._client.log_inputs(known.run_id, [_dataset_input(picture.dataset)])
            known.has_dataset = True
        known.tags |= new_tags
        known.params |= new_params
        known.results |= results
        known.points = {_trace(point) for point in picture.points}

    def _upload(self, known: _Known, picture: RunPicture) -> None:
        for name, stamp in _news(known.artifacts, _stamps(picture)).items():
            if name in picture.files:
                self._upload_file(known.run_id, picture.files[name], PurePosixPath(name))
            else:
                text = json.dumps(picture.documents[name], indent=2)
                self._client.log_text(known.run_id, text, name)
            known.artifacts[name] = stamp

    def _upload_file(self, run_id: str, source: Path, name: PurePosixPath) -> None:
        folder = None if name.parent == PurePosixPath() else str(name.parent)
        if source.name == name.name:
            self._client.log_artifact(run_id, str(source), folder)
            return
        with tempfile.TemporaryDirectory() as scratch:  # MLflow names an artifact as its file
            copy = shutil.copy(source, Path(scratch, name.name))
            self._client.log_artifact(run_id, str(copy), folder)


@contextmanager
def _creation_lock(database: Path | None) -> Iterator[None]:
    """Keeps two studies from migrating one fresh SQLite file at once, which crashes both."""
    if database is None:
        yield
        return
    database.parent.mkdir(parents=True, exist_ok=True)
    with database.with_name(database.name + ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _know(run: Any) -> _Known:
    return _Known(
        run_id=run.info.run_id,
        status=run.info.status,
        tags=dict(run.data.tags),
        params=dict(run.data.params),
        results=dict(run.data.metrics),
        points=set(),
        has_dataset=bool(run.inputs and run.inputs.dataset_inputs),
    )


def _news(held: Mapping[str, _Value], wanted: Mapping[str, _Value]) -> dict[str, _Value]:
    return {key: value for key, value in wanted.items() if held.get(key) != value}


def _metrics(point: Point) -> list[Any]:
    from mlflow.entities import Metric

    return [Metric(k, v, point.milliseconds, point.step) for k, v in point.values.items()]


def _trace(point: Point) -> tuple[float, int, int]:
    return point.values[KIMG], point.step, point.milliseconds


def _batches(points: Sequence[Point]) -> list[list[Point]]:
    batches: list[list[Point]] = []
    room = 0
    for point in points:
        if len(point.values) > room:
            batches.append([])
            room = _METRICS_A_BATCH
        batches[-1].append(point)
        room -= len(point.values)
    return batches


def _stamps(picture: RunPicture) -> dict[str, int]:
    """Changes with the content of each artifact that is there."""
    stamps = {name: hash(json.dumps(value)) for name, value in picture.documents.items()}
    for name, source in picture.files.items():
        if source.is_file():
            stamps[name] = source.stat().st_mtime_ns
    return stamps


def _dataset_input(dataset: Dataset) -> Any:
    from mlflow import entities

    kind, key = ("http", "url") if "://" in dataset.source else ("local", "uri")
    return entities.DatasetInput(
        entities.Dataset(
            name=dataset.name,
            digest=dataset.digest[:_DIGEST_LENGTH],
            source_type=kind,
            source=json.dumps({key: dataset.source}),
        ),
        [entities.InputTag("mlflow.data.context", "training")],
    )
