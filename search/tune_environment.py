"""What Tune reads from the environment, where it has no argument for it."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ray.air.execution._internal import RayActorManager
from ray.exceptions import RayActorError, RayTaskError
from ray.tune.execution import class_cache

_SETTINGS = {
    # Else one actor is started after another; the searcher limits how many there are.
    "TUNE_MAX_PENDING_TRIALS_PG": "1000000",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # no CSV, JSON and TensorBoard copies of results
    "TUNE_GLOBAL_CHECKPOINT_S": "inf",  # no snapshots of Tune's own state: nothing restores it
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # signals are ours: search/stop_request.py
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",  # causes are in the journal, in one line
    "RAY_AIR_NEW_OUTPUT": "0",  # the old console is silent at verbose=0, the new one is not
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # relative paths in the environment keep their meaning
}


@contextmanager
def tune_environment() -> Iterator[None]:
    """Sets what Tune reads from the environment while it runs, and keeps its log quiet."""
    before = {name: os.environ.get(name) for name in _SETTINGS}
    log = logging.getLogger("ray.tune")
    level = log.level
    os.environ.update(_SETTINGS)
    log.setLevel(logging.CRITICAL)  # every failure is in the journal
    try:
        with _any_loss_is_an_actors(), _no_keys_among_arguments():
            yield
    finally:
        log.setLevel(level)
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextmanager
def _any_loss_is_an_actors() -> Iterator[None]:
    """Has Tune take whatever ends a trial's process for the death of its actor.

    By itself Tune ends the whole experiment where Ray's memory monitor has killed an actor, for an
    `OutOfMemoryError` is neither an actor's error nor a task's.
    """
    name = "_actor_task_failed"
    original = getattr(RayActorManager, name)

    def failed(manager: RayActorManager, tracked_actor_task: Any, exception: Exception) -> None:
        if not isinstance(exception, RayActorError | RayTaskError):
            exception = RayActorError(error_msg=str(exception))
        original(manager, tracked_actor_task, exception)

    setattr(RayActorManager, name, failed)
    try:
        yield
    finally:
        setattr(RayActorManager, name, original)


@contextmanager
def _no_keys_among_arguments() -> Iterator[None]:
    """Has Tune hand no AWS keys on to trials, which have no use for them.

    It would hand them on in each worker's arguments, where all users of a host can read them.
    """
    original = class_cache.ENV_VARS_TO_PROPAGATE
    class_cache.ENV_VARS_TO_PROPAGATE = {n for n in original if not n.startswith("AWS_")}
    try:
        yield
    finally:
        class_cache.ENV_VARS_TO_PROPAGATE = original
