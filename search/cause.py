"""Why an attempt at a run was lost."""

from typing import Literal, NamedTuple

CauseKind = Literal["preempted", "machine", "out_of_memory", "code"]


class Cause(NamedTuple):
    """Its kind decides whether there is another attempt; the text is for people."""

    kind: CauseKind
    text: str
