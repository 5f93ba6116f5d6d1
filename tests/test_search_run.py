"""Every mistake of a user is one message and exit code 2, before Ray is started."""

import json
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
import ray
import yaml
from tiny_study import write_npz, write_space

from search.command_line import DONE, FAULT, INTERRUPTED, USER_ERROR
from search.events import SessionOpened
from search.failure_streak import StudyFailedError
from search.history import History
from search.lines import Lines
from search.prepared import PreparedStudy
from search.run import main
from search.run_options import parser, resume_command
from search.stop_request import StudyInterrupted, signals_held_back
from search.study import load_spec

Prepare = Callable[[Path], object]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A user's folder with a sound space file, and no Ray, network or settings to fall back on."""

    def forbidden(*_: Any, **__: Any) -> NoReturn:
        raise AssertionError("Ray must not be started")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(ray, "init", forbidden)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    for name in ("CGAN_DATA_DIR", "MLFLOW_TRACKING_URI", "RAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CGAN_CACHE_DIR", str(tmp_path / "cache"))
    write_space(tmp_path, data={"path": "tiny.npz"})
    before = signal.getsignal(signal.SIGTERM)
    yield tmp_path
    signal.signal(signal.SIGTERM, before)


def rewrite(old: str, new: str) -> Prepare:
    """Returns what replaces a piece of the space file."""

    def prepare(folder: Path) -> None:
        path = folder / "tiny.yaml"
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new, 1))

    return prepare


def write(name: str, content: bytes | str) -> Prepare:
    data = content.encode() if isinstance(content, str) else content

    def prepare(folder: Path) -> None:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(data)

    return prepare


def save(**arrays: Any) -> Prepare:
    return lambda folder: np.savez(folder / "tiny.npz", **arrays)


def truncate(folder: Path) -> None:
    path = folder / "tiny.npz"
    path.write_bytes(path.read_bytes()[:1000])


def begin(folder: Path) -> None:
    """Records the first events of the study in `out`, as a driver does."""
    out = folder / "out"
    with History.create(out) as history:
        spec = load_spec(folder / "tiny.yaml")
        prepared = PreparedStudy(spec, out, resume=False, say=lambda line: None)
        opened = prepared.opened()
        prepared.write_study(opened, Lines(untrained=0.0, real_data=1.0))
        history.append(opened)
        history.append(SessionOpened(pid=1))


def begin_and(*more: Prepare) -> Prepare:
    def prepare(folder: Path) -> None:
        begin(folder)
        for step in more:
            step(folder)

    return prepare


def swap_journal_lines(folder: Path) -> None:
    path = folder / "out" / "journal.jsonl"
    first, second = path.read_text().splitlines()
    path.write_text(f"{second}\n{first}\n")


@dataclass(frozen=True)
class Case:
    """What a user gave, and what must be in the one message."""

    name: str
    words: str
    says: tuple[str, ...]
    prepare: Prepare = field(default=lambda folder: None)


