"""Counter-based random streams: what is drawn depends on (seed, stream, index) and nothing else.

A stream is Philox 4x64 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3") keyed
by a seed and a name; the index (a step, an epoch) sits in the counter's highest word, so the
draws of two indices never overlap and a resumed run needs no stored generator state.
"""

import hashlib

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

_MASK_64 = (1 << 64) - 1


def stream(seed: int, name: str, index: int = 0) -> np.random.Generator:
    """Creates the generator of one stream at one index."""
    name_key = int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "little")
    key = np.array([seed & _MASK_64, name_key], dtype=np.uint64)  # a list would go through float64
    bits = np.random.Philox(key=key, counter=[0, 0, 0, index])
    return np.random.Generator(bits)


def derive_seed(*parts: int | str) -> int:
    """Returns a 63-bit seed that depends on all parts, for example (study seed, trial, replicate).

    63 bits, so that it fits a signed integer wherever it is recorded.
    """
    text = "\x1f".join(map(str, parts))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1


def keep_threshold(rate: float) -> int:
    """Returns how many of a byte's 256 values keep a unit that is dropped at a rate."""
    return min(max(round(256 * (1 - rate)), 1), 256)


def keep_mask(
    rng: np.random.Generator, rows: int, units: int, rate: float
) -> Float[Tensor, "rows units"]:
    """Draws an inverted-dropout mask: 0, or 1 / keep so that the mean is 1.

    One random byte decides each unit, so `keep` is the nearest of 1/256 … 256/256 to `1 - rate`
    and the scale is that of the true `keep`.
    """
    threshold = keep_threshold(rate)
    count = rows * units
    raw = rng.bit_generator.random_raw(-(-count // 8)).view(np.uint8)[:count]
    mask, drawn = torch.empty(rows, units), torch.from_numpy(raw).view(rows, units)
    torch.le(drawn, threshold - 1, out=mask)  # numbers: booleans would be slower
    return mask.mul_(256 / threshold)


def draw_noise(
    rng: np.random.Generator, kind: str, rows: int, dim: int
) -> Float[Tensor, "rows dim"]:
    """Draws the generator's noise z: `uniform` on [0, 1) in each dimension, or `gaussian`."""
    if kind == "uniform":
        return torch.from_numpy(rng.random((rows, dim), dtype=np.float32))
    return torch.from_numpy(rng.standard_normal((rows, dim), dtype=np.float32))
