"""What a trial is held against: validation scores of known samples, and the guardrails' limits."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from cgan_core.evaluation import Evaluator
from cgan_core.guardrails import Limits
from cgan_core.references import real_images, untrained, validation_line
from search.study import StudySpec
from search.trial import TrialState

NOISE = 2.0  # standard errors that chance may put a trial above the real images

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
        """Scores an untrained generator, training images and held-out images."""
        return cls(
            untrained=validation_line(evaluator, untrained(evaluator)),
            real_data=validation_line(evaluator, real_images(evaluator)),
            guardrails=evaluator.guardrails.limits,
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
