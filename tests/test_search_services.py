"""The services of a head: real PostgreSQL and MLflow, by the command that users type."""

import base64
import contextlib
import os
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import psutil
import pytest
from throwaway_postgres import Throwaway, free_port, throwaway_folder, throwaway_services

from search.mlflow_client import connect
from search.mlflow_schema import AUTHENTICATION, SCHEMAS, TRACKING, Schema
from search.mlflow_server import MlflowServer
from search.postgres import Postgres, find_programs
from search.service_process import start
from search.services import main
from search.services_file import Services, ServicesError, services_path, write_services
from search.services_keeper import keep
from search.services_state import Settings, State, StateFolder
from search.tracking_place import TrackingError, find_place

LIST = "api/2.0/mlflow/experiments/search?max_results=10"


@pytest.fixture(scope="module")
def running() -> Iterator[Throwaway]:
    """Services of this file's own, which its tests kill and change."""
    with throwaway_services() as services:
        yield services


@pytest.fixture
def client_of(running: Throwaway, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """MLflow's client as a study has it that was told nothing."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(running.config))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    yield lambda: connect(find_place(None))
    connect(find_place("http://127.0.0.1:1"))  # which forgets the password


def answer(uri: str, password: str | None = None, host: str | None = None) -> int:
    """The status of one request."""
    request = urllib.request.Request(uri)
    if password is not None:
        token = base64.b64encode(f"admin:{password}".encode()).decode()
        request.add_header("Authorization", f"Basic {token}")
    if host is not None:
        request.add_header("Host", host)
    try:
        with urllib.request.urlopen(request, timeout=60) as found:
            return int(found.status)
    except urllib.error.HTTPError as error:
        return error.code


def is_running(pid: int) -> bool:
    """Also false for what has ended and was not asked why: its parent need not be quick."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    return False


def secrets_of(running: Throwaway) -> dict[str, str]:
    folder = running.folder / "state/secrets"
    names = ("admin-password", "mlflow-password", "postgres-password", "flask-key")
    return {name: (folder / name).read_text().strip() for name in names}


@pytest.mark.slow
def test_only_who_has_the_password_is_answered(running: Throwaway) -> None:
    uri, password = running.services.tracking_uri, running.services.password()
    assert answer(f"{uri}/{LIST}", password) == 200
    assert answer(f"{uri}/{LIST}") == 401
    for wrong in ("", "password1234", password[:-1], password.swapcase()):
        assert answer(f"{uri}/{LIST}", wrong) == 401
    assert answer(f"{uri}/") == 401
    assert answer(f"{uri}/{LIST}", password, host="evil.example") == 403
    artifacts = f"{uri}/api/2.0/mlflow-artifacts/artifacts"
    assert answer(f"{artifacts}/x") == 401
    for climbing in ("../../state/secrets/admin-password", "%2e%2e/%2e%2e/state/state.json"):
        assert answer(f"{artifacts}/{climbing}", password) in (400, 404)


@pytest.mark.slow
def test_the_database_listens_on_no_network_and_wants_a_password(
    running: Throwaway, monkeypatch: pytest.MonkeyPatch
) -> None:
    import psycopg

    monkeypatch.setenv("PGPASSFILE", "/dev/null")
    database = running.state.postgres
    assert database is not None
    assert psutil.Process(database.pid).net_connections("inet") == []
    folder = str(Postgres(running.state_folder).socket)
    for user in ("mlflow", "postgres"):
        for password in (None, "wrong"):
            with pytest.raises(psycopg.OperationalError, match="password"):
                psycopg.connect(
                    host=folder,
                    dbname="mlflow",
                    user=user,
                    password=password,
                    passfile="/dev/null",
                )
    with Postgres(running.state_folder).connect() as connection:  # MLflow may not do more
        row = connection.execute("select rolsuper, rolcreatedb from pg_roles where rolname = user")
        assert row.fetchone() == (False, False)


@pytest.mark.slow
def test_a_study_that_is_told_nothing_finds_its_server(running: Throwaway, client_of: Any) -> None:
    client = client_of()
    experiment = client.create_experiment("found by itself")
    run = client.create_run(experiment)
    client.log_metric(run.info.run_id, "score", 1.5)
    client.log_text(run.info.run_id, "hello", "greeting.txt")
    assert client.get_run(run.info.run_id).data.metrics == {"score": 1.5}
    kept = list((running.folder / "storage/artifacts").rglob("greeting.txt"))
    assert [path.read_text() for path in kept] == ["hello"]
    with Postgres(running.state_folder).connect() as connection:
        found = connection.execute("select value from metrics where key = 'score'").fetchall()
    assert found == [(1.5,)]


@pytest.mark.slow
def test_no_secret_is_in_a_log_an_argument_or_a_file_for_others(running: Throwaway) -> None:
    said = running.command("status").stdout + running.up().stdout
    open_to_others, named = [], {"what the commands say": said}
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            named[str(path)] = path.read_bytes().decode(errors="replace")
    for path in running.folder.rglob("*"):
        if path.is_file() and "secrets" not in path.parts and "data" not in path.parts:
            named[str(path)] = path.read_text(errors="replace")
    for path in (running.folder / "state/secrets").iterdir():
        if path.stat().st_mode & 0o077:
            open_to_others.append(path)
    for name, secret in secrets_of(running).items():
        assert len(secret) > 30
        assert [where for where, text in named.items() if secret in text] == [], name
    assert open_to_others == []
    assert (running.config / "cgan/services.json").stat().st_mode & 0o777 == 0o600
    data = running.folder / "state/postgres"
    assert data.stat().st_mode & 0o777 == 0o700


@pytest.mark.slow
def test_up_again_changes_nothing_and_status_is_well(running: Throwaway) -> None:
    before = running.state
    done = running.command("up")  # a flag that is left out stays as it was
    assert done.returncode == 0, done.stderr
    assert running.state == before
    told = running.command("status")
    assert told.returncode == 0, told.stdout
    assert told.stdout.count(" well\n") == 2
    for schema in SCHEMAS:
        assert f"{schema.database} of revision {schema.newest().pop()}" in told.stdout


@pytest.mark.slow
def test_tables_of_another_mlflow_are_told_with_what_to_do(running: Throwaway) -> None:
    def become(revision: str, schema: Schema = TRACKING) -> None:
        with Postgres(running.state_folder).connect(schema.database) as connection:
            connection.execute(f"update {schema.table} set version_num = %s", [revision])

    try:
        become("451aebb31d03")  # add metric step, of 2019
        done = running.command("up")
        assert done.returncode == 2
        assert "database mlflow (revision 451aebb31d03) are older" in done.stderr
        assert running.command("status").returncode == 1
        lines = [line.strip() for line in done.stderr.splitlines() if "PGPASSFILE" in line]
        assert ["pg_dump" in line for line in lines] == [True, True, False, False]
        for line in lines[:2]:
            subprocess.run(line, shell=True, check=True)  # as a user would paste it
            (dump,) = (word for word in shlex.split(line) if word.startswith("--file="))
            assert Path(dump.removeprefix("--file=")).read_bytes().startswith(b"PGDMP")
        become("ffffffffffff")
        done = running.command("up")
        assert done.returncode == 2
        assert "newer" in done.stderr
        become(TRACKING.newest().pop())
        become("8606fa83a998", AUTHENTICATION)
        assert "database mlflow_auth (revision 8606fa83a998)" in running.command("up").stderr
    finally:
        for schema in SCHEMAS:
            become(schema.newest().pop(), schema)


@pytest.mark.slow
def test_what_crashed_is_restarted_now_with_tls(
    running: Throwaway, client_of: Any, tmp_path: Path
) -> None:
    before = running.state
    assert before.mlflow is not None
    assert before.postgres is not None
    orphans = [pid for pid in before.mlflow.members() if pid != before.mlflow.pid]
    assert orphans  # uvicorn
    for process in (before.mlflow, before.postgres):
        os.kill(process.pid, signal.SIGKILL)
    time.sleep(0.2)
    told = running.command("status")
    assert told.returncode == 1
    assert told.stdout.count("NOT WELL: does not run") == 2
    certificate, key = self_made(tmp_path)
    done = running.up("--tls-cert", certificate, "--tls-key", key, "--tls-ca", certificate)
    assert done.returncode == 0, done.stderr
    assert running.command("status").returncode == 0
    assert not [pid for pid in orphans if is_running(pid)]
    uri = running.services.tracking_uri
    assert uri == f"https://127.0.0.1:{running.port}"
    client = client_of()
    assert client.get_experiment_by_name("Default") is not None
    with pytest.raises(urllib.error.URLError, match="CERTIFICATE_VERIFY_FAILED"):
        answer(f"{uri}/{LIST}", running.services.password())  # by the system's certificates


@pytest.mark.slow
def test_the_keeper_restarts_what_dies_until_down_leaves_no_process(
    running: Throwaway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(running.config))
    before = running.state
    assert before.mlflow is not None
    assert before.postgres is not None
    said: list[str] = []
    keeper = threading.Thread(
        target=keep,
        args=(running.state_folder, said.append),
        kwargs={"is_head": lambda: True, "look_seconds": 0.1},
    )
    keeper.start()
    os.kill(before.postgres.pid, signal.SIGKILL)
    while running.command("status").returncode != 0:
        time.sleep(0.1)
    after = running.state
    assert after.postgres is not None
    assert after.postgres.pid != before.postgres.pid
    assert after.mlflow == before.mlflow  # it finds its database again by itself
    theirs = [*before.mlflow.members(), *after.postgres.members()]
    theirs += [child.pid for child in psutil.Process(after.postgres.pid).children()]
    assert len(theirs) > 5
    for _ in range(2):  # the second has nothing to do
        done = running.command("down")
        assert done.returncode == 0, done.stderr
    assert [pid for pid in theirs if is_running(pid)] == []
    assert running.command("status").returncode == 1
    keeper.join(20)
    assert not keeper.is_alive()
    assert said == ["starting PostgreSQL"]


def test_the_keeper_takes_all_down_when_ray_has_ended(tmp_path: Path) -> None:
    folder = StateFolder(tmp_path)
    database, server = (
        start(["sleep", "60"], dict(os.environ), tmp_path / f"log{i}") for i in range(2)
    )
    folder.write(State(settings=Settings(), postgres=database, mlflow=server))
    heads = iter([True, True, False, False])
    keep(folder, print, is_head=lambda: next(heads, False), look_seconds=0.01, grace_seconds=0.02)
    assert next(heads, None) is None
    assert not database.is_alive()
    assert not server.is_alive()


def self_made(folder: Path) -> tuple[Path, Path]:
    certificate, key = folder / "cert.pem", folder / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
         "-keyout", key, "-out", certificate, "-subj", "/CN=127.0.0.1",
         "-addext", "subjectAltName=IP:127.0.0.1"],
        check=True, capture_output=True,
    )  # fmt: skip
    return certificate, key


