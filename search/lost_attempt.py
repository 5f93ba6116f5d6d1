"""What follows when an attempt at a run was lost: another one, or the end of the run."""

from collections.abc import Mapping
from typing import Any, get_args

from search.cause import Cause, CauseKind
from search.run_events import Ended
from search.run_state import RunState

# Retries of a run that gets no further. One that does may be lost as often as machines like.
MAX_FRUITLESS = 2
# The same where the machine was taken away: many are, but not always before the first save.
MAX_FRUITLESS_PREEMPTIONS = 9
# Times in a row that a run may want more memory than there is: the second is no accident, unless
# it got further in between, as where a neighbour took the memory.
MAX_OUT_OF_MEMORY = 2


def end_of(run: RunState, cause: Cause) -> Ended | None:
    """The end of a run that has just been lost, None where it is tried again.

    A loss is forgiven while the run gets further in between, so that a long training outlives
    machines that fail now and then, and one that always fails at the same place ends there. A
    machine that is taken away is not the run's failure.

    Args:
        run: As it is before the loss is recorded.
        cause: Why it was lost.
    """
    here = run.key._asdict()
    match cause.kind:
        case "preempted":
            if (times := run.fruitless["preempted"]) < MAX_FRUITLESS_PREEMPTIONS:
                return None
            reason = f"pre-empted {times + 1} times before it got any further: {cause.text}"
            return Ended(**here, state="FAILED", reason=reason)
        case "out_of_memory":
            if (times := run.fruitless["out_of_memory"] + 1) < MAX_OUT_OF_MEMORY:
                return None
            reason = f"out of memory {times} times before it got any further: {cause.text}"
            return Ended(**here, state="INFEASIBLE", reason=reason)
        case "storage":  # no run's fault: the study stops before it would end one (`full_disk`)
            return None
        case _:
            if run.fruitless["machine"] + run.fruitless["code"] < MAX_FRUITLESS:
                return None
            return Ended(**here, state="FAILED", reason=cause.text)


def full_disk(run: RunState, cause: Cause) -> str | None:
    """Why the study must stop: the next runs would find the disk as full. None where it may go on.

    Args:
        run: As it is before the loss is recorded.
        cause: Why it was lost.
    """
    if cause.kind != "storage" or run.fruitless["storage"] < MAX_FRUITLESS:
        return None
    return (
        f"run {run.number}-{run.replicate} could not be saved {MAX_FRUITLESS + 1} times, the last "
        f"time on machine {run.node or 'unknown'}: {cause.text}; make room in the output folder, "
        "or on that machine, and resume"
    )


def by_cause(losses: Mapping[CauseKind, int]) -> dict[str, Any]:
    """Names how many retries each cause had, as the record and MLflow have it."""
    return {f"retries_{kind}": losses.get(kind, 0) for kind in get_args(CauseKind)}
