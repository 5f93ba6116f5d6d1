"""The end of a study: its winner, one look at the test set, `summary.json` and `best/`."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from cgan_core.config import GANConfig
from cgan_core.data import DataSplits
from cgan_core.evaluation import Evaluator
from cgan_core.model import BEST_FOLDER, Model
from cgan_core.pictures import class_grid, save_grid, to_bytes
from cgan_core.stopping import BestState
from search.checkpoints import checkpoint_folder
from search.confirming import confirmed, confirmed_entry
from search.events import LookedAtTest, RunKey
from search.history import History
from search.ledger import Ledger
from search.lines import Lines
from search.look import test_scores
from search.notices import notices_of
from search.pareto import front_of, values_of
from search.record import write_json_atomic
from search.run_state import RunState
from search.shadow import FalseKills
from search.study import StudySpec
from search.summary import SUMMARY_NAME
from search.trial import TrialState


def winner_of(spec: StudySpec, ledger: Ledger, lines: Lines) -> TrialState | None:
    """Returns the trial that confirmation ranks first, else the best; None where none may win.

    The first objective decides. Where there are more, the best is the one of the Pareto front
    that is best by the first. Who diverged on a fresh seed is out: then the next in rank wins, if
    unconfirmed (`search.notices`).
    """
    confirmation = confirmed(spec, ledger)
    if confirmation is not None and confirmation.winner is not None:
        return ledger.trials[confirmation.winner.number]
    objective = spec.objective
    ranking = ledger.ranking(
        objective.metric, objective.direction, lines.untrained, objective.bounds
    )
    if objective.also:
        front = front_of(ledger, objective, lines.untrained)
        others = (trial for trial in ranking if values_of(trial, objective) is not None)
        ranking = [*(ledger.trials[one.number] for one in front), *others]
    return next((trial for trial in ranking if not trial.refuted), None)


def trial_flags(spec: StudySpec, ledger: Ledger, lines: Lines) -> dict[int, tuple[str, ...]]:
    """Returns the flags of every trial that has any."""
    found = {number: lines.flags_of(spec, trial) for number, trial in ledger.trials.items()}
    return {number: flags for number, flags in found.items() if flags}


class Closing:
    """Scores the winner on the test set, once, and writes what the study comes to.

    Args:
        spec: the study.
        history: its record.
        evaluator: the study's data and protocol.
        lines: validation lines.
        say: prints one line to the user.
    """

    def __init__(
        self,
        spec: StudySpec,
        history: History,
        evaluator: Evaluator,
        lines: Lines,
        say: Callable[[str], None],
    ) -> None:
        self._spec, self._history, self._evaluator = spec, history, evaluator
        self._lines, self._output, self._say = lines, history.folder, say
        self._ledger = history.ledger

    def write(
        self, run_ids: Mapping[int | RunKey, str], tracking_uri: str, *, look_again: bool = False
    ) -> dict[str, Any]:
        """Writes `best/` and `summary.json`, and returns the latter.

        Args:
            run_ids: the tracking run of each trial number that has one.
            tracking_uri: where they are.
            look_again: whether another winner than the one that was scored on the test set is
                scored there too.
        """
        winner = winner_of(self._spec, self._ledger, self._lines)
        seen: Mapping[str, Any] | None = None
        if winner is not None:
            runs = left_models(self._spec, winner)
            models = [self._model_of(run) for run in runs]
            seen = self._seen(winner, runs, models, look_again=look_again)
            self._write_best(models[0])
        notices = notices_of(self._spec, self._ledger, winner, scored=seen is not None)
        for notice in notices:
            self._say(f"NOTE: {notice}")
        summary = {
            **self._identity(tracking_uri),
            "best": None if winner is None else self._best_entry(winner, run_ids),
            "pareto_front": self._front(),
            "confirmed": confirmed_entry(self._spec, self._ledger),
            "shadow": self._shadow_entry(),
            "test": None if seen is None else seen["test"],
            "references": None if seen is None else seen["references"],
            "test_looks": len(self._ledger.looks),
            "notices": notices,
        }
        write_json_atomic(self._output / SUMMARY_NAME, summary)
        return summary

    def _shadow_entry(self) -> dict[str, Any] | None:
        if not self._spec.scheduler.shadow:
            return None
        return FalseKills.of(self._spec, self._ledger, self._lines.untrained).to_mapping()

    def _seen(
        self,
        winner: TrialState,
        runs: Sequence[RunState],
        models: Sequence[Model],
        *,
        look_again: bool,
    ) -> Mapping[str, Any] | None:
        """What the test set said of the winner's models; looked at now, if that may be."""
        replicates = tuple(run.replicate for run in runs)
        for look in self._ledger.looks:
            if (look.number, look.replicates) == (winner.number, replicates):
                return look.scores
        if self._ledger.looks and not look_again:
            return None
        self._say("scoring the winner on the test set")
        look = LookedAtTest(
            number=winner.number,
            replicates=replicates,
            again=bool(self._ledger.looks),
            scores=test_scores(self._evaluator, models),
        )
        self._history.append(look)
        return look.scores

    def _model_of(self, run: RunState) -> Model:
        metric, direction = self._spec.objective.metric, self._spec.objective.direction
        best = run.best(metric, direction)
        assert run.checkpoint is not None
        assert best is not None
        folder = checkpoint_folder(self._output, run.checkpoint.path)
        state = BestState.load(folder)
        if state.parameters is None or state.kimg != best.kimg:
            raise RuntimeError(
                f"{folder}: must hold the generator at {best.kimg:g} kimg, the best of trial "
                f"{run.number}, but holds that at {state.kimg:g} kimg"
            )
        provenance = {
            "study": self._spec.study,
            "trial": run.number,
            "replicate": run.replicate,
            "kimg": state.kimg,
            "dataset": self._dataset(),
        }
        config: GANConfig = self._spec.gan_config(self._ledger.trials[run.number].params)
        examples = self._evaluator.examples
        kind, shape = examples.kind_for(config), examples.image_shape
        standard = examples.standardization_for(config)
        return Model.of(config, shape, kind, state.parameters, provenance, standard)

    def _write_best(self, model: Model) -> None:
        folder = self._output / BEST_FOLDER
        vectors = self._evaluator.examples.grid_vectors()
        grid = class_grid(model.generator, model.config, model.condition, vectors)
        save_grid(to_bytes(grid, model.image_shape), folder / "samples.png")
        model.save(folder)

    def _identity(self, tracking_uri: str) -> dict[str, Any]:
        counts = self._ledger.count_by_state()
        return {
            "study": self._spec.study,
            "size": self._spec.size,
            "trials": {state.lower(): n for state, n in counts.items() if state != "RUNNING"},
            "stages": self._ledger.count_by_stage(),
            "constraints": list(self._spec.objective.constraints),
            "measurements": sum(len(t.measurements) for t in self._ledger.trials.values()),
            "sessions": len(self._ledger.sessions),
            "elapsed_seconds": self._ledger.spent_seconds,
            "tracking_uri": tracking_uri,
            "dataset": self._dataset(),
            "protocol_digest": self._evaluator.protocol.digest,
        }

    def _dataset(self) -> dict[str, Any]:
        splits: DataSplits = self._evaluator.splits
        return {
            "name": splits.name,
            "digest": splits.digest,
            "subset": splits.subset,
            "source": splits.source,
        }

    def _front(self) -> list[dict[str, Any]] | None:
        objective = self._spec.objective
        if not objective.also:
            return None
        front = front_of(self._ledger, objective, self._lines.untrained)
        return [{"number": one.number, "values": dict(one.values)} for one in front]

    def _best_entry(
        self, winner: TrialState, run_ids: Mapping[int | RunKey, str]
    ) -> dict[str, Any]:
        scored = winner.objective(self._spec.objective.metric, self._spec.objective.direction)
        assert scored is not None
        return {
            "number": winner.number,
            "stage": winner.stage,
            "params": winner.params,
            "metric": self._spec.objective.metric,
            "objective": scored.value,
            "standard_error": scored.standard_error,
            "standard_errors": {
                "points": scored.points_error,
                "redraw": scored.redraw_error,
                "replicates": scored.replicates_error,
            },
            "replicates": scored.replicates,
            "kimg": scored.kimg,
            "metrics": scored.metrics,
            "run_id": run_ids.get(winner.number),
            "flags": list(self._lines.flags_of(self._spec, winner)),
        }


def left_models(spec: StudySpec, winner: TrialState) -> list[RunState]:
    """The runs whose generators a winner leaves, that of `best/` first.

    Those that confirmed it, in their order: none of them was chosen for its luck. Without them
    the best run of the search.
    """
    fresh = [run for run in winner.confirmations if run.state == "COMPLETED"]
    if fresh:
        return fresh
    metric, direction = spec.objective.metric, spec.objective.direction
    sign = 1.0 if direction == "maximize" else -1.0

    def merit(run: RunState) -> float:
        best = run.best(metric, direction)
        return -math.inf if best is None else sign * best.metrics[metric]

    return [max(winner.search_runs, key=merit)]
