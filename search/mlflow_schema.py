"""Whether a database's tables are as the installed MLflow wants them."""

import re
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

SchemaState = Literal["empty", "current", "older", "newer"]
_REVISION = re.compile(r'^(down_)?revision = "(\w+)"', re.MULTILINE)


def schema_revision(connection: Any) -> str | None:
    """Returns the revision of the tables in MLflow's database; None where there are none."""
    if connection.execute("select to_regclass('alembic_version')").fetchone()[0] is None:
        return None
    row = connection.execute("select version_num from alembic_version").fetchone()
    return None if row is None else str(row[0])


def schema_state(revision: str | None) -> SchemaState:
    """Returns how a revision stands to that of the installed MLflow.

    Revisions have no order of their own: an older one is among the migrations that this MLflow
    brings, a newer one is unknown to it.
    """
    if revision is None:
        return "empty"
    if revision in newest_revisions():
        return "current"
    return "older" if revision in _revisions()[0] else "newer"


def newest_revisions() -> set[str]:
    """Returns what the installed MLflow wants: the revision after which no other comes."""
    known, followed = _revisions()
    return known - followed


def installed_version() -> str:
    """Returns MLflow's version."""
    return version("mlflow")


def _revisions() -> tuple[set[str], set[str]]:
    """Returns the revisions that MLflow knows, and those which another follows.

    Alembic would run the files, and these import MLflow, which takes seconds.
    """
    found = find_spec("mlflow")
    assert found is not None
    assert found.origin is not None
    known: set[str] = set()
    followed: set[str] = set()
    for file in (Path(found.origin).parent / "store/db_migrations/versions").glob("*.py"):
        for down, revision in _REVISION.findall(file.read_text()):
            (followed if down else known).add(revision)
    return known, followed
