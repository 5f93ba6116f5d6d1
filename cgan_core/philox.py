"""Counter-based random numbers in tensor arithmetic, for streams that live on a device.

Philox 4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"). The key is a
lane's seed; the counter is (block, index, name), so that what is drawn depends on (seed, name,
index) and not on who else draws. Everything is read from tensors: a captured graph that is
replayed draws anew. 32-bit words are held in int64, whose products wrap as the cipher wants.
"""

import hashlib
import math

import torch
from jaxtyping import Float, Int64
from torch import Tensor

MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
WEYL = (0x9E3779B9, 0xBB67AE85)
ROUNDS = 10
MASK = 0xFFFFFFFF

Words = Int64[Tensor, "..."]


def philox(counter: tuple[Words, ...], key: tuple[Words, Words]) -> tuple[Words, ...]:
    """Returns the four words of each counter of four words, under a key of two."""
    a, b, c, d = counter
    k, m = key
    for _ in range(ROUNDS):
        low, high = MULTIPLIERS[0] * a, MULTIPLIERS[1] * c
        a, b, c, d = (
            (high >> 32 & MASK) ^ b ^ k,
            high & MASK,
            (low >> 32 & MASK) ^ d ^ m,
            low & MASK,
        )
        k, m = k + WEYL[0] & MASK, m + WEYL[1] & MASK
    return a, b, c, d


def split(value: int) -> list[int]:
    """Returns the low and the high word of a number's lowest 64 bits."""
    return [value & MASK, value >> 32 & MASK]


def name_words(name: str) -> list[int]:
    """Returns the two words that stand for a stream's name."""
    digest = hashlib.blake2b(name.encode(), digest_size=8).digest()
    return split(int.from_bytes(digest, "little"))


def words(
    seeds: Int64[Tensor, "lanes 2"],
    name: Int64[Tensor, " words"],
    index: Int64[Tensor, " lanes"],
    num: int,
) -> Int64[Tensor, "lanes {num}"]:
    """Draws words of 32 bits from the stream of each lane."""
    blocks = torch.arange(-(-num // 4), device=seeds.device)
    counter = (blocks, index.unsqueeze(1) & MASK, name[0], name[1])
    drawn = philox(counter, (seeds[:, :1], seeds[:, 1:]))
    return torch.stack(drawn, -1).flatten(1)[:, :num]


def keep_masks(
    seeds: Int64[Tensor, "lanes 2"],
    name: Int64[Tensor, " words"],
    index: Int64[Tensor, " lanes"],
    thresholds: Int64[Tensor, " lanes"],
    rows: int,
    units: int,
) -> Float[Tensor, "lanes {rows} {units}"]:
    """Draws inverted-dropout masks: 256 / threshold where a random byte is below it, else 0."""
    drawn = words(seeds, name, index, -(-rows * units // 4))
    shifts = torch.arange(0, 32, 8, device=seeds.device)
    drawn = (drawn.unsqueeze(-1) >> shifts & 255).flatten(1)[:, : rows * units]
    threshold = thresholds.view(-1, 1, 1)
    scale = 256 / threshold.float()
    return torch.where(drawn.unflatten(1, (rows, units)) < threshold, scale, 0.0)


def uniform(drawn: Words) -> Float[Tensor, "..."]:
    """Returns numbers on [0, 1), multiples of 2^-24, from words."""
    return (drawn >> 8).float() * 2**-24


def gaussian(drawn: Int64[Tensor, "lanes 2 values"]) -> Float[Tensor, "lanes 2 values"]:
    """Returns two independent standard normals for two words (Box & Muller 1958)."""
    radius = ((drawn[:, 0].float() + 0.5) * 2**-32).log().mul(-2).sqrt()
    angle = drawn[:, 1].float() * (2 * math.pi * 2**-32)
    return torch.stack([radius * angle.cos(), radius * angle.sin()], 1)


def integers(drawn: Words, limit: int) -> Words:
    """Returns integers on [0, limit) from words; each is as likely as another to limit / 2^32."""
    return drawn * limit >> 32
