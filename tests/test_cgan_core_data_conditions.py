"""How condition vectors are drawn, standardised, and taken from pictures."""

import numpy as np
import pytest
import torch
from sklearn.neighbors import KernelDensity
from tiny_data import tiny_splits

from cgan_core.data import DataError
from cgan_core.data.conditions import (
    HELD_OUT_SHARE,
    ConditionDensity,
    EmpiricalConditions,
    SamplerKind,
    UniformConditions,
    settled_kind,
    vector_sampler,
)
from cgan_core.data.folds import leave_out
from cgan_core.data.load import conditioned
from cgan_core.data.masks import Mask
from cgan_core.data.standardization import Standardization
from cgan_core.examples import Examples
from cgan_core.streams import stream

# Correlated, skewed, on scales of their own, and one column that says nothing.
ROWS = (np.random.default_rng(0).gamma(2.0, size=(400, 3)) @ np.triu(np.ones((3, 3)))) * [
    1,
    50,
    0.1,
]
VECTORS = np.concatenate([ROWS, np.full((400, 1), 0.3)], axis=1).astype(np.float32)


def held_out_likelihood(bandwidth: float, seed: int) -> float:
    """By scikit-learn, of the rows that `fit` holds out, in standard deviations."""
    varying = VECTORS[:, :3].astype(np.float64)
    rows = stream(seed, "fit").permutation((varying - varying.mean(0)) / varying.std(0))
    count = round(len(rows) * HELD_OUT_SHARE)
    density = KernelDensity(bandwidth=bandwidth, rtol=1e-12).fit(rows[count:])
    return float(density.score(rows[:count]))


@pytest.mark.parametrize("seed", range(3))
def test_held_out_rows_are_likeliest_at_the_chosen_width(seed: int) -> None:
    chosen = ConditionDensity.fit(VECTORS, stream(seed, "fit")).bandwidth
    best = held_out_likelihood(chosen, seed)
    for factor in (0.25, 0.5, 0.8, 0.95, 1.05, 1.25, 2.0, 4.0):
        assert held_out_likelihood(chosen * factor, seed) < best


def test_a_density_gives_no_training_row_but_their_mean_and_variance() -> None:
    density = vector_sampler("kde", VECTORS, stream(0, "fit"))
    assert isinstance(density, ConditionDensity)
    drawn, rows = density.sample_with_rows(100_000, stream(0, "draw"))
    np.testing.assert_array_equal(drawn, density.sample(100_000, stream(0, "draw")))
    assert drawn.dtype == np.float32
    assert not {y.tobytes() for y in drawn} & {y.tobytes() for y in VECTORS}
    assert (drawn[:, 3] == np.float32(0.3)).all()
    spread = VECTORS.std(0, dtype=np.float64)[:3]
    np.testing.assert_allclose(drawn.mean(0)[:3], VECTORS.mean(0)[:3], atol=0.02 * spread.max())
    np.testing.assert_allclose(drawn.std(0)[:3], spread, rtol=0.02)
    # Each lies about the row that it was made from, as the equation says.
    h = density.bandwidth
    mean = VECTORS.mean(0, dtype=np.float64)
    standard = (drawn - mean - (VECTORS[rows] - mean) / np.sqrt(1 + h**2))[:, :3] / spread
    np.testing.assert_allclose(standard.std(0), h / np.sqrt(1 + h**2), rtol=0.02)


def test_empirical_conditions_are_training_rows_each_as_often() -> None:
    drawn = EmpiricalConditions(VECTORS).sample(40_000, stream(0, "draw"))
    number = {row.tobytes(): k for k, row in enumerate(VECTORS)}
    counts = np.bincount([number[y.tobytes()] for y in drawn], minlength=len(VECTORS))
    assert abs(counts - 100).max() < 50  # standard deviation 10


def test_uniform_conditions_fill_the_box_of_the_training_rows() -> None:
    sampler = vector_sampler("uniform", VECTORS, stream(0, "fit"))
    assert isinstance(sampler, UniformConditions)
    drawn = sampler.sample(40_000, stream(0, "draw"))
    assert drawn.dtype == np.float32
    low, high = VECTORS.min(0), VECTORS.max(0)
    assert ((drawn >= low) & (drawn <= high)).all()
    shares = (drawn[:, :3] - low[:3]) / (high - low)[:3]
    np.testing.assert_allclose(shares.mean(0), 0.5, atol=0.01)
    np.testing.assert_allclose(shares.var(0), 1 / 12, atol=0.01)
    assert (drawn[:, 3] == VECTORS[0, 3]).all()


def test_examples_draw_what_is_asked_for() -> None:
    splits = tiny_splits("vectors")
    examples = Examples(splits)
    assert splits.train.conditions is not None
    training = torch.from_numpy(splits.train.conditions)
    ways: dict[SamplerKind, bool] = {"kde": False, "uniform": False, "empirical": True}
    for kind, is_copied in ways.items():
        drawn = examples.draw_conditions(stream(0, "draw"), 300, kind)
        assert drawn is not None
        copied = (drawn[:, None] == training).all(2).any(1)
        assert copied.all() if is_copied else not copied.any()
    by_itself, kde = (examples.draw_conditions(stream(0, "x"), 9, k) for k in (None, "kde"))
    torch.testing.assert_close(by_itself, kde, rtol=0, atol=0)


