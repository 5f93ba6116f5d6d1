"""MLflow's side of a study: makes a run equal to its picture, found or created by its key."""

import json
import shutil
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from search.experiment import open_experiment
from search.known_run import KnownRun, news, trace
from search.run_picture import KIMG, Dataset, Point, RunPicture
from search.tracking_place import TrackingPlace

KEY_TAG = "trial_key"
PARENT_TAG = "mlflow.parentRunId"
_ENTITIES_A_BATCH = 1000  # MLflow's own limit: metrics, parameters and tags
_RUNS_A_PAGE = 200
_DIGEST_LENGTH = 16  # it is shown whole; the tag `dataset_digest` has all of it


class MlflowRuns:
    """Runs of one study, through `MlflowClient` alone: no global state, no `./mlruns`.

    What MLflow holds already is asked for once, in pages, so that a run of a new study costs four
    calls in all. Threads may mirror different runs at once.
    """

    def __init__(self, place: TrackingPlace, experiment: str, study_id: str) -> None:
        self._place = place
        self._experiment = experiment
        self._study_id = study_id
        self._experiment_id = ""
        self._client: Any = None
        self._known: dict[str, KnownRun] = {}  # those in training, and those found at first
        self._settled: dict[str, tuple[str, int]] = {}  # run ID and fingerprint of what has ended
        self._doubtful: set[str] = set()  # a call failed, and it may have arrived

    def open(self) -> None:
        """Connects; creates database and experiment where missing. Later calls do nothing."""
        if self._client is not None:
            return
        client, self._experiment_id = open_experiment(self._place, self._experiment)
        where = f"tags.{KEY_TAG} LIKE '{self._study_id}%'"
        found: dict[str, KnownRun] = {}
        token = None
        while True:
            page = client.search_runs(
                [self._experiment_id], where, max_results=_RUNS_A_PAGE, page_token=token
            )
            found |= self._told_apart(client, page, found)
            token = page.token
            if not token:
                break
        self._known = found
        self._client = client

    def mirror(self, picture: RunPicture) -> str:
        """Makes the run equal to `picture` and returns its run ID."""
        fingerprint = _fingerprint(picture)
        run_id, settled = self._settled.get(picture.key, ("", 0))
        if run_id and settled == fingerprint:
            return run_id
        try:
            known = self._find(picture)
            if picture.status == "RUNNING" != known.status:
                self._client.update_run(known.run_id, status="RUNNING")
            self._log(known, picture)
            self._upload(known, picture)
            self._end(known, picture)
        except BaseException:
            # Whether the last call arrived is unknown: the next one asks MLflow what it holds.
            self._known.pop(picture.key, None)
            self._settled.pop(picture.key, None)
            self._doubtful.add(picture.key)
            raise
        self._doubtful.discard(picture.key)
        if picture.status == "RUNNING":
            self._known[picture.key] = known
        else:  # what it holds is not kept: a driver's memory must not grow with the study
            self._known.pop(picture.key, None)
            self._settled[picture.key] = known.run_id, fingerprint
        return known.run_id

    def found_whole(self, picture: RunPicture) -> str | None:
        """Returns the run ID of a run that was ended as in the picture when this was opened."""
        known = self._known.get(picture.key)
        return known.run_id if known is not None and known.is_whole(picture) else None

    def log_metrics(self, run_id: str, point: Point) -> None:
        """Adds metrics that no picture holds."""
        self._client.log_batch(run_id, metrics=_metrics(point))

    def _find(self, picture: RunPicture) -> KnownRun:
        known = self._known.get(picture.key) or self._ask(picture.key) or self._create(picture)
        if known.points is None:
            self._learn_points(known, picture)
        if known.is_astray(picture):
            # It holds what a lost attempt measured past its checkpoint. MLflow removes no
            # single metric, so the run is drawn afresh.
            self._client.delete_run(known.run_id)
            known = self._create(picture)
        return known

    def _ask(self, key: str) -> KnownRun | None:
        if key in self._settled:
            return KnownRun.of(self._client.get_run(self._settled[key][0]))
        if key not in self._doubtful:
            return None
        where = f"tags.{KEY_TAG} = '{key}'"
        found = self._client.search_runs([self._experiment_id], where)
        return self._told_apart(self._client, found, {}).get(key)

    @staticmethod
    def _told_apart(
        client: Any, runs: Iterable[Any], found: Mapping[str, KnownRun]
    ) -> dict[str, KnownRun]:
        """The runs by key. Of two with one key the other is deleted: its creation arrived late."""
        single: dict[str, KnownRun] = {}
        for run in runs:
            key = run.data.tags[KEY_TAG]
            if key in single or key in found:
                client.delete_run(run.info.run_id)
            else:
                single[key] = KnownRun.of(run)
        return single

    def _learn_points(self, known: KnownRun, picture: RunPicture) -> None:
        if known.is_whole(picture):
            known.points = {trace(point) for point in picture.points}
            known.artifacts = picture.stamps()
        else:
            history = self._client.get_metric_history(known.run_id, KIMG)
            known.points = {(m.value, m.step, m.timestamp) for m in history}

    def _create(self, picture: RunPicture) -> KnownRun:
        tags = {KEY_TAG: picture.key, **picture.tags}
        if picture.parent is not None:
            tags[PARENT_TAG] = picture.parent
        run = self._client.create_run(self._experiment_id, picture.started, tags, picture.name)
        return KnownRun.of(run, fresh=True)

    def _log(self, known: KnownRun, picture: RunPicture) -> None:
        from mlflow.entities import Param, RunTag

        new_tags = news(known.tags, picture.tags)
        new_params = {k: v for k, v in picture.params.items() if k not in known.params}
        tags = [RunTag(key, value) for key, value in new_tags.items()]
        params = [Param(key, value) for key, value in new_params.items()]
        points = known.lacks(picture)
        if results := news(known.results, picture.results):
            points.append(Point(step=0, milliseconds=int(time.time() * 1000), values=results))
        for batch in _batches(points, len(tags) + len(params)):
            metrics = [metric for point in batch for metric in _metrics(point)]
            self._client.log_batch(known.run_id, metrics=metrics, params=params, tags=tags)
            tags, params = [], []
        if not known.has_dataset:
            self._client.log_inputs(known.run_id, [_dataset_input(picture.dataset)])
            known.has_dataset = True
        known.tags |= new_tags
        known.params |= new_params
        known.results |= results
        known.points = {trace(point) for point in picture.points}

    def _upload(self, known: KnownRun, picture: RunPicture) -> None:
        for name, stamp in news(known.artifacts, picture.stamps()).items():
            self._upload_file(known.run_id, picture.files[name], PurePosixPath(name))
            known.artifacts[name] = stamp

    def _upload_file(self, run_id: str, source: Path, name: PurePosixPath) -> None:
        folder = None if name.parent == PurePosixPath() else str(name.parent)
        if source.name == name.name:
            self._client.log_artifact(run_id, str(source), folder)
            return
        with tempfile.TemporaryDirectory() as scratch:  # MLflow names an artifact as its file
            copy = shutil.copy(source, Path(scratch, name.name))
            self._client.log_artifact(run_id, str(copy), folder)

    def _end(self, known: KnownRun, picture: RunPicture) -> None:
        if picture.status != "RUNNING" and not known.is_whole(picture):
            self._client.set_terminated(known.run_id, picture.status, picture.ended)
        known.status, known.ended = picture.status, picture.ended


def _fingerprint(picture: RunPicture) -> int:
    """Changes with whatever MLflow shows of a picture."""
    return hash(
        (
            picture.status,
            picture.parent,
            picture.ended,
            frozenset(picture.tags.items()),
            frozenset(picture.results.items()),
            tuple(trace(point) for point in picture.points),
            frozenset(picture.stamps().items()),
        )
    )


def _metrics(point: Point) -> list[Any]:
    from mlflow.entities import Metric

    return [Metric(k, v, point.milliseconds, point.step) for k, v in point.values.items()]


def _batches(points: Sequence[Point], beside: int) -> list[list[Point]]:
    """Splits points by MLflow's limit; the first batch has room for so much beside them."""
    batches: list[list[Point]] = [[]] if beside else []
    room = _ENTITIES_A_BATCH - beside if beside else 0
    for point in points:
        if len(point.values) > room:
            batches.append([])
            room = _ENTITIES_A_BATCH
        batches[-1].append(point)
        room -= len(point.values)
    return batches


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
