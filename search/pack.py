"""How many trials share one engine: as the study says, as its record says, or by a probe."""

import math
import time
from collections.abc import Callable, Mapping
from typing import Any, Literal

from search.sections import MAX_PACK
from search.trial_run import CHUNK_STEPS, MakeLanes

PROBE_SECONDS = 2.0
ENOUGH = 0.95  # of the best speed: a larger pack must gain more than that is worth


def settled_pack(
    wanted: int | Literal["auto"],
    gpus: float,
    recorded: int | None,
    probe: Callable[[int], int],
) -> int:
    """Returns how many trials share an engine.

    Args:
        wanted: what the study says.
        gpus: share of a GPU that a trial is given here at least; 0 where there is none.
        recorded: what the study's trials had so far, to which a resumed one keeps.
        probe: finds the best pack of at most so many.
    """
    if wanted != "auto":
        return wanted
    room = min(math.floor(1 / gpus + 1e-9), MAX_PACK) if gpus else 1
    if room <= 1:
        return 1
    return probe(room) if recorded is None else recorded


def best_pack(make: MakeLanes, device: str, trial: Mapping[str, Any], room: int) -> int:
    """Trains packs of 1, 2, 4, ... up to `room` for some seconds each, and returns the best.

    It is 1 where runs are not fused, but advanced one after another. Else the smallest is chosen
    that makes nearly as many updates a second, over all its trials, as any; a pack that does not
    fit into memory ends the probe.
    """
    if not make(device, 1).fused:
        return 1
    speeds: dict[int, float] = {}
    for pack in sorted({2**power for power in range(room.bit_length())} | {room}):
        try:
            speeds[pack] = _updates_per_second(make, device, trial, pack)
        except (MemoryError, RuntimeError):  # PyTorch's own error for memory is the latter
            if not speeds:
                raise
            break
    return min(pack for pack in speeds if speeds[pack] >= ENOUGH * max(speeds.values()))


def _updates_per_second(
    make: MakeLanes, device: str, trial: Mapping[str, Any], pack: int
) -> float:
    lanes = make(device, pack)
    runs = [lanes.open({**trial, "number": n, "seed": n}) for n in range(pack)]
    try:
        lanes.advance(runs, 1)  # warms up
        updates, started = 0, time.monotonic()
        while (steps := min(run.steps_left for run in runs)) and _young(started):
            steps = min(steps, CHUNK_STEPS)
            lanes.advance(runs, steps)
            updates += steps * pack
        return updates / (time.monotonic() - started)
    finally:
        for run in runs:
            run.close()


def _young(started: float) -> bool:
    return time.monotonic() < started + PROBE_SECONDS
