import numpy as np
import pytest
import torch

from cgan_core.streams import derive_seed, draw_noise, keep_mask, stream


def draws(seed: int, name: str, index: int, count: int = 64) -> bytes:
    return stream(seed, name, index).random(count).tobytes()


def test_a_stream_depends_on_its_key_alone() -> None:
    np.random.default_rng(0).random()
    torch.manual_seed(7)
    first = draws(3, "fake 0", 5)
    stream(3, "fake 0", 4).random(1000)
    assert draws(3, "fake 0", 5) == first


def test_streams_of_other_keys_differ() -> None:
    keys = [(s, n, i) for s in (0, 1, 2**32) for n in ("a", "b", "a 0") for i in (0, 1, 2)]
    assert len({draws(*key) for key in keys}) == len(keys)


def test_two_indices_never_overlap() -> None:
    state = stream(0, "order", 1).bit_generator.state["state"]
    assert state["counter"].tolist() == [0, 0, 0, 1]  # 2^192 blocks before the next index


def test_neighbouring_large_seeds_have_their_own_streams() -> None:
    seed = 2**62
    assert draws(seed, "order", 0) != draws(seed + 1, "order", 0)


def test_derived_seeds_depend_on_every_part_and_fit_a_signed_integer() -> None:
    parts = [(0, 1, 2), (0, 1, 3), (0, 12), (1, 0, 2), ("a", 1), ("a1",), ("0", "1", "4")]
    seeds = [derive_seed(*p) for p in parts]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert derive_seed(0, 1, 2) == seeds[0]


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.3, 0.5, 0.77, 0.999])
def test_masks_have_mean_one_and_the_asked_rate(rate: float) -> None:
    mask = keep_mask(stream(0, "masks"), 2000, 250, rate)
    kept = min(max(round(256 * (1 - rate)), 1), 256) / 256  # what one byte can decide
    assert abs(kept - (1 - rate)) <= 1 / 256
    assert set(mask.unique().tolist()) <= {0.0, np.float32(1 / kept).item()}
    error = ((1 - kept) / kept / mask.numel()) ** 0.5  # of the mean, one standard deviation
    assert abs(mask.double().mean().item() - 1) <= 5 * error + 1e-12
    assert abs(mask.gt(0).double().mean().item() - kept) <= 5 * error * kept + 1e-12
    assert mask.dtype == torch.float32


def test_masks_are_independent_in_rows_and_units() -> None:
    kept = keep_mask(stream(1, "masks"), 4000, 16, 0.5).gt(0).double()
    correlation = torch.corrcoef(kept.T) - torch.eye(16, dtype=torch.float64)
    assert correlation.abs().max() < 5 / 4000**0.5
    lagged = torch.corrcoef(torch.stack([kept[1:].flatten(), kept[:-1].flatten()]))[0, 1]
    assert abs(lagged) < 5 / 64000**0.5


def test_masks_of_any_shape_use_whole_words() -> None:
    assert keep_mask(stream(0, "m"), 3, 5, 0.5).shape == (3, 5)


def test_noise_has_its_distribution() -> None:
    uniform = draw_noise(stream(0, "z"), "uniform", 500, 100).double()
    gaussian = draw_noise(stream(0, "z"), "gaussian", 500, 100).double()
    assert uniform.min() >= 0
    assert uniform.max() < 1
    assert abs(uniform.mean() - 1 / 2) < 5 * (1 / 12 / 50_000) ** 0.5
    assert abs(uniform.var() - 1 / 12) < 2e-3
    assert abs(gaussian.mean()) < 5 / 50_000**0.5
    assert abs(gaussian.var() - 1) < 0.04
    assert uniform.shape == gaussian.shape == (500, 100)
