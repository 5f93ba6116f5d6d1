"""What a score owes to the generator's finite sample, by scoring a second set of samples."""

from collections.abc import Iterable, Mapping

# Of the scores of samples: where the same score of a second set of as many is recorded.
REDRAWS: Mapping[str, str] = {
    "validation_log_likelihood": "redraw_log_likelihood",
    "conditional_log_likelihood": "redraw_conditional_log_likelihood",
}


def redraw_standard_error(
    measurements: Iterable[Mapping[str, float]], metric: str
) -> float | None:
    """Estimates the standard deviation over sets of samples of one measurement's score.

    With l_i the score of the first N samples at measurement i and l_i' that of N others,

        s = sqrt(1/2 1/n sum_i (l_i - l_i')^2),

    for two independent draws of variance s^2 differ by 2 s^2 in mean square. At every measurement
    of a run the same noise is given, so neighbouring differences are much alike: n measurements
    tell less than n independent pairs. The error of a mean over runs follows from the means: what
    is given are then the runs' metrics at one kimg, averaged.

    Args:
        measurements: metrics of a configuration's measurements; those without a second score are
            left out.
        metric: which score, a key of `REDRAWS`.

    Returns:
        s in units of the metric (nats), or None where no measurement has both scores.
    """
    second = REDRAWS.get(metric)
    squares = [
        (metrics[metric] - metrics[second]) ** 2
        for metrics in measurements
        if second is not None and metric in metrics and second in metrics
    ]
    return (sum(squares) / len(squares) / 2) ** 0.5 if squares else None
