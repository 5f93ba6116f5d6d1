"""Which rule a simulated study stops its trials by."""

from search.hyperband import make_brackets
from search.learning_curves import LearningCurves, RecordedCurves
from search.pruners import (
    HalvingPruner,
    HyperbandPruner,
    MedianPruner,
    NoPruner,
    PromotionPruner,
    Pruner,
)
from search.scheduling import rung_levels


def make_pruner(
    scheduler: str, curves: LearningCurves, grace_kimg: float, reduction_factor: int
) -> Pruner:
    """Creates the pruner of a scheduler for the budget of some curves.

    Raises:
        ValueError: The rungs make no sense, or the paired rule has no errors to go by.
    """
    full, unit = curves.kimg_per_trial, curves.measure_kimg
    if scheduler == "none":
        return NoPruner()
    if scheduler == "median":
        return MedianPruner(grace_kimg)
    if scheduler == "hyperband":
        brackets = make_brackets(grace_kimg, full, reduction_factor, unit)
        return HyperbandPruner(brackets, reduction_factor)
    rungs = rung_levels(grace_kimg, full, reduction_factor, unit)
    if scheduler == "promotion":
        return PromotionPruner(rungs, reduction_factor)
    if scheduler == "paired":
        if isinstance(curves, RecordedCurves):
            raise ValueError(
                "--scheduler: paired needs the points of every rung, which a record does not "
                "keep; leave out RECORD, whose place a formula takes"
            )
        return HalvingPruner(rungs, reduction_factor, curves.standard_error)
    return HalvingPruner(rungs, reduction_factor)
