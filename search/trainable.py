"""The only code of the platform that runs on a worker: one actor, one trial after another."""

import os
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.result import SHOULD_CHECKPOINT

from search.trial_run import MakeRun, TrialRun

# A result at least this often, so that Ctrl-C, the time budget and the screen react in seconds.
STEP_SECONDS = 2.0


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a trial runs."""

    node: str
    device: str
    pid: int


class StudyTrainable(tune.Trainable):
    """Advances a run in short steps and saves it whenever it was measured."""

    def setup(self, config: dict[str, Any], make_run: MakeRun) -> None:
        """Remembers how runs are made; the first step makes one."""
        self._make_run = make_run
        self._run: TrialRun | None = None

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Makes room for the next trial in this process."""
        self.cleanup()
        return True

    def step(self) -> dict[str, Any]:
        """Trains for a few seconds or until a measurement."""
        # Made here, not in setup: Tune never retries a trial that fails while an actor is reset.
        if self._run is None:
            resume_from = self.config["resume_from"]
            self._run = self._open(Path(resume_from) if resume_from else None)
        progress = self._run.advance(STEP_SECONDS)
        # Tune's own "done" is not set: it would pass the scheduler by, which keeps the record.
        return {"progress": progress, SHOULD_CHECKPOINT: progress.metrics is not None}

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Writes the run's state."""
        if self._run is not None:
            self._run.save(Path(checkpoint_dir))

    def load_checkpoint(self, checkpoint_dir: str) -> None:
        """Takes up the run's state after a fault."""
        self.cleanup()
        self._run = self._open(Path(checkpoint_dir))

    def cleanup(self) -> None:
        """Closes the run."""
        run, self._run = self._run, None
        if run is not None:
            run.close()

    def place(self) -> Place:
        """Tells where this process runs."""
        # Training is on the CPU, whatever device Ray has set aside for the trial.
        return Place(node=platform.node(), device="cpu", pid=os.getpid())

    def _open(self, folder: Path | None) -> TrialRun:
        run = self._make_run(self.config)
        if folder is not None:
            run.load(folder)
        return run
