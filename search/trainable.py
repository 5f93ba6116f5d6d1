"""What Tune runs in the actor of a trial: one trial after another, each on the actor's seat."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.result import SHOULD_CHECKPOINT

from search.seat import Place, Seat, told_in_words
from search.shared_storage import check_seen

# A result at least this often, so that Ctrl-C, the time budget and the screen react in seconds.
STEP_SECONDS = 2.0


class StudyTrainable(tune.Trainable):
    """Advances a trial in short steps and saves it whenever it was measured."""

    def setup(self, config: dict[str, Any], make_seat: Callable[[], Seat]) -> None:
        """Takes a seat; the first step opens the trial there."""
        with told_in_words():
            self._seat = make_seat()
        self._opened = False

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Makes room for the next trial in this process."""
        self.cleanup()
        return True

    def step(self) -> dict[str, Any]:
        """Trains for a few seconds or until a measurement."""
        with told_in_words():
            # Not in setup: Tune never retries a trial that fails while an actor is reset.
            if not self._opened:
                check_seen(Path(self.config["output"]))
                resume_from = self.config["resume_from"]
                self._open(Path(resume_from) if resume_from else None)
            progress = self._seat.step(STEP_SECONDS)
        # Tune's own "done" is not set: it would pass the scheduler by, which keeps the record.
        return {"progress": progress, SHOULD_CHECKPOINT: progress.metrics is not None}

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Writes the trial's state."""
        with told_in_words():
            if self._opened:
                self._seat.save(Path(checkpoint_dir))

    def cleanup(self) -> None:
        """Releases the trial."""
        self._opened = False
        self._seat.close()

    def place(self) -> Place:
        """Tells where the trial is trained."""
        return self._seat.place()

    def _open(self, folder: Path | None) -> None:
        self._seat.open(self.config, folder)
        self._opened = True
