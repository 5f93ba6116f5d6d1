"""Runs the trials of a study in Ray Tune, which is never asked to restore: the journal is."""

import functools
import math
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.experiment import Trial
from ray.tune.result import SHOULD_CHECKPOINT
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.stopper import Stopper

from search.arrivals import Arrivals
from search.attempt import PlaceOf, cause_of
from search.checkpoints import TUNE_FOLDER, keep_newest, make_durable
from search.early_stopping import early_stopping
from search.engine_seat import engines
from search.events import Purpose, RunKey
from search.history import History
from search.proposer import Proposer
from search.ray_lost import RayWatch
from search.referee import OnProgress, Referee
from search.room import TrialResources
from search.run_queue import RunQueue
from search.searcher import StudySearcher
from search.seat import OwnSeat, Seat
from search.seen_trial import SeenTrial
from search.steering import Steering
from search.stop_request import StopRequest
from search.study import StudySpec
from search.trainable import StudyTrainable
from search.trial_run import MakeLanes
from search.tune_environment import tune_environment

# A trial that gives no result for so long after a stop was asked for is left to its last
# checkpoint.
PATIENCE_SECONDS = 30.0
# At least so often is a trial saved, also where measurements are far apart: a machine may vanish.
SAVE_SECONDS = 300.0


def _key(trial: Trial) -> RunKey:
    return RunKey(trial.config["number"], trial.config["replicate"])


class _Unsaved:
    """Nothing of these objects is pickled when Tune writes down its arguments for a restore."""

    def __getstate__(self) -> dict[str, Any]:
        return {}


class _Scheduler(_Unsaved, FIFOScheduler):
    """Asks the referee at every result."""

    def __init__(self, referee: Referee, arrivals: Arrivals) -> None:
        super().__init__()
        self._referee, self._arrivals = referee, arrivals

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        self._arrivals.settle(_key(trial))
        stops = self._referee.progressed(_key(trial), result["progress"])
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

    def __init__(self, referee: Referee, output: Path, arrivals: Arrivals) -> None:
        self._referee = referee
        self._output = output
        self._arrivals = arrivals
        self._saved: dict[RunKey, float] = {}

    def on_trial_start(self, *, trial: Trial, **_: Any) -> None:
        key = _key(trial)
        self._saved[key] = time.monotonic()
        self._arrivals.expect(key, PlaceOf(trial), trial.config)

    def on_trial_result(self, *, trial: Trial, result: dict[str, Any], **_: Any) -> None:
        # Tune's order is scheduler, searcher, callbacks, save: a save can still be asked for.
        key = _key(trial)
        late = time.monotonic() - self._saved[key] > SAVE_SECONDS
        if late or self._referee.may_be_resumed(key):
            result[SHOULD_CHECKPOINT] = True

    def on_checkpoint(self, *, trial: Trial, checkpoint: tune.Checkpoint, **_: Any) -> None:
        key, folder = _key(trial), Path(checkpoint.path)
        self._referee.guard(lambda: make_durable(folder))  # the journal is about to promise it
        kimg = trial.last_result["progress"].kimg
        self._saved[key] = time.monotonic()
        self._referee.checkpointed(key, kimg, folder.relative_to(self._output))
        self._keep_newest(key, 2)

    def on_trial_error(self, *, trial: Trial, **_: Any) -> None:
        # Of Tune's trial, not of the run: the record says whether that gets another one.
        key = _key(trial)
        self._arrivals.settle(key)
        self._referee.lost(key, cause_of(trial, self._referee.host_of(key)))

    def on_trial_complete(self, *, trial: Trial, **_: Any) -> None:
        key = _key(trial)
        self._arrivals.settle(key)
        self._referee.finished(key)
        self._keep_newest(key, 1)

    def _keep_newest(self, key: RunKey, count: int) -> None:
        # Tune's own num_to_keep would write its experiment state at every second checkpoint.
        keep_newest(self._output, key, count, self._referee.needed_checkpoints(key))


