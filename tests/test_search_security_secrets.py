"""Secrets that are planted where a study meets them, and looked for wherever it writes."""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import closed_form
import pytest
from closed_form import ClosedFormRuns, Fault, open_history, study
from tiny_study import write_space

from search.cluster import ray_running
from search.command_line import USER_ERROR
from search.run import main
from search.secrets import redacted
from search.stop_request import StopRequest
from search.tracking_place import TrackingError, TrackingPlace, find_place
from search.tuner import run_trials

PLANTED = "pLaNtEd5eCrEt"
IN_ENVIRONMENT = {
    "RAY_AUTH_TOKEN": f"{PLANTED}-of-ray-0123456789abcdef",
    "AWS_ACCESS_KEY_ID": f"{PLANTED}-id",
    "AWS_SECRET_ACCESS_KEY": f"{PLANTED}/of+s3",
    "MLFLOW_TRACKING_PASSWORD": f"{PLANTED} of mlflow",
}
TEXTS = [
    f"could not connect to postgresql://mlflow:{PLANTED}@db:5432/mlflow",
    f"postgresql+psycopg2://mlflow:x/{PLANTED}@@db/mlflow?sslmode=require",
    f"http://{PLANTED}@127.0.0.1:5000/api",
    f"host=db user=mlflow password={PLANTED} sslmode=require",
    f"{{'password': '{PLANTED}', 'user': 'x'}}",
    f"s3: aws_secret_access_key = {PLANTED}",
    f"Authorization: Bearer {PLANTED}",
    *(f"not even {value} alone" for value in IN_ENVIRONMENT.values()),
]


@pytest.mark.parametrize("text", TEXTS)
def test_no_secret_is_left_in_a_text(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in IN_ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    assert PLANTED not in redacted(text)
    assert "***" in redacted(text)


@pytest.mark.parametrize(
    "text",
    [
        "RuntimeError: boom in trial 2",
        "https://docs.ray.io/en/latest/x.html",
        "s3://bucket/prefix",
        "sqlite:////home/me@work/mlflow.db",
        "validation_log_likelihood is nan at 200 kimg",
    ],
)
def test_other_texts_stay(text: str) -> None:
    assert redacted(text) == text


@pytest.mark.parametrize("command", ["search.run", "search.rerun"])
@pytest.mark.parametrize(
    "uri",
    [f"http://me:{PLANTED}@127.0.0.1:5000", f"postgresql://127.0.0.1/mlflow?password={PLANTED}"],
)
def test_a_password_among_the_arguments_is_refused(
    command: str, uri: str, capsys: pytest.CaptureFixture[str]
) -> None:
    import search.rerun

    run = main if command == "search.run" else search.rerun.main
    for words in (["--tracking-uri", uri], [f"--tracking-uri={uri}"]):
        assert run(["spaces/mnist.yaml", *words]) == USER_ERROR
        said = "".join(capsys.readouterr())
        assert "must hold no password" in said
        assert "MLFLOW_TRACKING_URI" in said
        assert PLANTED not in said


def test_a_place_is_shown_without_its_password() -> None:
    for uri in (f"http://me:{PLANTED}@host/", f"postgresql://host/db?password={PLANTED}&x=1"):
        assert PLANTED not in TrackingPlace(uri=uri, artifacts=None).shown
    with pytest.raises(TrackingError) as refused:
        find_place(f"ftp://me:{PLANTED}@host/")
    assert PLANTED not in str(refused.value)


def files_with_a_secret(folder: Path) -> list[Path]:
    planted = PLANTED.encode()
    return [path for path in folder.rglob("*") if path.is_file() and planted in path.read_bytes()]


def arguments_with_a_secret() -> set[str]:
    """The command lines of all processes of this host that hold it."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue  # it has ended
        if PLANTED in words:
            found.add(words)
    return found


@pytest.fixture
def planted() -> Iterator[None]:
    """Secrets in the environment, and a Ray whose workers have taken it over.

    Not Ray's own: this process would keep it for the Ray of other tests.
    """
    with pytest.MonkeyPatch.context() as patch:
        for name, value in IN_ENVIRONMENT.items():
            if name != "RAY_AUTH_TOKEN":
                patch.setenv(name, value)
        with ray_running("local"):
            yield


@pytest.mark.ray
def test_what_a_trial_raises_is_cleaned_wherever_it_is_written(
    planted: None, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    from ray import cloudpickle

    cloudpickle.register_pickle_by_value(closed_form)
    words = "; ".join(text for text in TEXTS if "of-ray" not in text)
    runs = ClosedFormRuns(folder=tmp_path, faults={0: Fault("raise", 10, words=words)})
    spec = study(grid=1, model=0)
    with open_history(tmp_path, spec) as history:
        run_trials(spec, history, runs, tmp_path, max_concurrent=2, stop=StopRequest())
        reason = history.ledger.trials[0].reason
    cloudpickle.unregister_pickle_by_value(closed_form)
    assert reason is not None
    assert reason.startswith("RuntimeError: could not connect to postgresql://***@db:5432/mlflow;")
    assert PLANTED not in "".join(capfd.readouterr())
    assert files_with_a_secret(tmp_path) == []
    assert list(tmp_path.rglob("error.txt"))  # Tune has written it down too


# As `python -m search.run`, but not as patient with an MLflow that is away.
COMMAND = """
import sys
import search.session
from search.run import main
search.session.DELIVERY_SECONDS = 1.0
sys.exit(main())
"""


@pytest.mark.ray
@pytest.mark.slow
def test_a_study_leaves_no_secret_behind(tmp_path: Path) -> None:
    """MLflow's place has a password, is away, and comes up in what is said of it."""
    point = {"learning_rate": 0.05, "d_dropout": 0.2}
    space = write_space(
        tmp_path,
        stages=[{"kind": "manual", "points": [point]}],
        scheduler={"kind": "none"},
        budget={"kimg_per_trial": 0.2, "measure_kimg": 0.2, "trials": 1},
    )
    output = tmp_path / "out"
    variables = IN_ENVIRONMENT | {"MLFLOW_TRACKING_URI": f"http://me:{PLANTED}@127.0.0.1:9/"}
    words = [sys.executable, "-c", COMMAND, str(space), "--output", str(output)]
    begun = subprocess.Popen(
        [*words, "--address", "local", "--json"],
        env=os.environ | variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    seen: set[str] = set()
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(0.5):
            seen.update(arguments_with_a_secret())

    watcher = threading.Thread(target=watch)
    watcher.start()
    said, _ = begun.communicate(timeout=250)
    ended.set()
    watcher.join()
    assert begun.returncode == 0, said
    assert "MLflow at http://127.0.0.1:9/ does not take runs" in said
    assert PLANTED not in said
    assert seen == set()
    assert files_with_a_secret(output) == []
