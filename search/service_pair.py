"""PostgreSQL and the MLflow server on it: brought up together, looked at, taken down."""

import os
import shlex
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

from search.mlflow_schema import SCHEMAS, installed_version, upgrade_command
from search.mlflow_server import MlflowServer
from search.postgres import HELD_LOOK_SECONDS, HELD_SECONDS, USER, Postgres
from search.service_process import ServiceProcess, start
from search.services_file import Services, ServicesError, write_services
from search.services_state import Settings, State, StateFolder

KEEPER_STOP_SECONDS = 5.0


@dataclass(frozen=True, kw_only=True)
class Health:
    """How one service stands.

    Attributes:
        name: Which of them.
        problem: What is wrong; None where it is well.
        facts: Where it is, its versions, and the like.
    """

    name: str
    problem: str | None
    facts: str


def up(folder: StateFolder, settings: Settings, say: Callable[[str], None]) -> Services:
    """Starts what does not run as `settings` ask, and tells this user's clients where it is.

    Raises:
        ServicesError: Something keeps one of them from starting.
    """
    server = MlflowServer(folder, settings)
    server.check()
    folder.prepare()
    with folder.locked():
        _bring_up(folder, server, settings, say)
    write_services(server.services)
    return server.services


def revive(folder: StateFolder, say: Callable[[str], None]) -> bool:
    """Restarts what died of what `up` started; false where it was taken down.

    Raises:
        ServicesError: Something keeps one of them from starting.
    """
    with folder.locked():  # a `down` that is not done yet would look like an accident
        state = folder.read()
        if state is None or state.postgres is None:
            return False
        alive = [one is not None and one.is_alive() for one in (state.postgres, state.mlflow)]
        if not all(alive):
            _bring_up(folder, MlflowServer(folder, state.settings), state.settings, say)
    return True


def down(folder: StateFolder, say: Callable[[str], None]) -> None:
    """Stops what `up` started, and nothing else; their data stay."""
    if not folder.path.exists():
        return
    with folder.locked():
        state = folder.read()
        if state is None:
            return
        _keeper_down(state)
        if state.mlflow is not None and state.mlflow.members():
            say("stopping the MLflow server")
            MlflowServer(folder, state.settings).stop(state.mlflow)
        if state.postgres is not None and state.postgres.members():
            say("stopping PostgreSQL")
            Postgres(folder).stop(state.postgres)
        folder.write(State(settings=state.settings))


def status(folder: StateFolder) -> list[Health]:
    """Returns how both stand.

    Raises:
        ServicesError: There are none.
    """
    state = folder.read()
    if state is None:
        raise ServicesError(
            f"no services in {folder.path}; `python -m search.services up` starts them"
        )
    server = MlflowServer(folder, state.settings)
    return [_database_health(folder, state), _server_health(server, state)]


def _bring_up(
    folder: StateFolder, server: MlflowServer, settings: Settings, say: Callable[[str], None]
) -> None:
    before = folder.read() or State(settings=settings)
    postgres = Postgres(folder)
    database = _database_up(folder, postgres, before, say)
    _check_schema(folder, postgres)
    state = before.model_copy(update={"settings": settings, "postgres": database})
    if (
        before.mlflow is not None
        and before.mlflow.is_alive()
        and server.problem() == server.refusal
    ):
        raise ServicesError(server.refusal)  # it is well; to start it anew would change nothing
    if before.mlflow is not None and not _is_as_asked(server, before, settings):
        say("stopping the MLflow server that is not as asked for, or not well")
        server.stop(before.mlflow)
        state = state.model_copy(update={"mlflow": None})
    if state.mlflow is None:
        _server_up(folder, server, postgres, state, say)
    else:
        folder.write(state)
    _keeper_up(folder)


def _database_up(
    folder: StateFolder, postgres: Postgres, before: State, say: Callable[[str], None]
) -> ServiceProcess:
    if before.postgres is not None and before.postgres.is_alive():
        postgres.wait(before.postgres)
        return before.postgres
    say("starting PostgreSQL")
    postgres.create()
    deadline = time.monotonic() + HELD_SECONDS
    while True:
        process = postgres.start()
        folder.write(before.model_copy(update={"postgres": process}))
        try:
            postgres.wait(process)
            return process
        except BaseException as problem:
            postgres.stop(process)
            held = isinstance(problem, ServicesError) and postgres.is_held()
            if not held or time.monotonic() > deadline:
                raise
        time.sleep(HELD_LOOK_SECONDS)


