"""A study whose times can be worked out by hand: a second a kimg, two a measurement."""

from pathlib import Path
from typing import Any

from tiny_study import content

from search.calibration import Calibration
from search.estimate import Estimate, estimate
from search.study import StudySpec

STEADY = Calibration(
    seconds_per_kimg=1.0, seconds_per_measurement=2.0, state_bytes=0, generator_bytes=0
)
NOBODY_STOPS = {"kind": "none"}
ASHA = {"kind": "asha", "grace_kimg": 4.0, "reduction_factor": 3}


def spec(trials: int, scheduler: dict[str, Any], **sections: Any) -> StudySpec:
    """Trials of 40 kimg, measured every 2: 80 seconds each."""
    time = sections.pop("time", None)
    return StudySpec.from_mapping(
        content(
            Path("any.npz"),
            stages=[{"kind": "model", "trials": trials}],
            scheduler=scheduler,
            budget={"kimg_per_trial": 40.0, "measure_kimg": 2.0, "trials": trials, "time": time},
            **sections,
        )
    )


def cost(study: StudySpec, concurrent: int = 2) -> Estimate:
    return estimate(study, STEADY, concurrent)