class _Steward(_Unsaved, tune.Callback):
    """Gives what has to be seen to all the time its turn at each step of Tune.

    Args:
        referee: keeps the fault of one that raises, which ends the study.
        turns: called one after another.
    """

    def __init__(self, referee: Referee, *turns: Callable[[], None]) -> None:
        self._referee = referee
        self._turns = turns

    def on_step_begin(self, **_: Any) -> None:
        for turn in self._turns:
            self._referee.guard(turn)


def run_trials(
    spec: StudySpec,
    history: History,
    make_lanes: MakeLanes,
    output: Path,
    *,
    max_concurrent: int | Callable[[], int],
    stop: StopRequest,
    resources: TrialResources = TrialResources(),  # noqa: B008 - immutable
    on_progress: OnProgress | None = None,
    on_turn: Callable[[], None] | None = None,
    purpose: Purpose = "search",
    earlier: Sequence[SeenTrial] = (),
) -> None:
    """Runs every trial that the study still wants, until none is left or a stop is asked for.

    On return every run of this purpose has its final state, unless the stop's reason is
    `interrupted`. Only those of the search are stopped early, and only it proposes.

    Args:
        spec: the study.
        history: its record, opened for this session.
        make_lanes: makes what trains on a worker; pickled once.
        output: the study's folder, seen by all nodes.
        max_concurrent: trials at a time, or what tells how many fit now.
        stop: asked for by a signal or by the clock.
        resources: what a trial is given here.
        on_progress: hears of every result, on this thread.
        on_turn: called at each step of Tune, many times a second.
        purpose: of the runs.
        earlier: trials of earlier studies that models are told of.

    Raises:
        Exception: whatever kept the record from being written.
    """
    output = output.resolve()
    proposer = Proposer(spec, earlier) if purpose == "search" else None
    stopping = early_stopping(spec, output) if purpose == "search" else None
    queue = RunQueue(purpose, None if stopping is None else stopping.waiting)
    referee = Referee(history, stop, queue, stopping, on_progress, proposer)
    referee.settle(spec.budget.kimg_per_trial)
    searcher = StudySearcher(
        proposer,
        history,
        queue,
        output,
        max_concurrent=max_concurrent,
        threads=spec.resources.threads,
        stop=stop,
    )
    arrivals = Arrivals(referee, resources.pack)
    turns = [RayWatch().check, arrivals.look, *([on_turn] if on_turn else [])]
    if purpose == "search":
        turns.append(Steering(spec, history, stop, referee.end_stopped).turn)
    with tune_environment(), _seats(make_lanes, resources) as make_seat:
        tune.Tuner(
            _trainable(make_seat, resources),
            tune_config=_tune_config(searcher, _Scheduler(referee, arrivals)),
            run_config=tune.RunConfig(
                name=TUNE_FOLDER,
                storage_path=str(output),
                callbacks=[_Recorder(referee, output, arrivals), _Steward(referee, *turns)],
                stop=_Stopper(referee),
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),  # as we ask for
                failure_config=tune.FailureConfig(max_failures=0),  # `Referee.lost` decides
                verbose=0,
            ),
        ).fit()
    _settle(referee, history, stop, purpose)


def _tune_config(searcher: StudySearcher, scheduler: _Scheduler) -> tune.TuneConfig:
    return tune.TuneConfig(
        search_alg=searcher,
        scheduler=scheduler,
        num_samples=-1,  # the searcher says when it has finished
        reuse_actors=True,
        trial_dirname_creator=lambda trial: str(trial.config["folder"]),
    )


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


def _settle(referee: Referee, history: History, stop: StopRequest, purpose: Purpose) -> None:
    if stop.reason is None:
        referee.close_waiting()
    elif stop.reason == "time_budget":
        referee.close_unfinished(purpose, "time_budget")
    if referee.fault is not None:
        raise referee.fault
    if stop.reason is None:
        lost = [tuple(run.key) for run in history.ledger.unfinished() if run.purpose == purpose]
        if lost:
            raise RuntimeError(f"Tune ended without a word on trials {lost}")
