"""What the commands have in common: their exit codes, and complaints of one line."""

import argparse
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

from search.secrets import has_secret

DONE, FAULT, USER_ERROR, INTERRUPTED = 0, 1, 2, 130


class Parser(argparse.ArgumentParser):
    """A parser whose complaints are one line."""

    def error(self, message: str) -> NoReturn:
        """Ends the command."""
        self.exit(USER_ERROR, f"{self.prog}: {message} (--help lists the options)\n")


def carry_out(
    command: Callable[[argparse.Namespace], int],
    parser: Parser,
    arguments: Sequence[str] | None,
    user_errors: tuple[type[Exception], ...],
) -> int:
    """Runs a command on what `parser` makes of `arguments`; returns its exit code.

    None stands for the words that Python was called with. An error that is not one of
    `user_errors` is a fault of ours. Ctrl-C ends a command that leaves nothing half done.
    """
    try:
        options = parser.parse_args(arguments)
    except SystemExit as end:
        return int(end.code or 0)
    try:
        return command(options)
    except user_errors as error:
        sys.stderr.write(f"{error}\n")
        return USER_ERROR
    except KeyboardInterrupt:
        return INTERRUPTED


def public_uri(text: str) -> str:
    """Takes a URI that every user of this host may see among a command's arguments.

    Raises:
        argparse.ArgumentTypeError: It holds a password; the message does not.
    """
    if has_secret(text):
        raise argparse.ArgumentTypeError(
            "must hold no password, for every user of this host can read a command's arguments; "
            "set MLFLOW_TRACKING_URI to it, or leave the password out and set "
            "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD or write ~/.mlflow/credentials"
        )
    return text


def extra_trials(text: str) -> int:
    """Returns the number of trials that `--trials +N` adds.

    Raises:
        ValueError: The text is not such.
    """
    digits = text.removeprefix("+")
    if digits == text and digits.isdecimal() and int(digits):
        raise ValueError(f"is added to the budget, so write +{text} for {text} trials more")
    if digits == text or not digits.isdecimal() or int(digits) < 1:
        raise ValueError(f"must be a whole number above zero such as +20, but got {text!r}")
    return int(digits)
