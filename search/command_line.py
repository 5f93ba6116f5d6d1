"""What the commands have in common: their exit codes, and complaints of one line."""

import argparse
from typing import NoReturn

DONE, FAULT, USER_ERROR, INTERRUPTED = 0, 1, 2, 130


class Parser(argparse.ArgumentParser):
    """A parser whose complaints are one line."""

    def error(self, message: str) -> NoReturn:
        """Ends the command."""
        self.exit(USER_ERROR, f"{self.prog}: {message} (--help lists the options)\n")


def extra_trials(text: str) -> int:
    """Returns the number of trials that `--trials +N` adds.

    Raises:
        ValueError: The text is not such.
    """
    digits = text.removeprefix("+")
    if digits == text or not digits.isdecimal() or int(digits) < 1:
        raise ValueError(f"must be a whole number above zero such as +20, but got {text!r}")
    return int(digits)
