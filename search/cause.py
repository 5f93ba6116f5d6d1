"""Why an attempt at a run was lost, by the words of the error; nothing is unpickled."""

import re
from typing import Literal, NamedTuple

from search.secrets import redacted

CauseKind = Literal["preempted", "machine", "out_of_memory", "storage", "code"]

# How Ray 2.60 words what it tells of workers and nodes; tests compare with what it really says.
# The text on a worker that was killed names "the OOM killer" too, but as a guess.
_OUT_OF_MEMORY = re.compile(
    r"were killed due to the node running low on memory"
    r"|^(\w+\.)*\w*(MemoryError|OutOfMemoryError)\b"
    r"|CUDA out of memory|can't allocate memory|std::bad_alloc"
)
# What a full, stale or read-only file system says, by the words of the C library.
_NO_ROOM = re.compile(
    r"No space left on device|Disk quota exceeded|Read-only file system|Stale file handle"
)
_NODE_LOST = re.compile(
    r"^The actor \w+ is unavailable: "  # its node does not answer, and nobody knows more yet
    r"|because its node has died|the node it was running on is dead|actor's node was preempted"
)
_PROCESS_LOST = re.compile(
    r"^The actor died unexpectedly|^The actor is dead because|^The worker died unexpectedly"
)
_NOT_STARTED = "The actor died because of an error raised in its creation task, "
_SHARED = re.compile(r"^Engine(Lost)?Error\b")  # what a trial shares with others broke
_TOLD = re.compile(r"^search\.seat\.RunFaultError: (.*)$", re.MULTILINE)
_RAISED = re.compile(r"^(?!ray::|Traceback |The above |During handling )\S.*$", re.MULTILINE)
_FAILURE = re.compile(r"^Failure # \d+ \(occurred at [^)\n]*\)$", re.MULTILINE)


class Cause(NamedTuple):
    """Why an attempt was lost, in one line, and whose fault that is.

    `preempted`: its node died or was taken away. `machine`: its process died, or what it shares
    with other trials. `out_of_memory`: Ray's memory monitor killed it, or an allocation failed.
    `storage`: a disk takes no more. `code`: training raised.
    """

    kind: CauseKind
    text: str


NODE_LOST = Cause("preempted", "its node was lost")


def cause_in(errors: str) -> Cause:
    """Finds the cause in the text that Tune writes on the failures of a trial, the last one's."""
    text = redacted(_FAILURE.split(errors)[-1].strip())
    if text.startswith(_NOT_STARTED):
        inner = cause_in(text.removeprefix(_NOT_STARTED))
        return Cause(inner.kind, f"its process could not start: {inner.text}")
    if told := _TOLD.search(text):
        return _of_error(told[1])
    if _OUT_OF_MEMORY.search(text.partition("\n")[0]):
        return Cause("out_of_memory", "its process was killed, for its node ran low on memory")
    if _NODE_LOST.search(text):
        return NODE_LOST
    if _PROCESS_LOST.search(text):
        return Cause("machine", "its process died")
    return _of_error(_raised(text))


def _raised(text: str) -> str:
    """The lines of the exception at the end of a traceback, in one."""
    end = text.rpartition('\n  File "')[2].partition("\n")[2]
    found = _RAISED.search(end)
    return " ".join((end[found.start() :] if found else text).split())


def _of_error(line: str) -> Cause:
    if not line:
        return Cause("machine", "unknown")
    if _NO_ROOM.search(line):
        return Cause("storage", line)
    if _SHARED.search(line):  # be it for want of memory: nobody knows whose
        return Cause("machine", line)
    return Cause("out_of_memory" if _OUT_OF_MEMORY.search(line) else "code", line)
