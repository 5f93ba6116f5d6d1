"""The names under which the scores of samples are recorded."""

from cgan_core.scores import Scores
from search.redraw import REDRAWS


def metrics_of(scores: Scores) -> dict[str, float]:
    """Returns the validation likelihoods by their recorded names, in nats."""
    named = {
        "validation_log_likelihood": scores.log_likelihood,
        "standard_error": scores.standard_error,
        "conditional_log_likelihood": scores.conditional_log_likelihood,
        "conditional_standard_error": scores.conditional_standard_error,
        "bandwidth": scores.bandwidth,
    }
    return {name: value for name, value in named.items() if value is not None}


def redraws_of(scores: Scores) -> dict[str, float]:
    """Returns the likelihoods of a second set of samples by their recorded names, in nats."""
    named = metrics_of(scores)
    return {second: named[first] for first, second in REDRAWS.items() if first in named}
