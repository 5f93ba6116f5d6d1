"""Hands Tune the runs that a study still wants: first the unfinished, then new proposals."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ray.tune.search import Searcher

from search.checkpoints import checkpoint_folder, run_folder
from search.events import Checkpointed, Donor, Ended, RunKey
from search.history import History
from search.proposer import Proposer
from search.run_queue import RunQueue
from search.stop_request import StopRequest


class StudySearcher(Searcher):
    """A `tune.Searcher` whose only memory is the study's record, and which runs are on their way.

    Args:
        proposer: makes new configurations; None where only what was claimed is run.
        history: the study's record; a proposal is in it before Tune sees it.
        queue: the claimed runs that want a place.
        output: the study's folder.
        max_concurrent: runs at a time, or what tells how many fit now. Kept here, not by Tune's
            `ConcurrencyLimiter`, so that no proposal is made before there is room for it: it
            would miss the latest results.
        threads: threads of a run.
        stop: a wish that no more runs begin.
    """

    def __init__(
        self,
        proposer: Proposer | None,
        history: History,
        queue: RunQueue,
        output: Path,
        *,
        max_concurrent: int | Callable[[], int],
        threads: int,
        stop: StopRequest,
    ) -> None:
        super().__init__()
        self._proposer = proposer
        self._history = history
        self._queue = queue
        self._output = output
        self._max_concurrent = max_concurrent
        self._threads = threads
        self._stop = stop
        self._keys: dict[str, RunKey] = {}  # by Tune's ID of the trial
        self._used_up_at: int | None = None  # extra trials with which no proposal was left

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """Returns the next run, None where there is no room yet, FINISHED at the end.

        Tune never asks again after FINISHED, and asks nothing else while there is no trial and
        the answer is None: so while a run is on its way the answer is not the former, and while
        none is, not the latter.
        """
        if self._stop.reason is not None:
            return str(Searcher.FINISHED)
        if len(self._queue.handed) >= self._room():
            return None
        key = self._next()
        if key is None:
            return None if self._queue.handed else str(Searcher.FINISHED)
        self._queue.handed.add(key)
        self._keys[trial_id] = key
        return self._config(key)

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """The run has left its place; the referee records how."""
        self._queue.handed.discard(self._keys.pop(trial_id, RunKey(-1)))

    def save(self, checkpoint_path: str) -> None:
        """Does nothing: the journal is the only state, and Tune restores nothing."""

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def _room(self) -> int:
        most = self._max_concurrent
        return most if isinstance(most, int) else most()

    def _next(self) -> RunKey | None:
        """What a free place gets: a claimed run, one that waited, a new one, else any."""
        ledger, queue = self._history.ledger, self._queue
        return (
            queue.ready(ledger)
            or self._decided()
            or self._new()
            or queue.idle(ledger)
            or (None if queue.handed else self._decided(last=True))
        )

    def _decided(self, *, last: bool = False) -> RunKey | None:
        ledger = self._history.ledger
        while (decision := self._queue.decision(ledger, last=last)) is not None:
            self._history.append(decision)
            if not isinstance(decision, Ended):  # of a trial that waited no longer
                return self._queue.ready(ledger)
        return None

    def _new(self) -> RunKey | None:
        if self._proposer is None:
            return None
        ledger = self._history.ledger
        if self._used_up_at == ledger.extra_trials:
            return None
        proposed = self._proposer.propose(ledger)
        if proposed is None:
            self._used_up_at = ledger.extra_trials
            return None
        self._history.append(proposed)
        return RunKey(proposed.number)

    def _config(self, key: RunKey) -> dict[str, Any]:
        trial, run = self._history.ledger.trials[key.number], self._history.ledger.run(key)
        saved = self._folder(run.checkpoint)
        donor = self._folder(trial.donor) if run.inherited_kimg else None
        found = saved is not None and (saved.is_dir() or run.inherited_kimg > 0)
        return {
            "number": key.number,
            "replicate": key.replicate,
            "seed": run.seed,
            "fold": run.fold,
            "noise_draw": run.noise_draw,
            "params": dict(trial.params),
            "threads": self._threads,
            "output": str(self._output),
            "resume_from": str(saved) if found else None,
            "donor": str(donor) if donor else None,
            # New for each attempt, or checkpoints would be written over the one to resume from.
            "folder": f"{run_folder(key)}-{run.attempts:03d}",
        }

    def _folder(self, saved: Checkpointed | Donor | None) -> Path | None:
        return None if saved is None else checkpoint_folder(self._output, saved.path)