def test_a_port_that_is_taken_is_told_with_who_has_it(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        server = MlflowServer(StateFolder(tmp_path), Settings(port=port))
        with pytest.raises(ServicesError, match=rf"--port {port}: .*process {os.getpid()} \("):
            server.check_port()
    MlflowServer(StateFolder(tmp_path), Settings(port=free_port())).check_port()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--host", "0.0.0.0"], "--tls-cert"),
        (["--tls-cert", "cert.pem"], "--tls-key: must be given together"),
        (["--tls-cert", "none.pem", "--tls-key", "none.pem"], "none.pem"),
        (["--port", "99999"], "from 1 to 65535"),
        (["--storage", "/proc/nothing"], "/proc/nothing"),
    ],
)
def test_a_mistake_is_told_before_anything_starts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], told: str
) -> None:
    assert main(["up", "--state", str(tmp_path / "state"), *words]) == 2
    assert told in capsys.readouterr().err
    assert not (tmp_path / "state").exists()


def test_no_services_are_told_as_such(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state = str(tmp_path / "none")
    assert main(["status", "--state", state]) == 2
    assert "search.services up" in capsys.readouterr().err
    assert main(["down", "--state", state]) == 0


def test_the_folder_of_others_is_left_as_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "thesis.tex").touch()
    tmp_path.chmod(0o755)
    assert main(["up", "--storage", str(tmp_path / "s"), "--state", str(tmp_path)]) == 2
    assert "holds other files" in capsys.readouterr().err
    assert tmp_path.stat().st_mode & 0o777 == 0o755


