"""Hands Tune the trials that a study still wants: first the unfinished, then new proposals."""

from pathlib import Path
from typing import Any

from ray.tune.search import Searcher

from search.history import History
from search.proposer import Proposer
from search.stop_request import StopRequest
from search.trial import TrialState


class StudySearcher(Searcher):
    """A `tune.Searcher` whose only memory is the study's record.

    Args:
        proposer: makes new configurations.
        history: the study's record; a proposal is in it before Tune sees it.
        output: the study's folder.
        max_concurrent: trials at a time. Kept here, not by Tune's `ConcurrencyLimiter`, so that
            no proposal is made before there is room for it: it would miss the latest results.
        threads: threads of a trial.
        stop: a wish that no more trials begin.
    """

    def __init__(
        self,
        proposer: Proposer,
        history: History,
        output: Path,
        *,
        max_concurrent: int,
        threads: int,
        stop: StopRequest,
    ) -> None:
        super().__init__()
        self._proposer = proposer
        self._history = history
        self._output = output
        self._max_concurrent = max_concurrent
        self._threads = threads
        self._stop = stop
        self._waiting = history.ledger.unfinished()

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """Returns the next trial, None where there is no room yet, FINISHED at the end."""
        if self._stop.reason is not None:
            return str(Searcher.FINISHED)
        running = len(self._history.ledger.unfinished()) - len(self._waiting)
        if running >= self._max_concurrent:
            return None
        trial = self._waiting.pop(0) if self._waiting else self._new()
        return str(Searcher.FINISHED) if trial is None else self._config(trial)

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Does nothing: the referee has recorded the end."""

    def save(self, checkpoint_path: str) -> None:
        """Does nothing: the journal is the only state, and Tune restores nothing."""

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def _new(self) -> TrialState | None:
        proposed = self._proposer.propose(self._history.ledger)
        if proposed is None:
            return None
        self._history.append(proposed)
        return self._history.ledger.trials[proposed.number]

    def _config(self, trial: TrialState) -> dict[str, Any]:
        saved = self._output / trial.checkpoint.path if trial.checkpoint else None
        return {
            "number": trial.number,
            "replicate": 0,
            "seed": trial.seed,
            "params": dict(trial.params),
            "threads": self._threads,
            "fold": None,
            "noise_draw": 0,
            "resume_from": str(saved) if saved and saved.is_dir() else None,
            # New for each session, or checkpoints would be written over the one to resume from.
            "folder": f"{trial.number:05d}-{trial.attempts:02d}",
        }
