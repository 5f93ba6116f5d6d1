"""An attempt at a trial, as Tune knows it: where it runs, and why it was lost."""

import pickle
from pathlib import Path

import ray
from ray.exceptions import RayError, RayTaskError
from ray.tune.experiment import Trial

from search.cause import Cause
from search.seat import Place, RunFaultError

PATIENCE_SECONDS = 30.0  # all of Tune waits for it


def place_of(trial: Trial) -> Place:
    """Returns where a trial that has just started is trained."""
    try:
        asked = trial.temporary_state.ray_actor.place.remote()
        place: Place = ray.get(asked, timeout=PATIENCE_SECONDS)
    except RayError:  # died at once, or does not answer: Tune is about to notice
        return Place(node="unknown", device="unknown", pid=0)
    return place


def cause_of(trial: Trial) -> Cause:
    """Returns why it was lost, in one line; Tune's hooks are not given the error itself."""
    try:
        error = pickle.loads(Path(trial.pickled_error_file).read_bytes())
    except Exception as unreadable:  # none was written, or its class cannot be found here
        return Cause("machine", f"unknown ({type(unreadable).__name__})")
    if isinstance(error, RayTaskError):
        if isinstance(error.cause, RunFaultError):
            return Cause("code", str(error.cause))
        return Cause("code", f"{type(error.cause).__name__}: {error.cause}")
    if getattr(error, "actor_init_failed", False):
        last = str(error).strip().splitlines()[-1]
        return Cause("code", f"its process could not start: {last}")
    return Cause("machine", f"its process died ({type(error).__name__})")
