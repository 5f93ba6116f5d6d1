import math

import pytest
import torch
from scipy import stats
from torch import Tensor

from cgan_core import philox

SEEDS = torch.tensor([philox.split(seed) for seed in (3, 5, 2**62 + 11)])
NAME = torch.tensor(philox.name_words("a stream"))
INDEX = torch.tensor([0, 7, 2**31])

# Random123's kat_vectors for philox4x32 with 10 rounds (Salmon et al. 2011): counter, key, words.
KNOWN = [
    ([0] * 4, [0] * 2, [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
    ([0xFFFFFFFF] * 4, [0xFFFFFFFF] * 2, [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
    (
        [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
        [0xA4093822, 0x299F31D0],
        [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1],
    ),
]


@pytest.mark.parametrize(("counter", "key", "expected"), KNOWN)
def test_it_gives_the_published_words(
    counter: list[int], key: list[int], expected: list[int]
) -> None:
    a, b, c, d = (torch.tensor([word]) for word in counter)
    found = philox.philox((a, b, c, d), (torch.tensor(key[:1]), torch.tensor(key[1:])))
    assert [int(word) for word in found] == expected


def cipher(counter: list[int], key: list[int]) -> list[int]:
    """The same in Python's integers, which never overflow."""
    for _ in range(10):
        products = [m * counter[i] for m, i in zip(philox.MULTIPLIERS, (0, 2), strict=True)]
        (low0, high0), (low1, high1) = (philox.split(product) for product in products)
        counter = [high1 ^ counter[1] ^ key[0], low1, high0 ^ counter[3] ^ key[1], low0]
        key = [(k + w) % 2**32 for k, w in zip(key, philox.WEYL, strict=True)]
    return counter


def test_words_are_those_of_seed_name_and_index() -> None:
    drawn = philox.words(SEEDS, NAME, INDEX, 10)
    for lane in range(3):
        blocks = [
            cipher([block, int(INDEX[lane]), *NAME.tolist()], SEEDS[lane].tolist())
            for block in range(3)
        ]
        assert drawn[lane].tolist() == [word for block in blocks for word in block][:10]


def test_a_lane_draws_the_same_wherever_it_is() -> None:
    drawn = philox.words(SEEDS, NAME, INDEX, 50)
    order = torch.tensor([2, 0, 1])
    assert torch.equal(philox.words(SEEDS[order], NAME, INDEX[order], 50), drawn[order])
    assert torch.equal(philox.words(SEEDS[1:2], NAME, INDEX[1:2], 20), drawn[1:2, :20])


def test_another_seed_name_or_index_draws_other_words() -> None:
    drawn = philox.words(SEEDS, NAME, INDEX, 100)
    other = torch.tensor(philox.name_words("another stream"))
    for changed in (
        philox.words(SEEDS, other, INDEX, 100),
        philox.words(SEEDS, NAME, INDEX + 1, 100),
        philox.words(SEEDS ^ 1, NAME, INDEX, 100),
    ):
        assert (changed == drawn).sum() == 0


def test_masks_keep_what_they_say_and_have_mean_one() -> None:
    thresholds = torch.tensor([64, 154, 256])
    masks = philox.keep_masks(SEEDS, NAME, INDEX, thresholds, rows=401, units=99)
    assert masks.shape == (3, 401, 99)
    for mask, threshold in zip(masks, thresholds.tolist(), strict=True):
        keep = threshold / 256
        assert set(mask.unique().tolist()) <= {0.0, torch.tensor(1 / keep).item()}
        error = math.sqrt(keep * (1 - keep) / mask.numel())
        assert abs(float((mask > 0).double().mean()) - keep) <= 4 * error
    assert torch.equal(masks[2], torch.ones(401, 99))


def test_uniform_numbers_are_uniform() -> None:
    drawn = philox.uniform(philox.words(SEEDS[:1], NAME, INDEX[:1], 50_000))
    assert drawn.min() >= 0
    assert drawn.max() < 1
    assert stats.kstest(drawn.flatten().numpy(), "uniform").pvalue > 1e-3
    extremes = philox.uniform(torch.tensor([0, 2**32 - 1]))
    assert extremes.tolist() == [0.0, 1 - 2**-24]


def normals(num: int) -> Tensor:
    return philox.gaussian(philox.words(SEEDS, NAME, INDEX, 2 * num).unflatten(1, (2, num)))


def test_gaussian_numbers_are_standard_normal_and_independent() -> None:
    drawn = normals(20_000)
    assert drawn.dtype == torch.float32
    for lane in drawn:
        assert stats.kstest(lane.flatten().numpy(), "norm").pvalue > 1e-3
        assert stats.pearsonr(*lane.numpy()).pvalue > 1e-3
        assert stats.pearsonr(*(lane**2).numpy()).pvalue > 1e-3
    extremes = torch.tensor([[[0, 2**32 - 1], [0, 2**32 - 1]]])
    assert philox.gaussian(extremes).isfinite().all()


def test_integers_are_even() -> None:
    drawn = philox.integers(philox.words(SEEDS[:1], NAME, INDEX[:1], 30_000), 10)
    counts = torch.bincount(drawn.flatten(), minlength=10)
    assert len(counts) == 10
    assert stats.chisquare(counts.numpy()).pvalue > 1e-3
    assert philox.integers(torch.tensor([2**32 - 1]), 10).tolist() == [9]
