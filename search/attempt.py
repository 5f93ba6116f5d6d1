"""An attempt at a run, as Tune knows it: where it is trained, and why it was lost."""

from pathlib import Path

import ray
from ray.exceptions import GetTimeoutError, RayError
from ray.tune.experiment import Trial

from search.arrivals import NOWHERE
from search.cause import NODE_LOST, Cause, cause_in
from search.lost_node import is_lost
from search.seat import Place


class PlaceOf:
    """Asks the actor of a trial that has just started where it trains: `arrivals.Question`."""

    def __init__(self, trial: Trial) -> None:
        self._asked = trial.temporary_state.ray_actor.place.remote()

    def answer(self, patience_seconds: float) -> Place | None:
        """Returns it; None where there is none yet, `NOWHERE` where the actor died."""
        try:
            place: Place = ray.get(self._asked, timeout=patience_seconds)
        except GetTimeoutError:
            return None
        except RayError:  # Tune is about to notice
            return NOWHERE
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
