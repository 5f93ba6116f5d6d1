"""Trials that fail one after another: the machine is broken or the study, not the trials."""

from collections import Counter

FIRST = 3  # with nothing measured yet in this session
LATER = 5  # on one machine
UNKNOWN = "unknown"  # of an attempt that died before it could say where it was


class StudyFailedError(RuntimeError):
    """Trials fail one after another, so that to go on would only use up the study."""


class FailureStreak:
    """Counts trials that ended FAILED on each machine since something was measured there."""

    def __init__(self) -> None:
        self._failed: Counter[str] = Counter()
        self._measured = False

    def measured(self, node: str | None) -> None:
        """A trial was measured on a machine: that is well."""
        self._measured = True
        self._failed[node or UNKNOWN] = self._failed[UNKNOWN] = 0

    def failed(self, node: str | None, cause: str) -> None:
        """A trial has ended FAILED, on a machine at last.

        Raises:
            StudyFailedError: So many have that the next ones would too.
        """
        self._failed[node or UNKNOWN] += 1
        if not self._measured and self._failed.total() >= FIRST:
            raise StudyFailedError(
                f"the first {FIRST} trials failed before any measurement, the last one by {cause}"
            )
        if self._failed[node or UNKNOWN] >= LATER:
            raise StudyFailedError(
                f"{LATER} trials failed one after another on machine {node or UNKNOWN} with "
                f"nothing measured there in between, the last one by {cause}; mend that machine "
                "or take it away, then resume"
            )
