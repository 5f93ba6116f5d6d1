"""What the commands have in common: their exit codes, and complaints of one line."""

import argparse
from typing import NoReturn

DONE, FAULT, USER_ERROR, INTERRUPTED = 0, 1, 2, 130


class Parser(argparse.ArgumentParser):
    """A parser whose complaints are one line."""

    def error(self, message: str) -> NoReturn:
        """Ends the command."""
        self.exit(USER_ERROR, f"{self.prog}: {message} (--help lists the options)\n")
