"""The end of a study: its winner, one look at the test set, `summary.json` and `best/`."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cgan_core.config import GANConfig
from cgan_core.data import DataSplits
from cgan_core.evaluation import Evaluator
from cgan_core.guardrails import GuardrailScores
from cgan_core.model import Model
from cgan_core.pictures import class_grid, save_grid, to_bytes
from cgan_core.references import reference_lines
from cgan_core.samples import Samples
from cgan_core.scores import Scores
from cgan_core.stopping import BestState
from search.events import RunKey
from search.ledger import Ledger, TrialState
from search.lines import Lines
from search.record import write_json_atomic
from search.run_state import RunState
from search.study import StudySpec
from search.trial import Direction

SUMMARY_NAME, BEST_FOLDER = "summary.json", "best"


def winner_of(spec: StudySpec, ledger: Ledger, lines: Lines) -> TrialState | None:
    """Returns the best trial that beats an untrained generator, or None."""
    objective = spec.objective
    return ledger.incumbent(
        objective.metric, objective.direction, lines.untrained, objective.bounds
    )


def trial_flags(spec: StudySpec, ledger: Ledger, lines: Lines) -> dict[int, tuple[str, ...]]:
    """Returns the flags of every trial that has any."""
    found = {number: lines.flags_of(spec, trial) for number, trial in ledger.trials.items()}
    return {number: flags for number, flags in found.items() if flags}


class Closing:
    """Scores the winner on the test set and writes what the study comes to.

    Args:
        spec: the study.
        ledger: all that happened.
        evaluator: the study's data and protocol.
        lines: validation lines.
        output: the study's folder.
    """

    def __init__(
        self, spec: StudySpec, ledger: Ledger, evaluator: Evaluator, lines: Lines, output: Path
    ) -> None:
        self._spec, self._ledger, self._evaluator = spec, ledger, evaluator
        self._lines, self._output = lines, output

    def write(self, run_ids: Mapping[int | RunKey, str], tracking_uri: str) -> dict[str, Any]:
        """Writes `best/` and `summary.json`, and returns the latter."""
        winner = winner_of(self._spec, self._ledger, self._lines)
        test: dict[str, Any] | None = None
        references: dict[str, float | None] | None = None
        if winner is not None:
            model = self._model_of(winner)
            samples = self._evaluator.draw(
                model.images, model.config.noise, model.config.noise_dim
            )
            scores = self._evaluator.test(samples, self._evaluator.bandwidth(samples))
            test = test_entry(scores, self._evaluator.guard(samples))
            references = reference_lines(self._evaluator, samples)
            self._write_best(model, samples)
        summary = {
            **self._identity(tracking_uri),
            "best": None if winner is None else self._best_entry(winner, run_ids),
            "confirmed": None,
            "test": test,
            "references": references,
        }
        write_json_atomic(self._output / SUMMARY_NAME, summary)
        return summary

    def _model_of(self, winner: TrialState) -> Model:
        metric, direction = self._spec.objective.metric, self._spec.objective.direction
        run = best_run(winner.search_runs, metric, direction)
        best = run.best(metric, direction)
        assert run.checkpoint is not None
        assert best is not None
        folder = self._output / run.checkpoint.path
        state = BestState.load(folder)
        if state.parameters is None or state.kimg != best.kimg:
            raise RuntimeError(
                f"{folder}: must hold the generator at {best.kimg:g} kimg, the best of trial "
                f"{winner.number}, but holds that at {state.kimg:g} kimg"
            )
        kind = self._evaluator.examples.kind
        provenance = {
            "study": self._spec.study,
            "trial": winner.number,
            "replicate": run.replicate,
            "kimg": state.kimg,
            "dataset": self._dataset(),
        }
        config: GANConfig = self._spec.gan_config(winner.params)
        shape = self._evaluator.splits.image_shape
        return Model.of(config, shape, kind, state.parameters, provenance)

    def _write_best(self, model: Model, samples: Samples) -> None:
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
            "elapsed_seconds": self._ledger.spent_seconds,
            "tracking_uri": tracking_uri,
            "dataset": self._dataset(),
            "protocol_digest": self._evaluator.protocol.digest,
            "notices": list(self._spec.notices),
        }

    def _dataset(self) -> dict[str, Any]:
        splits: DataSplits = self._evaluator.splits
        return {
            "name": splits.name,
            "digest": splits.digest,
            "subset": splits.subset,
            "source": splits.source,
        }

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


def best_run(runs: Sequence[RunState], metric: str, direction: Direction) -> RunState:
    """The run with the best measurement; its generator is what a trial of several leaves."""
    sign = 1.0 if direction == "maximize" else -1.0

    def merit(run: RunState) -> float:
        best = run.best(metric, direction)
        return -math.inf if best is None else sign * best.metrics[metric]

    return max(runs, key=merit)


def test_entry(scores: Scores, guarded: GuardrailScores) -> dict[str, Any]:
    """Returns test scores as `summary.json` holds them, in nats, and the label accuracy."""
    return {
        "log_likelihood": scores.log_likelihood,
        "standard_error": scores.standard_error,
        "conditional_log_likelihood": scores.conditional_log_likelihood,
        "conditional_standard_error": scores.conditional_standard_error,
        "label_accuracy": guarded.label_accuracy,
        "bandwidth": scores.bandwidth,
        "num_samples": scores.num_samples,
        "num_points": scores.num_points,
    }
