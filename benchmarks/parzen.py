"""Cost of the Parzen score against its floor and against the ways others compute it.

    python -m benchmarks.parzen [--points N] [--json]
    python -m benchmarks.parzen --truth

Ours is the whole protocol: both bandwidths from 1,000 points, then pooled and class-conditional
likelihoods of N points under N centres in 784 dimensions. The floor is the bare float32 product
`points @ centers.T`. The broadcast form is that of the 2014 code: differences, one bandwidth at a
time, 10 bandwidths and then the score. scikit-learn scores one bandwidth, and so do we beside it.

`--truth` compares 2,000 points under 2,000 centres with scikit-learn and with torch.distributions,
both in float64, and prints the worst differences in nats.
"""

import argparse
import json
import os
import platform
import resource
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.neighbors import KernelDensity
from torch import Tensor
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

from cgan_core.data.archive import read_archive
from cgan_core.parzen import log_likelihood, log_likelihoods, select_bandwidths

REPEATS = 5
BANDWIDTH = 0.17
SELECTION_POINTS = 1000
TRUTH_POINTS = 2000
FEW_POINTS = 50  # of the slow forms, extrapolated linearly in the number of points


def load_digits(count: int) -> tuple[Tensor, Tensor, Tensor, Tensor, str]:
    """`count` points and `count` centres with labels: MNIST where at hand, else synthetic."""
    file = Path(os.environ.get("CGAN_DATA_DIR", "")) / "mnist.npz"
    pixels: NDArray[np.float32]
    if file.is_file() and 2 * count <= 60_000:
        archive = read_archive(file)
        images = archive["x_train"][: 2 * count].reshape(2 * count, -1)
        labels = archive["y_train"][: 2 * count].astype(np.int64)
        pixels, source = images.astype(np.float32), "MNIST training images"
        pixels /= 255
    else:
        rng = np.random.default_rng(0)
        labels = rng.integers(10, size=2 * count)
        pixels = rng.random((10, 784), dtype=np.float32)[labels]
        pixels += rng.normal(0, 0.15, pixels.shape).astype(np.float32)
        pixels, source = pixels.clip(0, 1), "synthetic images"
    x, y = torch.from_numpy(pixels), torch.from_numpy(labels)
    return x[:count], y[:count], x[count:], y[count:], source


def broadcast(points: NDArray[np.float32], centers: NDArray[np.float32], sigma: float) -> None:
    """The broadcast form, ten points at a time."""
    for block in np.split(points, range(10, len(points), 10)):
        scaled = (block[:, None] - centers[None]) / sigma
        exponents = -0.5 * (scaled**2).sum(2)
        largest = exponents.max(1)
        np.log(np.exp(exponents - largest[:, None]).mean(1)) + largest


def seconds(call: Callable[[], object]) -> float:
    """Wall time of one call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def resident_bytes() -> int:
    """Memory of this process now (Linux)."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def peak_extra_mebibytes(call: Callable[[], object]) -> float:
    """Peak memory above what is held before the call; an upper bound."""
    before = resident_bytes()
    call()
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before) / 2**20