OUT = "tiny.yaml --output out"
IMAGES = np.zeros((30, 8, 8), np.uint8)
CASES = [
    Case("no space file named", "--output out", ("SPACE.yaml", "--help")),
    Case("missing space file", "nowhere.yaml", ("nowhere.yaml: the file must exist",)),
    Case("space is a folder", ".", (".: the file cannot be read: Is a directory",)),
    Case("unknown flag", f"{OUT} --max-concurent 2", ("--max-concurent",)),
    Case("a flag cut short", f"{OUT} --resum", ("--resum",)),
    Case("a flag's type", f"{OUT} --max-concurrent two", ("--max-concurrent", "'two'")),
    Case(
        "broken YAML",
        OUT,
        ("tiny.yaml:2: must be YAML",),
        write("tiny.yaml", "study: tiny\n a: ["),
    ),
    Case("empty file", OUT, ("tiny.yaml: a study must be a mapping",), write("tiny.yaml", "")),
    Case(
        "unknown key",
        OUT,
        ("tiny.yaml:", "schedular", "did you mean `scheduler`?"),
        rewrite("scheduler:", "schedular:"),
    ),
    Case(
        "a number that YAML reads as text",
        OUT,
        ("space.learning_rate.low", "YAML reads 1e-4 as text", "write 1.0e-"),
        rewrite("low: 0.01", "low: 1e-4"),
    ),
    Case(
        "low > high",
        OUT,
        ("space.learning_rate.low: `low <= high` must hold, but got", "low=0.9"),
        rewrite("low: 0.01", "low: 0.9"),
    ),
    Case(
        "unknown parameter",
        OUT,
        ("space.d_dropuot", "did you mean `d_dropout`"),
        rewrite("d_dropout:\n", "d_dropuot:\n"),
    ),
    Case(
        "empty space",
        OUT,
        ("tiny.yaml:", "space"),
        lambda folder: write_space(
            folder,
            space={},
            stages=[{"kind": "manual", "points": [{}]}],
            budget={"kimg_per_trial": 0.8, "measure_kimg": 0.2, "trials": 1},
        ),
    ),
    Case(
        "a searched value out of its range",
        f"{OUT} --set space.d_dropout.high=1.5",
        ("space.d_dropout", "d_dropout < 1", "1.5"),
    ),
    Case(
        "more trials than cells",
        f"{OUT} --set stages.1.trials=9 --set budget.trials=12",
        ("stages.1.trials", "`trials <= 3` must hold"),
    ),
    Case("a size that is not there", f"{OUT} --size quick", ("tiny.yaml", "size 'quick'")),
    Case("--set without =", f"{OUT} --set budget.trials", ("must look like `budget.trials=12`",)),
    Case("--set of nothing known", f"{OUT} --set budget.trails=3", ("budget.trails", "did you")),
    Case("--set below a number", f"{OUT} --set budget.trials.x=3", ("has no `x`",)),
    Case("--seed below zero", f"{OUT} --seed -1", ("--seed -1: seed: `seed >= 0`", "seed=-1")),
    Case("--trials 0", f"{OUT} --trials 0", ("--trials 0: budget.trials: `trials >= 1`",)),
    Case(
        "--trials abc",
        f"{OUT} --trials abc",
        ("--trials abc: budget.trials", "whole number", "'abc'"),
    ),
    Case("--trials +5, no --resume", f"{OUT} --trials +5", ("--trials", "needs --resume")),
    Case("--trials +abc", f"{OUT} --resume --trials +abc", ("--trials", "a whole number", "+abc")),
    Case("--trials +-3", f"{OUT} --resume --trials=+-3", ("--trials", "above zero", "+-3")),
    Case(
        "--time-budget 5x",
        f"{OUT} --time-budget 5x",
        ("--time-budget 5x: budget.time: must be", "15m"),
    ),
    Case("--time-budget +5x", f"{OUT} --resume --time-budget +5x", ("--time-budget", "'5x'")),
    Case("--max-concurrent 0", f"{OUT} --max-concurrent 0", ("--max-concurrent", "at least 1")),
    Case("missing data", OUT, ("tiny.npz",), lambda f: (f / "tiny.npz").unlink()),
    Case("data that are no npz", OUT, ("tiny.npz",), write("tiny.npz", "not an archive")),
    Case("truncated data", OUT, ("tiny.npz",), truncate),
    Case(
        "a label that is no class",
        OUT,
        ("tiny.npz: labels must lie in", "-1"),
        save(images=IMAGES, labels=np.arange(30) % 3 - 1),
    ),
    Case(
        "no images", OUT, ("tiny.npz: key 'images' must be there",), save(labels=IMAGES[:, 0, 0])
    ),
    Case(
        "images that are not bytes",
        OUT,
        ("tiny.npz: images must be uint8",),
        save(images=IMAGES.astype(float), labels=np.arange(30) % 3),
    ),
    Case(
        "unknown data set",
        f"{OUT} --set data.path=null --set data.name=cifar",
        ("data.name: must be 'mnist', 'lfwcrop' or 'lfw_people', but got 'cifar'",),
    ),
    Case("a folder in use", OUT, ("out: a study is recorded here", f"{OUT} --resume"), begin),
    Case(
        "another study in the folder",
        f"{OUT} --seed 4",
        ("out: another study is recorded here", "--output", "seed: was 3, is now 4"),
        begin,
    ),
    Case(
        "a file in the folder's place",
        OUT,
        ("out", "must be writable"),
        lambda folder: (folder / "out").write_text(""),
    ),
    Case(
        "a folder of something else",
        OUT,
        ("out: must be empty", "holds notes.md", "another folder by --output"),
        write("out/notes.md", "mine"),
    ),
    Case(
        "nothing to resume",
        f"{OUT} --resume",
        ("out/study.json", "is this the folder of a study?", "without --resume"),
    ),
    Case(
        "another spec on --resume",
        f"{OUT} --resume --seed 4 --set budget.measure_kimg=0.1",
        ("seed: was 3, is now 4", "budget.measure_kimg: was 0.2, is now 0.1", "--output"),
        begin,
    ),
    Case(
        "more trials for a population",
        f'{OUT} --resume --trials +2 --set scheduler={{"kind":pbt,"interval_kimg":0.4}}',
        ("out: --trials: a population keeps its size", "kind: pbt", "got +2", "`--trials 7`"),
        begin,
    ),
    Case(
        "other data on --resume",
        f"{OUT} --resume",
        ("digest", "bring the first ones back"),
        begin_and(lambda folder: write_npz(folder / "tiny.npz", count=210)),
    ),
    Case(
        "study.json broken",
        f"{OUT} --resume",
        ("study.json: cannot be read",),
        begin_and(write("out/study.json", "{")),
    ),
    Case(
        "study.json of something else",
        f"{OUT} --resume",
        ("study.json",),
        begin_and(write("out/study.json", "{}")),
    ),
    Case(
        "a broken journal",
        f"{OUT} --resume",
        ("journal.jsonl:1", "one event"),
        begin_and(write("out/journal.jsonl", "nonsense\n{}\n")),
    ),
    Case(
        "a shuffled journal",
        f"{OUT} --resume",
        ("journal.jsonl", "in their order"),
        begin_and(swap_journal_lines),
    ),
    Case(
        "a tracking URI of no kind",
        f"{OUT} --tracking-uri ftp://host",
        ("sqlite:///FILE", "'ftp://host'"),
    ),
]


