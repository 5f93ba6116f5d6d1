"""A hostile space file is refused in a second, with its place and exit code 2."""

import subprocess
import sys
from pathlib import Path

import pytest

from search.command_line import USER_ERROR
from search.run import main
from search.yaml_limits import MAX_BYTES, MAX_DEPTH, MAX_VALUES

LAUGHS = "a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 10)
)
MERGES = "a0: &a0 {x: 1}\n" + "".join(
    f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}], k{n}: 1}}\n" for n in range(1, 10)
)
# What is refused, at which line, and a part of what is said.
HOSTILE = {
    "laughs": (LAUGHS, 5, f"at most {MAX_VALUES} values"),
    "merges": (MERGES, 6, f"at most {MAX_VALUES} values"),
    "wide": ("study: x\nspace: [" + "1," * MAX_VALUES + "1]", 2, f"at most {MAX_VALUES} values"),
    "deep": ("study: x\nspace: " + "[" * 100_000, 2, f"at most {MAX_DEPTH} deep"),
    "deep block": ("\n".join(" " * n + "a:" for n in range(500)), MAX_DEPTH + 1, "deep"),
    "long": ("study: x\n" + "# comment\n" * (MAX_BYTES // 10), 1, f"at most {MAX_BYTES} bytes"),
    "itself": ("study: x\nspace: &a [*a]\n", 2, "may not contain itself"),
    "object": ("study: x\nspace: !!python/object/apply:os.system ['touch MARK']\n", 2, "!!python"),
    "module": ("study: !!python/module:os x\n", 1, "the tag !!python/module:os is not read"),
    "own tag": ("study: !x y\n", 1, "the tag !x is not read"),
    "binary": ("study: !!binary aGVsbG8=\n", 1, "the tag !!binary is not read"),
    "garbage": ("study: x\n\x00\x01", None, "must be YAML"),
}


@pytest.mark.parametrize("kind", list(HOSTILE))
def test_it_is_refused_with_its_place(
    tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    text, line, words = HOSTILE[kind]
    space, mark = tmp_path / "space.yaml", tmp_path / "mark"
    space.write_text(text.replace("MARK", str(mark)))
    assert main([str(space), "--dry-run"]) == USER_ERROR
    said = capsys.readouterr().err
    place = f"{space}:{line}: " if line else f"{space}: "
    assert said.startswith(place), said
    assert words in said
    assert said.count("\n") == 1
    assert not mark.exists()


def test_a_file_without_end_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["/dev/zero", "--dry-run"]) == USER_ERROR
    assert capsys.readouterr().err.startswith("/dev/zero")


@pytest.mark.parametrize("value", ["!!python/name:os.system ", "[" * 1000, "!x 1"])
def test_a_value_on_the_command_line_is_refused_too(
    value: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["spaces/mnist.yaml", "--dry-run", "--set", f"budget.trials={value}"]) == 2
    assert capsys.readouterr().err.startswith("--set budget.trials=")


def test_the_command_ends_soon(tmp_path: Path) -> None:
    space = tmp_path / "space.yaml"
    space.write_text(LAUGHS)
    words = [sys.executable, "-m", "search.run", str(space)]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout) == (USER_ERROR, "")
    assert "Traceback" not in done.stderr
    assert done.stderr.startswith(f"{space}:5: ")
