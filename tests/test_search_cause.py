"""Causes are found in what Ray and Tune really write."""

import errno
import os
import subprocess
import sys
import traceback
from pathlib import Path

import numpy as np
import pytest
import torch
from ray._private.utils import format_error_message
from ray.core.generated.common_pb2 import ActorDiedErrorContext, NodeDeathInfo
from ray.exceptions import (
    ActorDiedError,
    ActorUnavailableError,
    NodeDiedError,
    RayTaskError,
    WorkerCrashedError,
)

from search.cause import Cause, cause_in
from search.engine import EngineError
from search.engine_seat import EngineLostError
from search.events import Retried, Started
from search.journal import Journal
from search.seat import RunFaultError, told_in_words


def as_tune_writes(error: BaseException, before: str = "") -> str:
    return f"{before}Failure # 1 (occurred at 2026-11-22_19-26-20)\n{error}\n"


def task_error(error: Exception) -> RayTaskError:
    """What Ray makes of an exception that a trial's own process raises through our hooks."""
    try:
        with told_in_words():
            raise error
    except RunFaultError as told:
        return in_ray(told)


def in_ray(error: Exception) -> RayTaskError:
    """What Ray makes of any exception, as its workers do."""
    try:
        raise error
    except Exception as raised:
        text = format_error_message("".join(traceback.format_exception(raised)))
        return RayTaskError("StudyTrainable.train", text, raised, "ray::X", 1, "127.0.0.1")


def died(words: str, reason: int | None = None) -> ActorDiedError:
    info = None if reason is None else NodeDeathInfo(reason=reason)
    return ActorDiedError(
        ActorDiedErrorContext(
            error_message=words,
            class_name="StudyTrainable",
            actor_id=b"0" * 16,
            node_death_info=info,
        )
    )


def test_what_training_raises_is_code_and_keeps_its_words() -> None:
    for error in (task_error(RuntimeError("boom")), in_ray(RuntimeError("boom"))):
        assert cause_in(as_tune_writes(error)) == Cause("code", "RuntimeError: boom")
    several = ValueError('two lines:\n  File "x", line 3\nand one more')
    expected = Cause("code", 'ValueError: two lines: File "x", line 3 and one more')
    assert cause_in(as_tune_writes(task_error(several))) == expected


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.ESTALE])
def test_a_disk_that_takes_no_more_is_no_fault_of_the_code(code: int) -> None:
    error = OSError(code, os.strerror(code))
    found = cause_in(as_tune_writes(task_error(error)))
    assert found == Cause("storage", f"OSError: [Errno {code}] {os.strerror(code)}")


def test_arrow_says_a_full_disk_in_words_of_its_own() -> None:
    words = "[Errno 28] Error writing bytes to file. Detail: [errno 28] No space left on device"
    assert cause_in(as_tune_writes(task_error(OSError(words)))).kind == "storage"


def test_the_last_failure_counts() -> None:
    first = as_tune_writes(task_error(RuntimeError("first")))
    second = as_tune_writes(task_error(KeyError("second")), before=first)
    assert cause_in(second) == Cause("code", "KeyError: 'second'")


def allocation_errors() -> list[Exception]:
    found: list[Exception] = [MemoryError(), torch.OutOfMemoryError("CUDA out of memory. Tried")]
    for allocate in (lambda: torch.empty(2**60), lambda: np.empty(2**50)):
        try:
            allocate()
        except (RuntimeError, MemoryError) as error:
            found.append(error)
    return found


@pytest.mark.parametrize("error", allocation_errors(), ids=lambda error: type(error).__name__)
def test_a_failed_allocation_is_out_of_memory(error: Exception) -> None:
    for seen in (task_error(error), in_ray(error)):
        assert cause_in(as_tune_writes(seen)).kind == "out_of_memory"