def test_a_number_that_came_again_is_not_killed(tmp_path: Path) -> None:
    ours = start(["sleep", "60"], dict(os.environ), tmp_path / "log")
    assert ours.is_alive()
    for other in (
        ours.model_copy(update={"start_ticks": ours.start_ticks - 1, "mark": "a"}),
        ours.model_copy(update={"boot": "an earlier one"}),
    ):
        assert not other.is_alive()
        assert other.members() == []
        other.stop(signal.SIGTERM, signal.SIGKILL, 0.2)
        assert ours.is_alive()
    ours.stop(signal.SIGTERM, signal.SIGKILL, 10)
    assert not ours.is_alive()


def test_a_child_is_ended_though_its_parent_died(tmp_path: Path) -> None:
    script = "sleep 60 & echo started; wait"
    parent = start(["sh", "-c", script], dict(os.environ), tmp_path / "log")
    while "started" not in (tmp_path / "log").read_text():
        time.sleep(0.01)
    os.kill(parent.pid, signal.SIGKILL)
    while parent.is_alive():
        time.sleep(0.01)
    assert len(parent.members()) == 1
    parent.stop(signal.SIGTERM, signal.SIGKILL, 10)
    assert parent.members() == []


@pytest.mark.parametrize("schema", SCHEMAS)
def test_revisions_are_those_that_alembic_finds(schema: Schema) -> None:
    import mlflow
    from alembic.script import ScriptDirectory

    scripts = ScriptDirectory(str(Path(mlflow.__file__).parent / schema.migrations))
    assert schema.newest() == set(scripts.get_heads())
    for script in scripts.walk_revisions():
        assert schema.state(script.revision) == ("current" if script.is_head else "older")
    assert schema.state("ffffffffffff") == "newer"
    assert schema.state(None) == "empty"


