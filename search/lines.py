"""What a trial is held against: validation scores of known samples, and the guardrails' limits."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any, Self

from cgan_core.evaluation import Evaluator
from cgan_core.guardrails import Limits
from cgan_core.references import real_images, untrained, validation_line
from search.study import StudySpec
from search.trial import TrialState

NOISE = 2.0  # standard errors that chance may put a trial above the real images
ENOUGH = 0.99  # of a generator's samples; so few real images less cost below half a nat

TrialFlags = Callable[[TrialState], tuple[str, ...]]


@dataclass(frozen=True, kw_only=True)
class Lines:
    """Scores, in nats where not a share or a ratio, that a trial is held against as it runs.

    Args:
        untrained: no trial at or below it may win; it is flagged `below_untrained`.
        real_data: a trial above it by more than two of its standard errors is smoother than
            data, and flagged `above_real_data`. (Held-out real images are above it half the
            time.)
        guardrails: where the other flags begin.
    """

    untrained: float
    real_data: float
    guardrails: Limits = field(default_factory=Limits)

    @classmethod
    def of(cls, evaluator: Evaluator) -> Self:
        """Scores an untrained generator, training images and held-out images.

        With folds a trial's score is a mean over them, and so are the first two: each fold's are
        scored on it, with training images of the others. Where those are fewer than a generator's
        samples, so that the line would be too low, the validation points are what is left.
        """
        whole = evaluator.protocol.folds == 1
        scored = (None if whole else _over_folds(evaluator)) or _scored_by(evaluator)
        return cls(
            untrained=scored[0], real_data=scored[1], guardrails=evaluator.guardrails.limits
        )

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any]) -> Self:
        """Reads them as `study.json` holds them; before there were guardrails it held none."""
        return cls(**{**mapping, "guardrails": Limits(**mapping.get("guardrails", {}))})

    def above_real_data(self, value: float, standard_error: float | None) -> bool:
        """Tells whether a validation log-likelihood is higher than data by more than chance."""
        return value > self.real_data + NOISE * (standard_error or 0.0)

    def flags_of(self, spec: StudySpec, trial: TrialState) -> tuple[str, ...]:
        """Names what to beware of in a trial.

        The likelihood is its highest at any measurement; the guardrails are those at its best
        measurement of the objective, whose generator is kept.
        """
        pooled = trial.objective("validation_log_likelihood")
        above = pooled and self.above_real_data(pooled.value, pooled.points_error)
        best = trial.objective(spec.objective.metric, spec.objective.direction)
        kept = best.metrics if best else {}
        below = kept.get("validation_log_likelihood", math.inf) <= self.untrained
        named = {"above_real_data": above, "below_untrained": below}
        return (
            *(name for name, is_so in named.items() if is_so),
            *self.guardrails.flags(kept),
        )


def _scored_by(evaluator: Evaluator) -> tuple[float, float]:
    """The lines of an untrained generator and of real images."""
    before, real = untrained(evaluator), real_images(evaluator)
    return validation_line(evaluator, before), validation_line(evaluator, real)


def _over_folds(evaluator: Evaluator) -> tuple[float, float] | None:
    """Their means over folds; None where a fold leaves too few real images."""
    protocol, found = evaluator.protocol, []
    for fold in range(protocol.folds):
        part = Evaluator(evaluator.splits, protocol, fold=fold)
        if len(real_images(part).images) < ENOUGH * protocol.num_samples:
            return None
        found.append(_scored_by(part))
    return fmean(before for before, _ in found), fmean(real for _, real in found)
