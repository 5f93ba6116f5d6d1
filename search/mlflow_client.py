"""MLflow's client, told who we are, and to be quiet and quick to give up."""

import logging
import os
from typing import Any

from search.tracking_place import TrackingPlace

_ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # `--json` owns standard output
    # The tracker tries again by itself, and first asks what has arrived: MLflow's client would
    # send the creation of a run again whose answer was late, and there would be two.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
}
_USERNAME, _PASSWORD = "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"
_CERTIFICATES = "MLFLOW_TRACKING_SERVER_CERT_PATH"
_given: dict[str, str] = {}  # what of these three is in the environment by us


def connect(place: TrackingPlace) -> Any:
    """Returns an `MlflowClient` that prints nothing and does not wait for minutes.

    Raises:
        ServicesError: The server is this host's own, and its password cannot be read.
    """
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    _authenticate(place)
    from mlflow.tracking import MlflowClient

    # MLflow tells of its migrations at INFO, a level that its import sets.
    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.ERROR)
    return MlflowClient(place.uri, registry_uri=place.uri)


def _authenticate(place: TrackingPlace) -> None:
    """Sets who we are where MLflow's client looks at each request: in the environment.

    Who is named there already stays, unless we named him, which may have been for another server.
    """
    for name, value in _given.items():
        if os.environ.get(name) == value:
            del os.environ[name]
    _given.clear()
    services = place.services
    if services is None:
        return
    if _USERNAME not in os.environ:
        _given.update({_USERNAME: services.username, _PASSWORD: services.password()})
    if services.ca_cert is not None and _CERTIFICATES not in os.environ:
        _given[_CERTIFICATES] = services.ca_cert
    os.environ.update(_given)