def test_a_sampler_knows_nothing_but_the_images_trained_on() -> None:
    splits = tiny_splits("vectors")
    rest, _ = leave_out(splits, 1, 3, 0)
    assert rest.train.conditions is not None
    high = rest.train.conditions.max(0)
    drawn = Examples(rest).draw_conditions(stream(0, "draw"), 5_000, "uniform")
    assert drawn is not None
    assert (drawn.numpy() <= high).all()
    density = Examples(rest).density
    assert density is not None
    np.testing.assert_array_equal(density.centers, rest.train.conditions)


def test_which_way_suits_which_conditions() -> None:
    masked = conditioned(tiny_splits(), "masked_image", "top_half")
    labelled, vectors = tiny_splits("labels"), tiny_splits("vectors")
    settled = [settled_kind(None, splits) for splits in (labelled, vectors, masked)]
    assert settled == ["empirical", "kde", "empirical"]
    assert settled_kind("uniform", labelled) == settled_kind("uniform", vectors) == "uniform"
    with pytest.raises(DataError, match=r"empirical or uniform where conditions are labels.*kde"):
        settled_kind("kde", labelled)
    unsuited: tuple[SamplerKind, ...] = ("kde", "uniform")
    for kind in unsuited:
        with pytest.raises(DataError, match="must be empirical where conditions are visible"):
            Examples(masked).draw_conditions(stream(0, "draw"), 3, kind)


def test_standardised_columns_have_mean_0_and_deviation_1() -> None:
    standard = Standardization.fit(VECTORS)
    made = standard.apply(VECTORS).astype(np.float64)
    np.testing.assert_allclose(made.mean(0), 0, atol=1e-6)
    np.testing.assert_allclose(made.std(0), [1, 1, 1, 0], atol=1e-6)
    np.testing.assert_allclose(standard.mean, VECTORS.mean(0, dtype=np.float64), rtol=1e-12)
    assert standard.scale[3] == 1
    shuffled = Standardization.fit(VECTORS[::-1])  # no bit depends on the order of a sum
    np.testing.assert_array_equal(shuffled.mean, standard.mean)
    np.testing.assert_array_equal(shuffled.scale, standard.scale)


MASKS = {
    "left_half": (0, 0, 5, 3),
    "right_half": (0, 4, 5, 3),
    "top_half": (0, 0, 2, 7),
    "bottom_half": (3, 0, 2, 7),
    "centre": (1, 1, 2, 3),
}


@pytest.mark.parametrize("name", MASKS)
@pytest.mark.parametrize("channels", [(), (3,)])
def test_a_mask_hides_a_rectangle_and_nothing_else(name: str, channels: tuple[int, ...]) -> None:
    shape = (5, 7, *channels)
    images = np.random.default_rng(0).integers(1, 256, size=(4, *shape), dtype=np.uint8)
    mask = Mask.of(name, shape)  # type: ignore[arg-type]
    assert (mask.top, mask.left, mask.height, mask.width) == MASKS[name]
    vectors = mask.visible(images)
    assert vectors.dtype == np.float32
    shown, hidden = vectors.reshape(images.shape), np.zeros(images.shape, bool)
    for k in range(4):
        hidden[k, mask.top : mask.top + mask.height, mask.left : mask.left + mask.width] = True
    assert (shown[hidden] == 0).all()
    np.testing.assert_allclose(shown[~hidden], images[~hidden] / 255, rtol=1e-6)
    assert images.min() > 0  # the pictures are as they were


def test_masked_pictures_become_the_conditions() -> None:
    plain = tiny_splits()
    masked = conditioned(plain, "masked_image", (1, 0, 2, 4))
    assert masked.num_classes is None
    assert masked.mask == Mask(1, 0, 2, 4)
    assert masked.images_digest == plain.images_digest == conditioned(plain, "given").images_digest
    assert masked.digest != plain.digest
    assert masked.standardization is not None
    for part in (masked.train, masked.validation):
        visible = masked.mask.visible(part.images)
        assert part.conditions is not None
        assert np.array_equal(part.conditions, masked.standardization.apply(visible))
    assert masked.train.conditions is not None
    shown = masked.train.conditions.reshape(-1, 4, 4)[:, [0, 3]]
    np.testing.assert_allclose(shown.mean(0), 0, atol=1e-6)
    np.testing.assert_allclose(shown.std(0), 1, atol=1e-6)
    examples = Examples(masked)
    assert examples.density is None
    assert examples.kind is not None
    assert (examples.kind.labels, examples.kind.width) == (False, 16)
    drawn, grid = examples.draw_conditions(stream(0, "y"), 50), examples.grid_vectors()
    assert drawn is not None
    assert grid is not None
    assert examples.conditions is not None
    for rows in (drawn, grid):
        assert (rows[:, None] == examples.conditions).all(2).any(1).all()
        assert (rows.view(-1, 4, 4)[:, 1:3] == 0).all()


@pytest.mark.parametrize("mask", [(0, 0, 4, 4), (0, 0, 5, 1), (3, 3, 1, 2), (-1, 0, 2, 2)])
def test_a_mask_must_lie_within_the_picture_and_leave_some_of_it(
    mask: tuple[int, int, int, int],
) -> None:
    with pytest.raises(DataError, match=r"hide a part of a picture of 4 x 4 pixels.*data\.mask"):
        conditioned(tiny_splits(), "masked_image", mask)


def test_condition_and_mask_must_fit_each_other() -> None:
    with pytest.raises(DataError, match="masked_image needs `mask`"):
        conditioned(tiny_splits(), "masked_image")
    with pytest.raises(DataError, match="given has no use for `mask`"):
        conditioned(tiny_splits(), "given", "centre")