@pytest.mark.parametrize(
    "error",
    [
        died(
            "The actor died because its node has died. Node Id: 4331\n\tthe actor's node was "
            "terminated expectedly: received SIGTERM"
        ),
        died("the actor's node was preempted: spot", NodeDeathInfo.AUTOSCALER_DRAIN_PREEMPTED),
        NodeDiedError(
            "Task failed because the node it was running on is dead or unavailable. Node IP: ..."
        ),
        ActorUnavailableError("RpcError: RPC error: Socket closed rpc_code: 14", b"0" * 16),
    ],
    ids=["terminated", "preempted", "node died", "unreachable"],
)
def test_a_lost_node_is_no_fault_of_the_trial(error: Exception) -> None:
    assert cause_in(as_tune_writes(error)) == Cause("preempted", "its node was lost")


@pytest.mark.parametrize(
    "error",
    [
        died(
            "The actor is dead because its worker process has died. Worker exit type: "
            "SYSTEM_ERROR Worker exit detail: Worker unexpectedly exits with a connection error "
            "code 2. End of file. Some common causes include: (1) the process was killed by the "
            "OOM killer due to high memory usage, (2) ray stop --force was called"
        ),
        ActorDiedError(),
        WorkerCrashedError(),
    ],
)
def test_a_process_that_died_is_not_out_of_memory_by_a_guess(error: Exception) -> None:
    assert cause_in(as_tune_writes(error)) == Cause("machine", "its process died")


@pytest.mark.parametrize(
    ("inner", "expected"),
    [
        (ImportError("no torch"), Cause("code", "ImportError: no torch")),
        (MemoryError("1 GiB"), Cause("out_of_memory", "MemoryError: 1 GiB")),
    ],
)
def test_a_process_that_could_not_start_says_why(inner: Exception, expected: Cause) -> None:
    text = as_tune_writes(ActorDiedError(task_error(inner)))
    assert cause_in(text) == Cause(expected.kind, f"its process could not start: {expected.text}")


def test_an_engine_that_broke_is_not_the_code_of_a_trial() -> None:
    for error in (
        EngineLostError("its engine died"),
        EngineLostError("its engine died, for its node ran low on memory"),
        EngineError("the engine is broken (OutOfMemoryError('CUDA out of memory'))"),
    ):
        assert cause_in(as_tune_writes(task_error(error))).kind == "machine"


def test_nothing_written_is_said_so() -> None:
    assert cause_in("") == Cause("machine", "unknown")


SHORT_OF_MEMORY = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
import closed_form
import ray
from ray import cloudpickle
from search.events import Retried, Started
from search.stop_request import StopRequest
from search.tuner import run_trials
cloudpickle.register_pickle_by_value(closed_form)
folder = Path(sys.argv[1])
spec = closed_form.study()
runs = closed_form.ClosedFormRuns(folder=folder, pace=10)
# Any use of memory is above the threshold: whatever works at the end of 20 seconds is killed.
tight = {"memory_usage_threshold": 0.001, "memory_monitor_refresh_ms": 20000}
ray.init("local", include_dashboard=False, log_to_driver=False, _system_config=tight)
stop = StopRequest()
at_work = False
def watch(event):
    global at_work
    if isinstance(event, Started):
        at_work = event.pid > 0  # else it was killed before it could say where it is
    if isinstance(event, Retried) and at_work:
        stop.ask("interrupted")
with closed_form.open_history(folder, spec) as history:
    history.listen(watch)
    run_trials(spec, history, runs, folder, max_concurrent=1, stop=stop)
"""


@pytest.mark.ray
@pytest.mark.slow
def test_rays_memory_monitor_costs_a_trial_and_not_the_study(tmp_path: Path) -> None:
    words = [sys.executable, "-c", SHORT_OF_MEMORY, str(tmp_path), str(Path(__file__).parent)]
    done = subprocess.run(words, timeout=150, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    events = list(Journal.read(tmp_path / "journal.jsonl"))
    causes = {event.cause for event in events if isinstance(event, Retried)}
    assert causes == {"its process was killed, for its node ran low on memory"}
    begun = [event.pid for event in events if isinstance(event, Started)]
    assert any(begun), events  # it was at work, and not only on its way
