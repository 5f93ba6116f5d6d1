"""What Tune reads from the environment, where it has no argument for it."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager

_SETTINGS = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # no CSV, JSON and TensorBoard copies of results
    "TUNE_GLOBAL_CHECKPOINT_S": "inf",  # no snapshots of Tune's own state: nothing restores it
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # signals are ours: search/stop_request.py
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",  # causes are in the journal, in one line
    "RAY_AIR_NEW_OUTPUT": "0",  # the old console is silent at verbose=0, the new one is not
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # relative paths in the environment keep their meaning
}


@contextmanager
def tune_environment(max_concurrent: int) -> Iterator[None]:
    """Sets what Tune reads from the environment while it runs, and keeps its log quiet."""
    # Else one actor is started after another; the searcher limits how many there are.
    wanted = {**_SETTINGS, "TUNE_MAX_PENDING_TRIALS_PG": str(max_concurrent)}
    before = {name: os.environ.get(name) for name in wanted}
    log = logging.getLogger("ray.tune")
    level = log.level
    os.environ.update(wanted)
    log.setLevel(logging.CRITICAL)  # every failure is in the journal
    try:
        yield
    finally:
        log.setLevel(level)
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
