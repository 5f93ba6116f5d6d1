"""Where runs are tracked: MLflow's URI, and the place of its artifacts."""

import os
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from search.secrets import redacted
from search.services_file import Services, ServicesError, read_services

DEFAULT_FOLDER = "runs"
_SQLITE = re.compile(r"(?P<driver>sqlite(\+\w+)?):///(?P<path>[^?]*)(?P<query>\?.*)?")
_HTTP = re.compile(r"https?://.+")
_DATABASE = re.compile(r"(postgresql|mysql|mssql)(\+\w+)?://.+")


class TrackingError(ValueError):
    """A tracking URI at which no run can be kept."""


@dataclass(frozen=True, kw_only=True)
class TrackingPlace:
    """One MLflow store.

    Attributes:
        uri: Absolute URI, as MLflow wants it.
        artifacts: URI of the folder for artifacts; None where a server decides.
        database: The SQLite file; None for a server.
        services: This host's own, where it is their server.
    """

    uri: str
    artifacts: str | None
    database: Path | None = None
    services: Services | None = None

    @property
    def shown(self) -> str:
        """The URI without a password, for people and records."""
        parts = urlsplit(self.uri)
        if "@" not in parts.netloc:
            return redacted(self.uri)
        return redacted(urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2])))


def default_uri() -> str:
    """Returns that of `runs/mlflow.db` right here, which `make ui` shows."""
    return f"sqlite:///{Path.cwd() / DEFAULT_FOLDER / 'mlflow.db'}"


def find_place(uri: str | None) -> TrackingPlace:
    """Resolves a tracking URI, by default that of this host's services, else `runs/mlflow.db`.

    `MLFLOW_TRACKING_URI` goes before both. A server that does not answer is no reason to go
    elsewhere: a study would then be in two places.

    MLflow would put the artifacts of a database into `./mlruns`; they go beside an SQLite file,
    and into `runs/artifacts` for another database.

    Raises:
        TrackingError: MLflow cannot keep runs there.
    """
    services = _services()
    uri = uri or os.environ.get("MLFLOW_TRACKING_URI")
    if not uri:
        uri = default_uri() if services is None else services.tracking_uri
    if sqlite := _SQLITE.fullmatch(uri):
        return _sqlite_place(sqlite)
    if _HTTP.fullmatch(uri):
        # Their password is for nobody else.
        known = services is not None and uri.rstrip("/") == services.tracking_uri
        return TrackingPlace(uri=uri, artifacts=None, services=services if known else None)
    if _DATABASE.fullmatch(uri):
        artifacts = Path.cwd() / DEFAULT_FOLDER / "artifacts"
        return TrackingPlace(uri=uri, artifacts=artifacts.as_uri())
    raise TrackingError(
        "the tracking URI must be sqlite:///FILE, http(s)://HOST:PORT or that of a database, "
        f"but got {redacted(uri)!r}; leave it out to use sqlite:///{DEFAULT_FOLDER}/mlflow.db"
    )


def _services() -> Services | None:
    try:
        return read_services()
    except ServicesError as error:
        raise TrackingError(str(error)) from None


def _sqlite_place(match: re.Match[str]) -> TrackingPlace:
    if match["path"] in ("", ":memory:"):
        raise TrackingError(
            f"the tracking URI must name a file, but got {match[0]!r}; write sqlite:///FILE"
        )
    database = Path.cwd() / match["path"]
    return TrackingPlace(
        uri=f"{match['driver']}:///{database}{match['query'] or ''}",
        artifacts=(database.parent / "artifacts").as_uri(),
        database=database,
    )
