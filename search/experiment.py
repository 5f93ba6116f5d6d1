"""The experiment of a study in MLflow, made where it is missing."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from search.mlflow_client import connect
from search.tracking_place import TrackingPlace


def open_experiment(place: TrackingPlace, name: str) -> tuple[Any, str]:
    """Connects; creates database and experiment where missing.

    Returns:
        The client, and the experiment's ID.
    """
    with _creation_lock(place.database):
        client = connect(place)
        return client, _find_experiment(client, name, place.artifacts)


def _find_experiment(client: Any, name: str, artifacts: str | None) -> str:
    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            return str(client.create_experiment(name, artifacts))
        except Exception:
            # Another driver may have been faster.
            found = client.get_experiment_by_name(name)
            if found is None:
                raise
    return str(found.experiment_id)


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
