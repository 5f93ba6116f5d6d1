"""The words of `python -m search.run`: what they mean, and the command that goes on from them."""

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from search.command_line import Parser, extra_trials, public_uri
from search.study import SpecError, parse_duration


def parser() -> Parser:
    """Creates the parser of the command line."""
    made = Parser(
        prog="python -m search.run",
        allow_abbrev=False,  # `resume_command` knows flags by their whole names
        description="Search the hyperparameters of a conditional adversarial net.",
    )
    _add_study(made)
    _add_places(made)
    return made


def _add_study(p: Parser) -> None:
    """Adds what is searched, and how much of it."""
    p.add_argument("space", type=Path, metavar="SPACE.yaml", help="the search space")
    p.add_argument("--size", metavar="NAME", help="an overlay of the space, such as quick")
    p.add_argument(
        "--output",
        type=Path,
        metavar="DIR",
        help="default: [<storage>/]runs/<study>[-<size>]",
    )
    p.add_argument("--resume", action="store_true", help="go on with the study in the folder")
    p.add_argument(
        "--look-again",
        action="store_true",
        help="with --resume: score the winner on the test set though one was before; recorded",
    )
    p.add_argument("--dry-run", action="store_true", help="say plan and cost, then stop")
    p.add_argument("--trials", metavar="N", help="trials in all; with --resume, +N more")
    p.add_argument("--time-budget", metavar="15m", help="time in all; with --resume, +1h more")
    p.add_argument("--max-concurrent", type=int, metavar="N", help="trials at a time")
    p.add_argument("--seed", type=int, metavar="N", help="from which all others follow")
    p.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        dest="overrides",
        help="set a key of the space, such as budget.trials=12 (repeatable)",
    )


def _add_places(p: Parser) -> None:
    """Adds where it is run, recorded and told."""
    p.add_argument(
        "--address",
        default="auto",
        help="auto, local, or HOST:PORT: of a Ray cluster, or of its job server to submit to",
    )
    p.add_argument(
        "--without-token",
        action="store_true",
        help="use a Ray cluster that asks nobody for a token: whoever reaches it can run code",
    )
    p.add_argument(
        "--tracking-uri",
        type=public_uri,
        metavar="URI",
        help="MLflow; default: this host's services, else runs/mlflow.db",
    )
    p.add_argument(
        "--json",
        action="store_true",
        help="print summary.json (with --dry-run the study, all choices made) on standard output",
    )


def assignments(options: argparse.Namespace) -> list[tuple[str, str]]:
    """Returns the flags that stand for a key of the space, and what they set."""
    given = (
        ("--seed", "seed", options.seed),
        ("--trials", "budget.trials", options.trials),
        ("--time-budget", "budget.time", options.time_budget),
    )
    return [
        (f"{flag} {value}", f"{key}={value}")
        for flag, key, value in given
        if value is not None and not str(value).startswith("+")
    ]


def extension(options: argparse.Namespace) -> dict[str, Any]:
    """Returns what --trials +N and --time-budget +T add.

    Raises:
        SpecError: if they are not what they should be.
    """
    found: dict[str, Any] = {}
    if options.look_again and not options.resume:
        raise SpecError("--look-again: looks at the test set once more and needs --resume")
    for flag, name in (("trials", "extra_trials"), ("time_budget", "extra_seconds")):
        value = getattr(options, flag)
        if value is None or not value.startswith("+"):
            continue
        shown = f"--{flag.replace('_', '-')}"
        if not options.resume:
            raise SpecError(f"{shown}: {value} extends a study and needs --resume")
        try:
            found[name] = extra_trials(value) if flag == "trials" else parse_duration(value[1:])
        except ValueError as error:
            raise SpecError(f"{shown}: {error}") from None
    return found


_ONCE = ("--resume", "--look-again", "--dry-run")  # not repeated by a command that goes on


def resume_command(words: Sequence[str]) -> str:
    """Returns the command that goes on with the study that `words` started."""
    kept, skip = [], False
    for position, word in enumerate(words):
        following = words[position + 1] if position + 1 < len(words) else ""
        if skip:
            skip = False
        elif word in ("--trials", "--time-budget") and following.startswith("+"):
            skip = True
        elif word not in _ONCE and not word.startswith(("--trials=+", "--time-budget=+")):
            kept.append(word)
    return command([*kept, "--resume"])


def command(words: Sequence[str]) -> str:
    """Returns the command with these words, as it can be typed here."""
    python = Path(sys.executable)
    here = Path.cwd()
    shown = python.relative_to(here) if python.is_relative_to(here) else python
    return shlex.join([str(shown), "-m", "search.run", *words])
