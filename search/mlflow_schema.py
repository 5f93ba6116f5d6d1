"""Whether a database's tables are as the installed MLflow wants them."""

import re
import sys
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

SchemaState = Literal["empty", "current", "older", "newer"]
_REVISION = re.compile(r'^(down_)?revision = "(\w+)"', re.MULTILINE)


@dataclass(frozen=True, kw_only=True)
class Schema:
    """The tables of one database, which MLflow's migrations make and change.

    Attributes:
        database: Its name.
        migrations: Folder of the migrations, in MLflow's.
        table: Where the database says which of them it has seen last.
        upgrade: Arguments to Python that bring it up to date; its URI goes behind them.
    """

    database: str
    migrations: str
    table: str
    upgrade: tuple[str, ...]

    def revision(self, connection: Any) -> str | None:
        """Returns the revision of the tables; None where there are none."""
        if connection.execute("select to_regclass(%s)", [self.table]).fetchone()[0] is None:
            return None
        row = connection.execute(f"select version_num from {self.table}").fetchone()
        return None if row is None else str(row[0])

    def state(self, revision: str | None) -> SchemaState:
        """Returns how a revision stands to that of the installed MLflow.

        Revisions have no order of their own: an older one is among the migrations that this
        MLflow brings, a newer one is unknown to it.
        """
        if revision is None:
            return "empty"
        if revision in self.newest():
            return "current"
        return "older" if revision in self._revisions()[0] else "newer"

    def newest(self) -> set[str]:
        """Returns what the installed MLflow wants: the revision after which no other comes."""
        known, followed = self._revisions()
        return known - followed

    def _revisions(self) -> tuple[set[str], set[str]]:
        """Returns the revisions that MLflow knows, and those which another follows.

        Alembic would run the files, and these import MLflow, which takes seconds.
        """
        found = find_spec("mlflow")
        assert found is not None
        assert found.origin is not None
        known: set[str] = set()
        followed: set[str] = set()
        for file in Path(found.origin).parent.glob(f"{self.migrations}/versions/*.py"):
            for down, revision in _REVISION.findall(file.read_text()):
                (followed if down else known).add(revision)
        return known, followed


TRACKING = Schema(
    database="mlflow",
    migrations="store/db_migrations",
    table="alembic_version",
    upgrade=("-m", "mlflow", "db", "upgrade"),
)
AUTHENTICATION = Schema(
    database="mlflow_auth",
    migrations="server/auth/db/migrations",
    table="alembic_version_auth",
    upgrade=("-m", "mlflow.server.auth", "db", "upgrade", "--url"),
)
SCHEMAS = (TRACKING, AUTHENTICATION)


def upgrade_command(schema: Schema, uri: str) -> list[str]:
    """Returns the command that brings a database's tables up to date."""
    return [sys.executable, *schema.upgrade, uri]


def installed_version() -> str:
    """Returns MLflow's version."""
    return version("mlflow")