def test_a_missing_postgresql_is_told_with_the_remedy() -> None:
    with pytest.raises(ServicesError, match=r"PostgreSQL 1, which made it, is not .*make"):
        find_programs("1")


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become somebody else")
def test_the_database_runs_as_whoever_is_not_root() -> None:
    script = (
        "import os, sys, psycopg\n"  # he may not read what is installed here
        "from pathlib import Path\n"
        "from search.postgres import Postgres\n"
        "from search.services_state import StateFolder\n"
        "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "state = StateFolder(Path(sys.argv[1])); state.prepare()\n"
        "postgres = Postgres(state); postgres.create(); process = postgres.start()\n"
        "try: postgres.wait(process)\n"
        "finally: postgres.stop(process)\n"
        "print(oct(state.path.stat().st_mode & 0o777))"
    )
    with throwaway_folder() as folder:
        folder.chmod(0o777)
        done = subprocess.run(
            [sys.executable, "-c", script, str(folder / "state")],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.stdout == "0o700\n", done.stderr


def of_host(tmp_path: Path, **changes: Any) -> Services:
    """Services that need not run, written as `up` would."""
    (tmp_path / "password").write_text("hush\n")
    values: dict[str, Any] = {
        "tracking_uri": "http://127.0.0.1:5999",
        "username": "admin",
        "password_file": str(tmp_path / "password"),
        "storage": str(tmp_path / "storage"),
        "ca_cert": None,
        "state": str(tmp_path / "state"),
        "host": socket.gethostname(),
    }
    services = Services(**values | changes)
    write_services(services)
    return services


@pytest.fixture
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's home and environment of the test's own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    for name in list(os.environ):
        if name.startswith("MLFLOW_TRACKING"):
            monkeypatch.delenv(name)
    return tmp_path


def test_a_flag_goes_before_the_environment_before_the_services(
    alone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    embedded = f"sqlite:///{alone / 'runs/mlflow.db'}"
    assert find_place(None).uri == embedded
    services = of_host(alone)
    assert find_place(None).uri == services.tracking_uri
    assert find_place(None).services == services
    assert find_place("sqlite:///other.db").uri == f"sqlite:///{alone / 'other.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    assert find_place(None).uri == "http://127.0.0.1:1"
    assert find_place(None).services is None
    assert find_place(services.tracking_uri + "/").services == services


def test_the_password_goes_to_no_other_server(
    alone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    of_host(alone, ca_cert="/ca.pem")
    names = [f"MLFLOW_TRACKING_{name}" for name in ("USERNAME", "PASSWORD", "SERVER_CERT_PATH")]
    connect(find_place(None))
    assert [os.environ.get(name) for name in names] == ["admin", "hush", "/ca.pem"]
    connect(find_place("http://127.0.0.1:1"))
    assert [os.environ.get(name) for name in names] == [None] * 3
    monkeypatch.setenv(names[0], "me")
    monkeypatch.setenv(names[1], "mine")
    connect(find_place(None))
    assert [os.environ.get(name) for name in names] == ["me", "mine", "/ca.pem"]
    connect(find_place("http://127.0.0.1:1"))
    assert [os.environ.get(name) for name in names] == ["me", "mine", None]


def test_studies_go_to_the_shared_storage(alone: Path) -> None:
    from search.study import load_spec
    from search.study_file import StudyError
    from search.study_folder import default_output

    spec = load_spec(Path(__file__).parent.parent / "spaces/mnist.yaml", "quick")
    assert default_output(spec) == Path("runs/mnist-quick")
    of_host(alone, storage=None)
    assert default_output(spec) == Path("runs/mnist-quick")
    of_host(alone, host="another")  # a home that machines share
    assert default_output(spec) == Path("runs/mnist-quick")
    assert find_place(None).database == alone / "runs/mlflow.db"
    of_host(alone)
    shared = alone / "storage/runs/mnist-quick"
    assert default_output(spec) == default_output(spec, resume=True) == shared
    earlier = Path("runs/mnist-quick")
    for folder in (earlier, shared):
        folder.mkdir(parents=True)
    (earlier / "journal.jsonl").touch()  # begun before there were services
    assert default_output(spec, resume=True) == earlier
    assert default_output(spec) == shared
    (shared / "journal.jsonl").touch()
    with pytest.raises(StudyError, match="say by --output which"):
        default_output(spec, resume=True)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("{", "Invalid JSON"),
        ('{"port": 5000}', "tracking_uri"),
        (None, "password_file"),
    ],
)
def test_a_broken_file_is_told_with_the_remedy(alone: Path, change: str | None, told: str) -> None:
    services = of_host(alone)
    if change is None:
        Path(services.password_file).unlink()
        with pytest.raises(ServicesError, match=rf"services.json: `{told}`: .*services up"):
            connect(find_place(None))
        return
    services_path().write_text(change)
    with pytest.raises(TrackingError, match=rf"services.json: .*{told}.*services up"):
        find_place(None)


def test_a_server_that_is_away_is_told_with_the_remedy_and_nothing_goes_elsewhere(
    alone: Path,
) -> None:
    from search.tracking import Tracker

    of_host(alone)
    said: list[str] = []
    tracker = Tracker(None, on_problem=said.append)
    tracker._complain(ConnectionError("refused"), first=True)
    assert "search.services up" in said[0]
    assert "127.0.0.1:5999" in said[0]
    assert not (alone / "runs").exists()


def test_another_password_than_the_one_on_file_is_told_with_the_remedy(tmp_path: Path) -> None:
    class Refuse(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/health" else 401)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    folder = StateFolder(tmp_path)
    folder.secret("").mkdir()
    with HTTPServer(("127.0.0.1", 0), Refuse) as listener:
        thread = threading.Thread(target=listener.serve_forever)
        thread.start()
        server = MlflowServer(folder, Settings(port=listener.server_port))
        problem = server.problem()
        listener.shutdown()
        thread.join()
    assert problem == server.refusal
    assert "secrets/admin-password: it was changed inside MLflow" in problem


def test_only_the_head_of_a_cluster_keeps_them_with_ray(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("search.services.ray_head_is_here", lambda: False)
    assert main(["up", "--with-ray", "--state", str(tmp_path / "state")]) == 2
    assert "--with-ray: needs the head of a Ray cluster" in capsys.readouterr().err
    assert not (tmp_path / "state").exists()