def processor() -> str:
    """Model name of the processor."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def measure(count: int) -> dict[str, object]:
    """All timings of one run, as medians of interleaved repeats."""
    x, y, s, t, source = load_digits(count)

    def protocol() -> None:
        sigma = select_bandwidths(x[:SELECTION_POINTS], s)["exact"]
        log_likelihoods(x, s, sigma, y, t)

    few = min(FEW_POINTS, count)
    window = KernelDensity(bandwidth=BANDWIDTH, leaf_size=count).fit(s.double().numpy())
    calls: dict[str, Callable[[], object]] = {
        "bare_product": lambda: x @ s.T,
        "protocol": protocol,
        "one_bandwidth": lambda: log_likelihood(x, s, BANDWIDTH),
        "broadcast_few": lambda: broadcast(x[:few].numpy(), s.numpy(), BANDWIDTH),
        "sklearn_few": lambda: window.score_samples(x[:few].double().numpy()),
    }
    x[:100] @ s.T  # the library's own buffers are not ours
    extra = peak_extra_mebibytes(protocol)
    rounds = [{name: seconds(call) for name, call in calls.items()} for _ in range(REPEATS)]
    medians = {name: statistics.median(r[name] for r in rounds) for name in calls}
    evaluations = (10 * min(SELECTION_POINTS, count) + count) / few
    medians["broadcast_protocol"] = medians["broadcast_few"] * evaluations
    medians["sklearn_one_bandwidth"] = medians["sklearn_few"] * count / few
    ours = log_likelihood(x[:few], s, BANDWIDTH).numpy()
    worst = float(np.abs(ours - window.score_samples(x[:few].double().numpy())).max())
    return {
        "ratios": {
            "ours_over_bare_product": medians["protocol"] / medians["bare_product"],
            "broadcast_over_ours": medians["broadcast_protocol"] / medians["protocol"],
            "sklearn_over_ours": medians["sklearn_one_bandwidth"] / medians["one_bandwidth"],
        },
        "seconds": medians,
        "peak_extra_mebibytes": extra,
        "worst_difference_from_sklearn_nats": worst,
        "extrapolated": f"broadcast and sklearn from {few} points, linearly in the points",
        "points": count,
        "centers": count,
        "dim": x.shape[1],
        "data": source,
        "repeats": REPEATS,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "processor": processor(),
    }


def mixture(points: Tensor, centers: Tensor, bandwidth: float) -> Tensor:
    """The density by torch.distributions in float64, a few points at a time."""
    means = centers.double()
    normals = Independent(Normal(means, torch.full_like(means, bandwidth)), 1)
    window = MixtureSameFamily(Categorical(logits=means.new_zeros(len(means))), normals)
    return torch.cat([window.log_prob(block) for block in points.double().split(2)])


def print_truth() -> None:
    """Worst differences over all points, for digits and for centres that nearly repeat points."""
    x, _, s, _, source = load_digits(TRUTH_POINTS)
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    cases = [("digits", s, sigma) for sigma in (0.02, 0.1, 0.2154, 1.0)]
    cases += [("near-duplicates", x + 1e-3 * noise, sigma) for sigma in (0.02, 0.2154)]
    print(f"{TRUTH_POINTS} points and centres, {source}; worst difference in nats")
    print(f"{'centres':16} {'sigma':>7} {'scikit-learn':>13} {'torch':>9} {'them apart':>11}")
    for name, centers, sigma in cases:
        ours = log_likelihood(x, centers, sigma)
        window = KernelDensity(bandwidth=sigma, leaf_size=len(centers)).fit(centers.double())
        theirs = torch.from_numpy(window.score_samples(x.double().numpy()))
        others = mixture(x, centers, sigma)
        worst = [float((a - b).abs().max()) for a, b in ((ours, theirs), (ours, others))]
        apart = float((theirs - others).abs().max())
        print(f"{name:16} {sigma:7.4f} {worst[0]:13.1e} {worst[1]:9.1e} {apart:11.1e}", flush=True)


def print_table(result: dict[str, object], medians: dict[str, float]) -> None:
    """Prints what `measure` found, for people."""
    print(f"{'what':34} {'seconds':>9} {'over bare product':>18}")
    for name in (
        "bare_product",
        "protocol",
        "one_bandwidth",
        "sklearn_one_bandwidth",
        "broadcast_protocol",
    ):
        note = " (extrapolated)" if name.startswith(("sklearn", "broadcast")) else ""
        ratio = medians[name] / medians["bare_product"]
        print(f"{name + note:34} {medians[name]:9.2f} {ratio:18.2f}")
    for key, value in result.items():
        if key != "seconds":
            print(f"{key}: {value}")


def main(arguments: list[str]) -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description="Cost of the Parzen score.")
    parser.add_argument("--points", type=int, default=10_000, help="points, and centres")
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    parser.add_argument("--truth", action="store_true", help="compare values, not times")
    options = parser.parse_args(arguments)
    if options.points < 1:
        parser.error(f"`points >= 1` must hold, but got points={options.points}")
    if options.truth:
        print_truth()
        return
    result = measure(options.points)
    if options.json:
        print(json.dumps(result))
        return
    medians = result["seconds"]
    assert isinstance(medians, dict)
    print_table(result, medians)


if __name__ == "__main__":
    main(sys.argv[1:])
