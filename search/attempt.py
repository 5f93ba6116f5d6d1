"""An attempt at a trial, as Tune knows it: where it runs, and why it was lost."""

from pathlib import Path

import ray
from ray.exceptions import RayError
from ray.tune.experiment import Trial

from search.cause import NODE_LOST, Cause, cause_in
from search.lost_node import is_lost
from search.seat import Place

PATIENCE_SECONDS = 30.0  # all of Tune waits for it


def place_of(trial: Trial) -> Place:
    """Returns where a trial that has just started is trained."""
    try:
        asked = trial.temporary_state.ray_actor.place.remote()
        place: Place = ray.get(asked, timeout=PATIENCE_SECONDS)
    except RayError:  # died at once, or does not answer: Tune is about to notice
        return Place(node="unknown", device="unknown", pid=0)
    return place


def cause_of(trial: Trial, host: str | None) -> Cause:
    """Returns why it was lost; Tune's hooks are given no error, but it has written down the text.

    Tune writes the error itself too, by pickle, which nobody reads. The death of a machine is
    often seen first as that of a process there, so the machine `host` is looked at.
    """
    try:
        cause = cause_in(Path(trial.error_file).read_text(errors="replace"))
    except (OSError, TypeError) as unreadable:  # none was written
        cause = Cause("machine", f"unknown ({type(unreadable).__name__})")
    return NODE_LOST if cause.kind == "machine" and is_lost(host) else cause
