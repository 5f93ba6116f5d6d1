import math
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.neighbors import KernelDensity
from torch import Tensor
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

from cgan_core import curve as curve_module
from cgan_core import distances, screen
from cgan_core.nearest import nearest
from cgan_core.parzen import (
    conditional_log_likelihood,
    log_likelihood,
    log_likelihoods,
    select_bandwidth,
    select_bandwidths,
)

NATS = 1e-3  # what the project promises against float64


def mixture(points: Tensor, centers: Tensor, bandwidth: float) -> Tensor:
    """The same density by torch.distributions in float64, some points at a time."""
    means = centers.double()
    normals = Independent(Normal(means, torch.full_like(means, bandwidth)), 1)
    equal = Categorical(logits=means.new_zeros(len(means)))
    window = MixtureSameFamily(equal, normals)
    return torch.cat([window.log_prob(block) for block in points.double().split(16)])


def kernel_density(points: Tensor, centers: Tensor, bandwidth: float) -> Tensor:
    """The same density by scikit-learn; its default leaf size is wrong by 100 nats here."""
    window = KernelDensity(bandwidth=bandwidth, leaf_size=len(centers)).fit(centers.double())
    return torch.as_tensor(window.score_samples(points.double()))


def direct(points: Tensor, centers: Tensor, bandwidth: float) -> Tensor:
    """The definition in float64, fast enough for whole sets."""
    x, s = points.double(), centers.double()
    squares = x.square().sum(1)[:, None] + s.square().sum(1) - 2 * x @ s.T
    volume = x.shape[1] / 2 * math.log(2 * math.pi * bandwidth**2)
    return (-squares / (2 * bandwidth**2)).logsumexp(1) - math.log(len(s)) - volume


@pytest.fixture(scope="module")
def digits() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """2,000 points and 2,000 centres in 784 dimensions with their classes; real where at hand."""
    file = Path(os.environ.get("CGAN_DATA_DIR", "")) / "mnist.npz"
    if file.is_file():
        with np.load(file) as archive:
            images = archive["x_train"][:4000].reshape(4000, -1).astype(np.float32) / 255
            labels = archive["y_train"][:4000].astype(np.int64)
    else:
        images, labels = sparse_images(4000)
    x, y = torch.from_numpy(images), torch.from_numpy(labels)
    return x[:2000], y[:2000], x[2000:], y[2000:]


