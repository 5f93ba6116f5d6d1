"""What the machine can do at best: matrix products and copies; and what a step asks of it."""

import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from cgan_core.configs.mlp import MLPConfig
from cgan_core.networks.products import matmul

Shape = tuple[int, int, int]
"""Rows, inner, columns."""

SECONDS = 0.1  # for each measurement
COPIED_VALUES = 16_000_000  # 64 MB, more than the caches hold
SWEEPS = {"sgd": 5, "adam": 7}  # reads and writes of each parameter by one fused update


def shapes(config: MLPConfig, pixels: int) -> dict[str, Shape]:
    """The large products of a step."""
    rows, image = config.batch_size, config.d_image_units * config.d_image_pieces
    g_join = config.g_noise_units + (config.g_join == "concat") * config.g_condition_units
    d_join = config.d_image_units + (config.d_join == "concat") * config.d_condition_units
    pieces, joint = config.d_joint_units * config.d_joint_pieces, config.g_joint_units
    return {
        "image, real and fake": (2 * rows, pixels, image),
        "image, fake": (rows, pixels, image),
        "generator joint": (rows, g_join, joint),
        "generator image": (rows, joint, pixels),
        "joint, real and fake": (2 * rows, d_join, pieces),
        "weight gradient of image": (image, 2 * rows, pixels),
        "weight gradient of generator joint": (joint, rows, g_join),
    }


def product_rates(of: Mapping[str, Shape], dtype: torch.dtype) -> dict[str, float]:
    """Operations a second of each bare product by the faster library, in GFLOP/s."""
    rates = {}
    for name, (rows, inner, columns) in of.items():
        a, b = torch.rand(rows, inner).to(dtype), torch.rand(inner, columns).to(dtype)
        flop = 2 * rows * inner * columns
        by_library = [lambda a=a, b=b: torch.mm(a, b), lambda a=a, b=b: matmul(a, b)]
        rates[name] = max(flop * _calls_a_second(call) / 1e9 for call in by_library)
    return rates


def copy_rate() -> float:
    """Bytes read and written a second by a copy, in GB/s."""
    source = torch.rand(COPIED_VALUES)
    target = torch.empty_like(source)
    return 8 * COPIED_VALUES * _calls_a_second(lambda: target.copy_(source)) / 1e9


def _calls_a_second(call: Callable[[], object]) -> float:
    call()
    count, started = 0, time.perf_counter()
    while (spent := time.perf_counter() - started) < SECONDS:
        call()
        count += 1
    return count / spent


def gigaflop_of_a_step(advance: Callable[[int], None]) -> float:
    """Operations of one step's matrix products, in GFLOP."""

    def onednn(x: Any, weight: Any, *_: Any, **__: Any) -> int:
        rows, inner = x
        return int(2 * rows * inner * weight[0])

    mapping = {torch.ops.mkldnn._linear_pointwise: onednn}
    with FlopCounterMode(display=False, custom_mapping=mapping) as counter:
        advance(1)
    return float(counter.get_total_flops()) / 1e9


def sweep_bytes(config: MLPConfig, num_parameters: int) -> float:
    """Bytes that one update of all parameters must move."""
    return 4.0 * SWEEPS[config.optimizer] * num_parameters
