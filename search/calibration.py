"""The speed and size of one trial on this machine, from a few seconds of work."""

import time
from dataclasses import dataclass
from typing import get_args

import torch

from cgan_core.config import GANConfig
from cgan_core.diagnostics import diagnose
from cgan_core.evaluation import Evaluator
from cgan_core.evaluation_noise import SampleSet
from cgan_core.member import Member

WARM_UP_STEPS = 3
CALIBRATION_SECONDS = 2.0
REPEATS = 8  # parts of that time, each with a pace of its own
ADAM_COPIES, SGD_COPIES = 3, 2  # parameters and the optimiser's buffers
BYTES = 4


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """Speed and size of one trial on this machine, alone on its cores.

    Attributes:
        seconds_per_kimg: Of training.
        seconds_per_measurement: Drawing and scoring samples.
        state_bytes: A whole state, from which training goes on.
        generator_bytes: A generator.
        paces: The seconds a kimg of each repeat, over those of all.
    """

    seconds_per_kimg: float
    seconds_per_measurement: float
    state_bytes: int
    generator_bytes: int
    paces: tuple[float, ...] = (1.0,)


def calibrate(config: GANConfig, evaluator: Evaluator, threads: int) -> Calibration:
    """Trains and scores one member for a few seconds."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        member = Member(config, evaluator.examples, seed=0)
        evaluator.guardrails  # noqa: B018 -- may train a classifier, once for all
        member.advance(WARM_UP_STEPS)
        repeats = [_repeat(member) for _ in range(REPEATS)]
        trained = time.perf_counter()
        sets = get_args(SampleSet)
        drawn = [evaluator.draw(member.scored_generator, config, which=which) for which in sets]
        evaluator.validations(drawn)
        evaluator.guard(drawn[0])
        diagnose(member)
        measured = time.perf_counter()
    finally:
        torch.set_num_threads(before)
    seconds, kimg = (sum(part) for part in zip(*repeats, strict=True))
    g_values = sum(p.numel() for p in member.generator.parameters())
    d_values = sum(p.numel() for p in member.discriminator.parameters())
    copies = ADAM_COPIES if config.optimizer == "adam" else SGD_COPIES
    return Calibration(
        seconds_per_kimg=seconds / kimg,
        seconds_per_measurement=measured - trained,
        state_bytes=(g_values + d_values) * copies * BYTES,
        generator_bytes=g_values * BYTES,
        paces=tuple(took / trained_kimg * kimg / seconds for took, trained_kimg in repeats),
    )


def _repeat(member: Member) -> tuple[float, float]:
    """Trains for one part of the time, one step at least; returns seconds and kimg."""
    started, kimg = time.perf_counter(), member.kimg
    while True:
        member.advance(1)
        elapsed = time.perf_counter() - started
        if elapsed >= CALIBRATION_SECONDS / REPEATS:
            return elapsed, member.kimg - kimg
