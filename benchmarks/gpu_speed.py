"""Speed of fused training on a device against a textbook loop there, and against its roofline.

The roofline of P steps is the larger of two times: their products' FLOP over the rate of the
fastest bare batched product of the networks' shapes in the same precision, and the bytes that one
optimiser sweep moves (and the gradients that it reads, written once) over the rate of a copy.
"""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from benchmarks.roofline import gigaflop_of_a_step, shapes, sweep_bytes
from benchmarks.textbook import TextbookLoop
from cgan_core.configs.mlp import MLPConfig
from cgan_core.examples import Examples
from cgan_core.fused import FusedPopulation
from cgan_core.member import Member, count_parameters

REPEATS = 5
CHANGES: dict[str, dict[str, Any]] = {
    "alternating_float32": {"update": "alternating"},
    "simultaneous_float32": {"update": "simultaneous"},
    "simultaneous_bfloat16": {"update": "simultaneous", "precision": "bfloat16"},
}


@dataclass(frozen=True)
class Bench:
    """Where and on what is measured, and for how long.

    Args:
        device: such as `cuda`.
        examples: training images and conditions.
        config: of every member, but for what is compared.
        seconds: of each measurement, at least.
        steps: that a population makes at a stretch.
    """

    device: str
    examples: Examples
    config: MLPConfig
    seconds: float
    steps: int

    def synchronize(self) -> None:
        """Waits for the device."""
        if self.device.startswith("cuda"):
            torch.cuda.synchronize(self.device)

    def calls_a_second(self, call: Callable[[], object]) -> float:
        """Returns how often the device makes a call that was made once before."""
        self.synchronize()
        count, started = 0, time.perf_counter()
        while True:
            call()
            count += 1
            if count & (count - 1) == 0 or count % 64 == 0:  # rarely, for it drains the queue
                self.synchronize()
                if time.perf_counter() - started >= self.seconds:
                    return count / (time.perf_counter() - started)

    def product_rate(self, members: int, dtype: torch.dtype) -> float:
        """Returns the GFLOP/s of the fastest bare product, batched over members."""
        rates = []
        for rows, inner, columns in shapes(self.config, self.examples.pixels).values():
            a = torch.rand(members, rows, inner, device=self.device).to(dtype)
            b = torch.rand(members, inner, columns, device=self.device).to(dtype)
            torch.bmm(a, b)
            flop = 2e-9 * members * rows * inner * columns
            rates.append(flop * self.calls_a_second(partial(torch.bmm, a, b)))
        return max(rates)

    def copy_rate(self, values: int) -> float:
        """Returns the GB/s read and written by a copy of so many float32 values."""
        source = torch.rand(values, device=self.device)
        target = torch.empty_like(source)
        return 8e-9 * values * self.calls_a_second(lambda: target.copy_(source))

    def changed(self, changes: dict[str, Any]) -> MLPConfig:
        """Returns the configuration with what is compared."""
        mapping = self.config.to_mapping() | {"fresh_noise": None} | changes
        if mapping["update"] == "alternating":
            mapping["fresh_noise"] = self.config.fresh_noise
        return MLPConfig(**mapping)


def measure_training(bench: Bench, kind: str, members: int, *, eager: bool) -> dict[str, Any]:
    """Returns the speed of a population of so many members beside the textbook loop's."""
    config = bench.changed(CHANGES[kind])
    reset_peak(bench.device)
    population = FusedPopulation(bench.examples, members, bench.device, eager=eager)
    joined = [population.join(config, seed) for seed in range(members)]
    population.advance(joined, 2)
    textbook = TextbookLoop(config, bench.examples, bench.device)
    textbook.advance(2)
    ours, theirs = [], []
    for _ in range(REPEATS):  # in turns
        stretches = bench.calls_a_second(lambda: population.advance(joined, bench.steps))
        ours.append(stretches * bench.steps * members)
        theirs.append(bench.calls_a_second(lambda: textbook.advance(1)))
    ratios = [own / other for own, other in zip(ours, theirs, strict=True)]
    speed = statistics.median(ours)
    return {
        "execution": population.execution,
        "streams": population.streams,
        "model_steps_per_second": speed,
        "textbook_steps_per_second": statistics.median(theirs),
        "ratio": statistics.median(ratios),
        "ratio_spread": [min(ratios), max(ratios)],
        "peak_memory_bytes": peak(bench.device),
        **roofline(bench, config, members, speed),
    }


def roofline(bench: Bench, config: MLPConfig, members: int, speed: float) -> dict[str, float]:
    """Returns the bounds on a step of one member, and what share of them a speed reaches."""
    member = Member(config, bench.examples, seed=0)
    values = count_parameters(member.generator) + count_parameters(member.discriminator)
    bfloat16 = config.precision == "bfloat16"
    products = bench.product_rate(members, torch.bfloat16 if bfloat16 else torch.float32)
    copies = bench.copy_rate(max(members * values, 1 << 22))
    gigaflop = gigaflop_of_a_step(member.advance)
    gigabytes = (sweep_bytes(config, values) + 4 * values) / 1e9
    bound = max(gigaflop / products, gigabytes / copies)
    return {
        "product_gigaflops": products,
        "copy_gigabytes_per_second": copies,
        "gigaflop_per_model_step": gigaflop,
        "gigabytes_per_model_step": gigabytes,
        "roofline_fraction": bound * speed,
    }


def reset_peak(device: str) -> None:
    """Forgets earlier peaks of the device's memory."""
    if device.startswith("cuda"):
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


def peak(device: str) -> int | None:
    """Returns the most bytes allocated since then, or None where nobody counts."""
    return torch.cuda.max_memory_allocated(device) if device.startswith("cuda") else None