def tell(words: str, capsys: pytest.CaptureFixture[str]) -> str:
    """Runs the command, which must refuse, and returns its message."""
    capsys.readouterr()
    assert main(words.split()) == USER_ERROR
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "Traceback" not in captured.err
    lines = captured.err.splitlines()
    message = [line for line in lines if not line.startswith(("study tiny,", "NOTE: "))]
    assert 1 <= len(message) <= 6
    return "\n".join(message)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_mistake_is_one_message(
    case: Case, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    case.prepare(folder)
    message = tell(case.words, capsys)
    for piece in case.says:
        assert piece in message


def test_a_folder_that_another_driver_writes(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    begin(folder)
    with History.resume(folder / "out"):
        assert "one driver at a time" in tell(f"{OUT} --resume", capsys)


def test_an_address_where_nothing_listens(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
        message = tell(f"{OUT} --address {address}", capsys)
    assert address in message
    assert "--address local" in message


def test_more_cores_than_there_are(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    message = tell(f"{OUT} --set resources.cpus_per_trial=4096", capsys)
    found = re.match(r"resources\.cpus_per_trial: `cpus_per_trial <= (\d+)`.*=4096", message)
    assert found, message
    words = f"--set resources.pack=2 --set resources.cpus_per_trial={found[1]} --address local"
    message = tell(f"{OUT} {words}", capsys)
    assert message.startswith(f"resources.pack: `pack * cpus_per_trial <= {found[1]}`")
    assert f"pack=2, cpus_per_trial={found[1]}" in message
    assert not (folder / "out").exists()


def test_full_data_that_cannot_be_had(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from cgan_core.data.download import DownloadError

    def offline(*_: Any, **__: Any) -> NoReturn:
        raise DownloadError("no network")

    monkeypatch.setattr("cgan_core.data.mnist.download_files", offline)
    write_space(folder, data={"name": "mnist", "require_full": True})
    message = tell(OUT, capsys)
    assert "no network" in message
    assert "CGAN_DATA_DIR" in message


def test_a_mistake_that_was_mended_leaves_the_folder_free(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "tiny.npz").rename(folder / "away.npz")
    tell(OUT, capsys)
    (folder / "away.npz").rename(folder / "tiny.npz")
    assert "no Ray cluster answers" in tell(f"{OUT} --address 127.0.0.1:1", capsys)
    assert not (folder / "out").exists()


def test_what_a_start_that_was_killed_left_is_no_study(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("journal.lock", "journal.jsonl"):  # killed between the two, and after both
        (folder / "out").mkdir(exist_ok=True)
        (folder / "out" / name).touch()
        assert "no Ray cluster answers" in tell(f"{OUT} --address 127.0.0.1:1", capsys)
        assert not (folder / "out" / name).exists()
        assert (folder / "out").is_dir()  # which was there before
    (folder / "out" / "journal.jsonl").touch()
    assert main(f"{OUT} --resume --address 127.0.0.1:1".split()) == USER_ERROR
    assert "nothing is recorded in" in capsys.readouterr().err


def test_help_is_no_mistake(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == DONE
    assert "--resume" in capsys.readouterr().out


def test_a_dry_run_says_all_and_begins_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("search.calibration.CALIBRATION_SECONDS", 0.01)
    words = f"{OUT} --trials 4 --time-budget 15m --seed 9 --dry-run --max-concurrent 2"
    assert main(words.split()) == DONE
    plan = capsys.readouterr().out
    assert plan.startswith("folder      out, where the study would begin")
    assert "4 (2 manual, 2 random_grid, 0 model), 2 at a time" in plan
    assert "past 0.4 kimg (asha)" in plan
    assert "the time budget ends it after 15 min" in plan
    for word in ("as asked", "surer", "wider"):
        assert f"            {word} " in plan
    assert "packs" not in plan
    assert not (folder / "out").exists()
    assert not (folder / "runs").exists()


def test_a_dry_run_gives_the_study_with_all_choices_made(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("search.calibration.CALIBRATION_SECONDS", 0.01)
    words = f"{OUT} --trials 4 --time-budget 15m --seed 9 --dry-run --json"
    assert main(words.split()) == DONE
    captured = capsys.readouterr()
    resolved = json.loads(captured.out)
    assert (resolved["seed"], resolved["budget"]["trials"]) == (9, 4)
    assert resolved["budget"]["time"] == 900
    assert load_spec(folder / "tiny.yaml").from_mapping(resolved).seed == 9
    assert "the time budget ends it after 15 min" in captured.err


def test_a_dry_run_refuses_the_folders_that_a_start_refuses(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = folder / "out"
    out.mkdir()
    (out / "thesis.txt").write_text("mine")
    assert "holds thesis.txt" in tell(f"{OUT} --dry-run", capsys)
    (out / "thesis.txt").unlink()
    with History.create(out) as history:
        assert "one driver at a time" in tell(f"{OUT} --dry-run", capsys)
        history.append(SessionOpened(pid=1))
    message = tell(f"{OUT} --dry-run", capsys)
    assert "a study is recorded here already; name another folder by --output, or go on" in message
    assert message.endswith(f"{OUT} --resume")
    assert "study.json: is missing" in tell(f"{OUT} --dry-run --resume", capsys)


def test_a_dry_run_says_what_would_be_resumed(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("search.calibration.CALIBRATION_SECONDS", 0.01)
    begin(folder)
    before = {path: path.read_bytes() for path in (folder / "out").iterdir()}
    assert main(f"{OUT} --dry-run --resume".split()) == DONE
    said = capsys.readouterr().out
    assert "out, where the study would be resumed: 0 of 5 trials have ended" in said
    assert {path: path.read_bytes() for path in (folder / "out").iterdir()} == before
    (folder / "out" / "summary.json").write_text('{"sessions": 0}')  # of before this one
    assert main(f"{OUT} --dry-run --resume".split()) == DONE
    assert "where the study would be resumed" in capsys.readouterr().out
    (folder / "out" / "summary.json").write_text('{"sessions": 1}')
    assert main(f"{OUT} --dry-run --resume".split()) == DONE
    assert "where the study has ended: its result would be shown" in capsys.readouterr().out
    assert "differ" in tell(f"{OUT} --dry-run --resume --seed 5", capsys)


@pytest.mark.parametrize(
    ("resources", "says"),
    [
        ("{pack: 4}", "4 trials share an engine and a node's CPUs in equal parts"),
        ("{pack: 4, gpus_per_trial: 0.25}", "4 trials share an engine and a GPU in equal parts"),
        (
            "{gpus_per_trial: 0.0625}",
            "on GPUs a probe settles how many share one, up to 16",
        ),
    ],
)
def test_a_dry_run_says_what_trials_share(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    resources: str,
    says: str,
) -> None:
    monkeypatch.setattr("search.calibration.CALIBRATION_SECONDS", 0.01)
    words = [*OUT.split(), "--dry-run", "--set", f"resources={resources}"]
    assert main(words) == DONE
    assert f"packs       {says}\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("raised", "code", "says"),
    [
        (StudyInterrupted(), INTERRUPTED, f"{OUT} --seed 3 --resume\n"),
        (KeyboardInterrupt(), INTERRUPTED, f"{OUT} --seed 3\n"),
        (StudyFailedError("the first 3 trials failed"), FAULT, "the first 3 trials failed\n"),
    ],
)
def test_how_a_run_ends(
    raised: BaseException,
    code: int,
    says: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def ends(*_: Any, **__: Any) -> NoReturn:
        raise raised

    monkeypatch.setattr("search.driver.run_study", ends)
    assert main(f"{OUT} --seed 3".split()) == code
    captured = capsys.readouterr()
    assert captured.err.endswith(says)
    assert captured.out == ""


def test_what_the_command_line_hands_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    calls: list[tuple[Any, ...]] = []

    def note(spec: Any, output: Path, **options: Any) -> dict[str, Any]:
        calls.append((spec, output, options))
        return {"study": "tiny"}

    monkeypatch.setattr("search.driver.run_study", note)
    monkeypatch.setattr("search.summary.describe_summary", lambda summary, output: "in words")
    words = "--resume --trials +4 --time-budget +1h --max-concurrent 3 --address local --json"
    assert main(["tiny.yaml", *words.split(), "--tracking-uri", "sqlite:///x.db"]) == DONE
    _, output, options = calls.pop()
    assert output == Path("runs/tiny")
    hint = options.pop("hint")
    assert "+4" not in hint
    assert "+1h" not in hint
    assert options == {
        "resume": True,
        "address": "local",
        "without_token": False,
        "tracking_uri": "sqlite:///x.db",
        "max_concurrent": 3,
        "extra_trials": 4,
        "extra_seconds": 3600.0,
        "look_again": False,
    }
    captured = capsys.readouterr()
    assert json.loads(captured.out) == {"study": "tiny"}
    assert "in words" in captured.err


@pytest.mark.parametrize(
    ("words", "kept"),
    [
        ("s.yaml --size quick", "s.yaml --size quick --resume"),
        ("s.yaml --resume --json", "s.yaml --json --resume"),
        ("s.yaml --resume --trials +5", "s.yaml --resume"),
        ("s.yaml --time-budget=+5m --trials 9 --resume", "s.yaml --trials 9 --resume"),
        ("s.yaml --set a.low=+0.1", "s.yaml --set a.low=+0.1 --resume"),
    ],
)
def test_the_command_that_goes_on(words: str, kept: str) -> None:
    assert resume_command(words.split()).endswith(f" -m search.run {kept}")


def test_words_with_spaces_stay_whole() -> None:
    assert resume_command(["my space.yaml"]).endswith("'my space.yaml' --resume")


def test_yaml_of_the_tiny_study_is_sound(folder: Path) -> None:
    assert load_spec(folder / "tiny.yaml").study == "tiny"
    assert yaml.safe_load((folder / "tiny.yaml").read_text())["budget"]["trials"] == 5
    assert parser().prog == "python -m search.run"


def test_a_signal_waits_until_processes_are_started() -> None:
    seen = []

    def start() -> None:
        with signals_held_back():
            signal.raise_signal(signal.SIGINT)
            seen.append("started")
        seen.append("not reached")

    with pytest.raises(KeyboardInterrupt):
        start()
    assert seen == ["started"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_space_that_is_refused_is_so_without_waiting_for_imports(folder: Path) -> None:
    rewrite("scheduler:", "schedular:")(folder)
    code = (
        "import sys; from search.run import main; code = main(['tiny.yaml']); "
        "print(code, *sorted({'torch', 'ray', 'mlflow', 'optuna', 'scipy'} & {*sys.modules}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=folder, check=True
    )
    assert done.stdout == f"{USER_ERROR}\n"
    assert "schedular" in done.stderr