def _server_up(
    folder: StateFolder,
    server: MlflowServer,
    postgres: Postgres,
    state: State,
    say: Callable[[str], None],
) -> None:
    folder.write(state)
    server.check_port()
    say("starting the MLflow server")
    process = server.start(postgres)
    folder.write(state.model_copy(update={"mlflow": process}))
    try:
        server.wait(process)
    except BaseException:
        server.stop(process)
        raise


def _keeper_up(folder: StateFolder) -> None:
    """Starts or stops the keeper, as the settings say."""
    state = folder.read()
    assert state is not None
    if not state.settings.with_ray:
        _keeper_down(state)
        folder.write(state.model_copy(update={"keeper": None}))
    elif state.keeper is None or not state.keeper.is_alive():
        command = [sys.executable, "-m", "search.services_keeper", str(folder.path)]
        keeper = start(command, os.environ, folder.keeper_log)
        folder.write(state.model_copy(update={"keeper": keeper}))


def _keeper_down(state: State) -> None:
    if state.keeper is not None and state.keeper.pid != os.getpid():
        state.keeper.stop(signal.SIGTERM, signal.SIGKILL, KEEPER_STOP_SECONDS)


def _is_as_asked(server: MlflowServer, before: State, settings: Settings) -> bool:
    return (
        before.settings.model_copy(update={"with_ray": settings.with_ray}) == settings
        and before.mlflow is not None
        and before.mlflow.is_alive()
        and server.problem() is None
    )


def _check_schema(folder: StateFolder, postgres: Postgres) -> None:
    for schema in SCHEMAS:
        with postgres.connect(schema.database) as connection:
            revision = schema.revision(connection)
        state = schema.state(revision)
        if state == "newer":
            raise ServicesError(
                f"the tables of database {schema.database} (revision {revision}) are of a newer "
                f"MLflow than the {installed_version()} that is installed here; install that one, "
                "or restore a backup that was made with this one"
            )
        if state == "older":
            raise ServicesError(
                f"the tables of database {schema.database} (revision {revision}) are older than "
                f"MLflow {installed_version()} wants them. Back them up and upgrade them:\n"
                + "\n".join(f"  {line}" for line in _upgrade_commands(folder, postgres))
                + "\nthen `python -m search.services up` again"
            )


def _upgrade_commands(folder: StateFolder, postgres: Postgres) -> list[str]:
    """Returns what saves both databases and brings them up to date; no word is secret."""
    passed = f"PGPASSFILE={shlex.quote(str(postgres.passwords))}"
    backups, upgrades = [], []
    for schema in SCHEMAS:
        backup = folder.path / f"{schema.database}-before-{installed_version()}.dump"
        backups.append(
            [str(postgres.program("pg_dump")), "--format=custom", f"--file={backup}",
             f"--host={postgres.socket}", f"--username={USER}", schema.database]
        )  # fmt: skip
        upgrades.append(upgrade_command(schema, postgres.uri(schema.database)))
    return [f"{passed} {shlex.join(words)}" for words in backups + upgrades]


def _database_health(folder: StateFolder, state: State) -> Health:
    name = "PostgreSQL"
    if state.postgres is None or not state.postgres.is_alive():
        return Health(name=name, problem="does not run", facts=str(folder.postgres))
    postgres = Postgres(folder)
    facts = f"pid {state.postgres.pid}, {folder.postgres}"
    problems = []
    try:
        for schema in SCHEMAS:
            with postgres.connect(schema.database) as connection:
                version = connection.execute("show server_version").fetchone()[0].split()[0]
                found = schema.state(revision := schema.revision(connection))
            facts += f", {schema.database} of revision {revision}"
            if found != "current":
                problems.append(f"{schema.database} is {found} for MLflow {installed_version()}")
    except postgres.driver.Error as error:
        return Health(name=name, problem=str(error).strip(), facts=facts)
    facts += f", version {version}, {folder.size_bytes() / 1e6:.0f} MB"
    return Health(name=name, problem="; ".join(problems) or None, facts=facts)


def _server_health(server: MlflowServer, state: State) -> Health:
    facts = f"{server.uri}, artifacts in {server.artifacts}"
    if state.mlflow is None or not state.mlflow.is_alive():
        return Health(name="MLflow", problem="does not run", facts=facts)
    problem = server.problem()
    facts = f"pid {state.mlflow.pid}, version {server.version() or 'unknown'}, {facts}"
    return Health(name="MLflow", problem=problem, facts=facts)
