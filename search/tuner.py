"""Runs the trials of a study in Ray Tune, which is never asked to restore: the journal is."""

import functools
import math
import shutil
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.experiment import Trial
from ray.tune.result import SHOULD_CHECKPOINT
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.stopper import Stopper

from search.attempt import cause_of, place_of
from search.cluster import TrialResources
from search.early_stopping import early_stopping
from search.engine_seat import engines
from search.history import History
from search.proposer import Proposer
from search.referee import OnProgress, Referee
from search.searcher import StudySearcher
from search.seat import OwnSeat, Seat
from search.stop_request import StopRequest
from search.study import StudySpec
from search.trainable import StudyTrainable
from search.trial_run import MakeLanes
from search.tune_environment import tune_environment

TUNE_FOLDER = "tune"
MAX_RETRIES = 2
# A trial that gives no result for so long after a stop was asked for is left to its last
# checkpoint.
PATIENCE_SECONDS = 30.0


class _Unsaved:
    """Nothing of these objects is pickled when Tune writes down its arguments for a restore."""

    def __getstate__(self) -> dict[str, Any]:
        return {}


class _Scheduler(_Unsaved, FIFOScheduler):
    """Asks the referee at every result."""

    def __init__(self, referee: Referee) -> None:
        super().__init__()
        self._referee = referee

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        stops = self._referee.progressed(trial.config["number"], result["progress"])
        return str(TrialScheduler.STOP if stops else TrialScheduler.CONTINUE)


class _Stopper(_Unsaved, Stopper):
    """Ends the experiment once a stop is wanted and no trial is left that could still save."""

    def __init__(self, referee: Referee) -> None:
        self._referee = referee
        self._since = math.inf

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        if not self._referee.stopping:
            return False
        self._since = min(self._since, time.monotonic())
        waited = time.monotonic() - self._since
        return not self._referee.running or waited > PATIENCE_SECONDS


class _Recorder(_Unsaved, tune.Callback):
    """Tells the referee what else happens to trials, and deletes checkpoints nobody needs."""

    def __init__(self, referee: Referee, output: Path, pack: int) -> None:
        self._referee = referee
        self._output = output
        self._pack = pack

    def on_trial_start(self, *, trial: Trial, **_: Any) -> None:
        restored = trial.has_checkpoint() or trial.config["resume_from"] is not None
        self._referee.started(
            trial.config["number"],
            place_of(trial),
            pack=self._pack,
            restored=restored,
            threads=trial.config["threads"],
        )

    def on_trial_result(self, *, trial: Trial, result: dict[str, Any], **_: Any) -> None:
        # Tune's order is scheduler, searcher, callbacks, save: a save can still be asked for.
        if self._referee.may_be_resumed(trial.config["number"]):
            result[SHOULD_CHECKPOINT] = True

    def on_checkpoint(self, *, trial: Trial, checkpoint: tune.Checkpoint, **_: Any) -> None:
        number, folder = trial.config["number"], Path(checkpoint.path)
        kimg = trial.last_result["progress"].kimg
        self._referee.checkpointed(number, kimg, folder.relative_to(self._output))
        self._keep_newest(number, 2)

    def on_trial_recover(self, *, trial: Trial, **_: Any) -> None:
        self._referee.retried(trial.config["number"], cause_of(trial))

    def on_trial_error(self, *, trial: Trial, **_: Any) -> None:
        self._referee.failed(trial.config["number"], cause_of(trial))

    def on_trial_complete(self, *, trial: Trial, **_: Any) -> None:
        number = trial.config["number"]
        self._referee.finished(number)
        self._keep_newest(number, 1)

    def _keep_newest(self, number: int, count: int) -> None:
        # Tune's own num_to_keep would write its experiment state at every second checkpoint.
        pattern = f"{number:05d}-*/checkpoint_*"
        folders = sorted((self._output / TUNE_FOLDER).glob(pattern))
        recorded = self._referee.checkpoint_of(number)
        for folder in folders[:-count]:
            if recorded is None or folder != self._output / recorded:
                shutil.rmtree(folder, ignore_errors=True)


def run_trials(
    spec: StudySpec,
    history: History,
    make_lanes: MakeLanes,
    output: Path,
    *,
    max_concurrent: int,
    stop: StopRequest,
    resources: TrialResources = TrialResources(),  # noqa: B008 - immutable
    on_progress: OnProgress | None = None,
) -> None:
    """Runs every trial that the study still wants, until none is left or a stop is asked for.

    On return every trial has its final state, unless the stop's reason is `interrupted`.

    Args:
        spec: the study.
        history: its record, opened for this session.
        make_lanes: makes what trains on a worker; pickled once.
        output: the study's folder, seen by all nodes.
        max_concurrent: trials at a time.
        stop: asked for by a signal or by the clock.
        resources: what a trial is given here.
        on_progress: hears of every result, on this thread.

    Raises:
        Exception: whatever kept the record from being written.
    """
    output = output.resolve()
    referee = Referee(history, stop, early_stopping(spec, output), on_progress)
    searcher = StudySearcher(
        Proposer(spec),
        history,
        output,
        max_concurrent=max_concurrent,
        threads=spec.resources.threads,
        stop=stop,
    )
    with tune_environment(max_concurrent), _seats(make_lanes, resources) as make_seat:
        tune.Tuner(
            _trainable(make_seat, resources),
            tune_config=tune.TuneConfig(
                search_alg=searcher,
                scheduler=_Scheduler(referee),
                num_samples=-1,  # the searcher says when it has finished
                reuse_actors=True,
                trial_dirname_creator=lambda trial: str(trial.config["folder"]),
            ),
            run_config=tune.RunConfig(
                name=TUNE_FOLDER,
                storage_path=str(output),
                callbacks=[_Recorder(referee, output, resources.pack)],
                stop=_Stopper(referee),
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),  # as we ask for
                failure_config=tune.FailureConfig(max_failures=MAX_RETRIES),
                verbose=0,
            ),
        ).fit()
    _settle(referee, history, stop)


def _seats(
    make: MakeLanes, resources: TrialResources
) -> AbstractContextManager[Callable[[], Seat]]:
    if resources.pack > 1:
        return engines(make, resources.pack)
    device = "cuda:0" if resources.gpus else "cpu"  # the first that Ray lets the trial see
    return nullcontext(functools.partial(OwnSeat, make, device))


def _trainable(make_seat: Callable[[], Seat], resources: TrialResources) -> type[tune.Trainable]:
    with_seat = tune.with_parameters(StudyTrainable, make_seat=make_seat)
    trainable: type[tune.Trainable] = tune.with_resources(
        with_seat, tune.PlacementGroupFactory([resources.bundle])
    )
    return trainable


def _settle(referee: Referee, history: History, stop: StopRequest) -> None:
    if stop.reason == "time_budget":
        referee.close_unfinished()
    if referee.fault is not None:
        raise referee.fault
    if stop.reason is None and history.ledger.unfinished():
        lost = [trial.number for trial in history.ledger.unfinished()]
        raise RuntimeError(f"Tune ended without a word on trials {lost}")