def sparse_images(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Class prototypes moved along a few directions each: four fifths of the pixels are zero."""
    rng = np.random.default_rng(0)
    labels = rng.integers(10, size=count)
    prototypes = np.maximum(rng.normal(-0.8, 1, (10, 784)), 0)
    strokes = rng.normal(0, 0.3, (10, 20, 784)) * (prototypes > 0)[:, None]
    moves = np.einsum("nk,nkd->nd", rng.normal(size=(count, 20)), strokes[labels])
    return np.clip(prototypes[labels] + moves, 0, 1).astype(np.float32), labels


def random_sets(seed: int, dim: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    points = torch.randn(150, dim, generator=generator, dtype=dtype)
    return points, torch.randn(333, dim, generator=generator, dtype=dtype)


@pytest.mark.parametrize("bandwidth", [0.02, 0.2154, 1.0])
def test_digits_agree_with_scikit_learn(digits: tuple[Tensor, ...], bandwidth: float) -> None:
    points, _, centers, _ = digits
    # ours on all 2,000 x 2,000; theirs takes a second per 500 points
    rows = slice(None) if bandwidth == 0.2154 else slice(500)
    ours = log_likelihood(points, centers, bandwidth)[rows]
    theirs = kernel_density(points[rows], centers, bandwidth)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=NATS)


def test_digits_agree_with_torch_distributions(digits: tuple[Tensor, ...]) -> None:
    points, _, centers, _ = digits
    for bandwidth in (0.1, 0.3):
        ours = log_likelihood(points, centers, bandwidth)[:16]
        torch.testing.assert_close(
            ours, mixture(points[:16], centers, bandwidth), rtol=0, atol=NATS
        )


@pytest.mark.parametrize("copies", [1, 4, 40])
def test_near_duplicates_at_a_small_bandwidth(digits: tuple[Tensor, ...], copies: int) -> None:
    points = digits[0][:200]
    noise = torch.randn(200 * copies, 784, generator=torch.Generator().manual_seed(1))
    centers = points.repeat(copies, 1) + 1e-3 * noise
    ours = log_likelihood(points, centers, 0.02)
    torch.testing.assert_close(ours, direct(points, centers, 0.02), rtol=0, atol=NATS)


def test_collapsed_samples_are_measured_in_full(digits: tuple[Tensor, ...]) -> None:
    # 500 centres on each of 4 images: far more near centres than a screen keeps
    points, labels, centers, _ = digits
    noise = torch.randn(2000, 784, generator=torch.Generator().manual_seed(1))
    collapsed = centers[:4].repeat(500, 1) + 1e-4 * noise
    near = screened(points, collapsed, 0.01)
    assert near.crowded.all()
    ours = log_likelihoods(points, collapsed, 0.02, labels, torch.arange(2000) % 4)
    assert (ours.pooled - direct(points, collapsed, 0.02)).abs().max() < 1e-6
    assert ours.conditional is not None
    second = labels == 1
    own = direct(points[second], collapsed[1::4], 0.02)
    assert (ours.conditional[second] - own).abs().max() < 1e-6
    assert (ours.conditional[labels > 3] == -math.inf).all()


@pytest.mark.parametrize("dim", [1, 2, 17])
@pytest.mark.parametrize("seed", range(3))
def test_float64_agrees_to_rounding(seed: int, dim: int) -> None:
    points, centers = random_sets(seed, dim, torch.float64)
    ours = log_likelihood(points, centers, 0.5)
    torch.testing.assert_close(ours, mixture(points, centers, 0.5), rtol=1e-11, atol=1e-11)


def test_float64_on_either_side_means_float64_products(digits: tuple[Tensor, ...]) -> None:
    points, centers = digits[0][:100], digits[2]
    truth = direct(points, centers, 1.0)
    for pair in ((points.double(), centers), (points, centers.double())):
        torch.testing.assert_close(log_likelihood(*pair, 1.0), truth, rtol=0, atol=1e-10)


def test_integrates_to_one() -> None:
    centers = torch.tensor([[-1.0], [0.25], [0.3], [2.0]])
    x = torch.linspace(-9, 9, 20_001)
    density = log_likelihood(x[:, None], centers, 0.4).exp()
    assert float(torch.trapezoid(density, x.double())) == pytest.approx(1, abs=1e-6)


def test_one_center_is_one_gaussian() -> None:
    points, centers = random_sets(0, 5)
    value = log_likelihood(points, centers[:1], 0.7)
    squares = (points.double() - centers[:1].double()).square().sum(1)
    truth = -squares / (2 * 0.49) - 2.5 * math.log(2 * math.pi * 0.49)
    torch.testing.assert_close(value, truth, rtol=1e-6, atol=1e-6)


def test_values_do_not_depend_on_tiles_or_on_order(
    digits: tuple[Tensor, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    points, labels, centers, center_labels = digits
    before = log_likelihoods(points, centers, 0.2, labels, center_labels)
    order = torch.randperm(len(centers), generator=torch.Generator().manual_seed(0))
    monkeypatch.setattr(distances, "TILE_BYTES", {"cpu": 37 * 4 * len(centers), "cuda": 2**20})
    after = log_likelihoods(points, centers[order], 0.2, labels, center_labels[order])
    for old, new in zip(before, after, strict=True):
        assert old is not None
        torch.testing.assert_close(new, old, rtol=0, atol=NATS / 2)


def test_far_points_do_not_underflow() -> None:
    points, centers = random_sets(0, 3)
    far = points * 1e4
    value = log_likelihood(far, centers, 0.1)
    assert value.isfinite().all()
    torch.testing.assert_close(value, direct(far, centers, 0.1), rtol=1e-6, atol=0)


def test_conditional_is_pooled_over_the_own_class(digits: tuple[Tensor, ...]) -> None:
    points, labels, centers, center_labels = digits
    both = log_likelihoods(points, centers, 0.2, labels, center_labels)
    torch.testing.assert_close(both.pooled, log_likelihood(points, centers, 0.2))
    assert both.conditional is not None
    for label in labels.unique().tolist():
        mine = labels == label
        own = log_likelihood(points[mine], centers[center_labels == label], 0.2)
        torch.testing.assert_close(both.conditional[mine], own, rtol=0, atol=NATS / 2)
    thin = conditional_log_likelihood(points, labels, centers, center_labels, 0.2)
    torch.testing.assert_close(thin, both.conditional)


def test_wrong_labels_cost_hundreds_of_nats_without_underflow(
    digits: tuple[Tensor, ...],
) -> None:
    points, labels, centers, center_labels = digits
    shuffled = (center_labels + 1) % 10
    wrong = log_likelihoods(points, centers, 0.05, labels, shuffled)
    right = log_likelihoods(points, centers, 0.05, labels, center_labels)
    assert wrong.conditional is not None
    assert right.conditional is not None
    assert wrong.conditional.isfinite().all()
    torch.testing.assert_close(wrong.pooled, right.pooled)
    assert wrong.conditional.mean() < right.conditional.mean() - 100


def test_a_class_without_centers_is_impossible() -> None:
    points, centers = random_sets(0, 4)
    labels = torch.arange(len(points)) % 3
    value = conditional_log_likelihood(
        points, labels, centers, torch.arange(len(centers)) % 2, 1.0
    )
    assert (value[labels == 2] == -math.inf).all()
    assert value[labels < 2].isfinite().all()


@pytest.fixture(params=[torch.bfloat16, torch.float32])
def product_dtype(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> torch.dtype:
    """Either kind of product, whatever the processor likes; slow here is right all the same."""
    dtype: torch.dtype = request.param
    monkeypatch.setattr(screen, "screen_dtype", lambda device: dtype)
    return dtype


def screened(points: Tensor, centers: Tensor, reach: float) -> screen.Near:
    prepared = screen.Screen(centers)
    return prepared.near(points, prepared.scores(points), reach)


@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e6])
@pytest.mark.parametrize("offset", [0.0, 30.0])
def test_a_screen_keeps_all_that_are_near(
    product_dtype: torch.dtype, scale: float, offset: float
) -> None:
    # few dimensions, many ties, one far centre that spoils the bound: nothing may be lost
    points, centers = random_sets(0, 40)
    centers = torch.cat([centers, points[:20], points[:20]])
    points, centers = (points + offset) * scale, (centers + offset) * scale
    centers[7] *= 3
    reach = 5.0 * scale**2
    near = screened(points, centers, reach)
    squares = torch.cdist(points.double(), centers.double()).square() / 2
    wanted = squares <= squares.amin(1, keepdim=True) + reach
    kept = torch.zeros_like(wanted)
    rows, slots = near.half_squares.isfinite().nonzero(as_tuple=True)
    kept[rows, near.centers[rows, slots]] = True
    assert (kept | near.crowded[:, None] | ~wanted).all()
    if scale == 1 and offset == 0:
        assert not near.crowded.any()
        assert kept.sum() < 0.5 * kept.numel()
    truth = squares[rows, near.centers[rows, slots]]
    torch.testing.assert_close(
        near.half_squares[rows, slots], truth, rtol=1e-5, atol=1e-5 * scale**2
    )


def test_the_bound_holds_for_adversarial_rounding(product_dtype: torch.dtype) -> None:
    # every component rounds the same way, so that errors add instead of cancelling
    step = torch.finfo(product_dtype).eps
    points = torch.full((3, 512), 1 + 0.499 * step)
    points[1] = -points[1]
    centers = torch.cat([points * 0.999, points * 1.7, -points, torch.eye(512)[:40]])
    prepared = screen.Screen(centers)
    scores = prepared.scores(points)
    shift = centers.mean(0).bfloat16().double()
    x, s = points.double() - shift, centers.double() - shift
    truth = x @ s.T - s.square().sum(1) / 2
    columns = prepared._column_centers
    stored = scores.values.double()[:, columns >= 0]
    off = (stored - truth[:, columns[columns >= 0]]).abs()
    allowed = scores.errors[:, None] + stored.abs() * step
    assert (off <= allowed).all()


def test_values_do_not_depend_on_the_screen(
    digits: tuple[Tensor, ...], product_dtype: torch.dtype
) -> None:
    points, labels, centers, center_labels = (t[:600] for t in digits)
    ours = log_likelihoods(points, centers, 0.2, labels, center_labels)
    truth = log_likelihoods(points.double(), centers, 0.2, labels, center_labels)
    for value, expected in zip(ours, truth, strict=True):
        assert value is not None
        assert expected is not None
        torch.testing.assert_close(value, expected, rtol=0, atol=1e-4)
    bandwidths = select_bandwidths(points, centers)
    wide = select_bandwidths(points.double(), centers)
    assert bandwidths["grid"] == wide["grid"]
    assert bandwidths["exact"] == pytest.approx(wide["exact"], rel=1e-5)


def test_lowered_precision_is_raised_and_given_back() -> None:
    matmul = torch.backends.mkldnn.matmul  # type: ignore[attr-defined]  # made at run time
    before, matmul.fp32_precision = matmul.fp32_precision, "bf16"
    try:
        with distances.wide_accumulation(torch.device("cpu")):
            assert matmul.fp32_precision == "ieee"
        assert matmul.fp32_precision == "bf16"
    finally:
        matmul.fp32_precision = before


def test_values_beyond_the_screen_are_measured_in_full() -> None:
    points, centers = random_sets(0, 5)
    points, centers = points * 1e25, centers * 1e25  # squares are infinite in float32
    ours = log_likelihood(points, centers, 1e25)
    torch.testing.assert_close(ours, direct(points, centers, 1e25), rtol=1e-12, atol=0)


@pytest.mark.parametrize("copies", [1, 200])
def test_nearest_is_the_nearest(
    digits: tuple[Tensor, ...], product_dtype: torch.dtype, copies: int
) -> None:
    points, centers = digits[0][:100], digits[2][:300].repeat(copies, 1)[:2000]
    half_squares, rows = nearest(points, centers)
    differences = points.double()[:, None] - centers[:300].double()
    truth = differences.square().sum(2).amin(1) / 2
    torch.testing.assert_close(half_squares, truth, rtol=1e-10, atol=1e-10)
    mine = (points.double() - centers[rows].double()).square().sum(1) / 2
    torch.testing.assert_close(mine, truth, rtol=1e-12, atol=0)


@pytest.mark.parametrize("dim", [1, 3, 20])
@pytest.mark.parametrize("seed", range(4))
def test_exact_bandwidth_is_the_global_maximum(seed: int, dim: int) -> None:
    points, centers = random_sets(seed, dim, torch.float64)
    found = select_bandwidths(points, centers)

    def mean(bandwidth: float) -> float:
        return float(direct(points, centers, bandwidth).mean())

    best = mean(found["exact"])
    assert best >= mean(found["grid"])
    assert best >= max(mean(b) for b in np.geomspace(0.01, 10, 200)) - 1e-12
    assert best >= max(mean(found["exact"] * (1 + d)) for d in (-1e-4, 1e-4))


def test_grid_bandwidth_is_the_best_of_ten(digits: tuple[Tensor, ...]) -> None:
    points, _, centers, _ = digits
    ten = np.logspace(-1, 0, 10)
    means = [float(direct(points[:300], centers, b).mean()) for b in ten]
    found = select_bandwidths(points[:300], centers)
    assert found["grid"] == pytest.approx(ten[int(np.argmax(means))])
    assert float(direct(points[:300], centers, found["exact"]).mean()) >= max(means)


@pytest.mark.parametrize(("spread", "low", "high"), [(0.002, 0.0, 0.01), (0.02, 5.0, 15.0)])
def test_a_second_maximum_does_not_mislead(spread: float, low: float, high: float) -> None:
    # one centre among the points, a thousand at -10 and at 10: which scale is likelier depends
    # on how near the points are
    generator = torch.Generator().manual_seed(0)
    points = spread * torch.randn(50, 1, generator=generator, dtype=torch.float64)
    centers = points.new_tensor([-10.0] * 1000 + [0.0] + [10.0] * 1000)[:, None]
    sigmas = np.geomspace(0.001, 50, 500)
    means = np.array([float(direct(points, centers, b).mean()) for b in sigmas])
    assert ((means[1:-1] > means[:-2]) & (means[1:-1] > means[2:])).sum() == 2
    found = select_bandwidth(points, centers, "exact", (0.001, 50.0))
    assert low < found < high
    assert float(direct(points, centers, found).mean()) >= means.max() - 1e-9


def test_a_cache_that_does_not_fit_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    points, centers = random_sets(0, 20)
    before = select_bandwidths(points, centers)
    monkeypatch.setattr(curve_module, "CACHE_BYTES", 1000)
    monkeypatch.setattr(distances, "TILE_BYTES", {"cpu": 1000, "cuda": 1000})
    after = select_bandwidths(points, centers)
    assert after["grid"] == before["grid"]
    assert after["exact"] == pytest.approx(before["exact"], rel=1e-5)


def test_points_among_the_centers_give_the_lower_bound() -> None:
    _, centers = random_sets(0, 6)
    assert select_bandwidth(centers[:50], centers, "exact", (0.003, 2.0)) == 0.003


PEAK = """
import resource, sys, torch
from cgan_core.parzen import log_likelihoods
torch.set_num_threads(1)
def run(count):
    x, y = torch.rand(count, 8), torch.arange(count) % 10
    log_likelihoods(x, torch.rand(2000, 8), 0.3, y, torch.arange(2000) % 10)
run(2000)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
run(int(sys.argv[1]))
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""


def test_memory_does_not_grow_with_products() -> None:
    # all products of 40,000 points with 2,000 centres would be 305 MiB
    done = subprocess.run(
        [sys.executable, "-c", PEAK, "40000"],
        capture_output=True, text=True, check=True, cwd=Path(__file__).parents[1],
    )  # fmt: skip
    assert float(done.stdout) < 40  # MiB


POINTS = torch.zeros(3, 2)
BAD: list[tuple[str, Callable[[], object]]] = [
    (r"`bandwidth > 0` must hold, but got bandwidth=-1$",
     lambda: log_likelihood(POINTS, POINTS, -1.0)),
    (r"`bandwidth > 0` must hold, but got bandwidth=nan$",
     lambda: log_likelihood(POINTS, POINTS, math.nan)),
    (r"`bandwidth` finite must hold, but got bandwidth=inf$",
     lambda: log_likelihood(POINTS, POINTS, math.inf)),
    (r"`points` finite must hold, but got points\[0, 0\]=nan \(6 such values\)",
     lambda: log_likelihood(POINTS / 0, POINTS, 1.0)),
    (r"`centers` finite must hold, but got centers\[1, 0\]=inf",
     lambda: select_bandwidth(POINTS, torch.tensor([[0.0, 0.0], [math.inf, -math.inf]]))),
    (r"`len\(centers\) >= 1` must hold", lambda: log_likelihood(POINTS, POINTS[:0], 1.0)),
    (r"`len\(points\) >= 1` must hold", lambda: select_bandwidth(POINTS[:0], POINTS)),
    (r"`0 < low < high` must hold, but got bounds=\(1, 0.5\)",
     lambda: select_bandwidth(POINTS, POINTS, "exact", (1.0, 0.5))),
    (r"must be given together", lambda: log_likelihoods(POINTS, POINTS, 1.0, torch.arange(3))),
]  # fmt: skip


@pytest.mark.parametrize(("message", "call"), BAD)
def test_bad_input_is_refused_in_one_form(message: str, call: Callable[[], object]) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def test_shapes_that_do_not_fit_are_refused() -> None:
    # jaxtyping's checker, on in tests, speaks before our own ValueError
    with pytest.raises((ValueError, TypeError)):
        log_likelihood(POINTS, torch.zeros(3, 5), 1.0)
    with pytest.raises((ValueError, TypeError)):
        conditional_log_likelihood(POINTS, torch.arange(2), POINTS, torch.arange(3), 1.0)


def test_no_points_give_no_values() -> None:
    both = log_likelihoods(POINTS[:0], POINTS, 1.0, torch.arange(0), torch.arange(3))
    assert both.pooled.shape == (0,)
    assert both.conditional is not None
    assert both.conditional.shape == (0,)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_agrees_even_where_tf32_is_on(digits: tuple[Tensor, ...]) -> None:
    points, labels, centers, center_labels = digits
    truth = log_likelihoods(points, centers, 0.2, labels, center_labels)
    matmul = torch.backends.cuda.matmul
    before, matmul.fp32_precision = matmul.fp32_precision, "tf32"
    try:
        on_gpu = [t.cuda() for t in (points, centers, labels, center_labels)]
        ours = log_likelihoods(on_gpu[0], on_gpu[1], 0.2, on_gpu[2], on_gpu[3])
        assert matmul.fp32_precision == "tf32"
        exact = select_bandwidth(on_gpu[0], on_gpu[1])
    finally:
        matmul.fp32_precision = before
    for theirs, value in zip(truth, ours, strict=True):
        assert theirs is not None
        assert value is not None
        torch.testing.assert_close(value.cpu(), theirs, rtol=0, atol=NATS)
    assert exact == pytest.approx(select_bandwidth(points, centers), rel=1e-4)
