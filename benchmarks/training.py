"""Speed of one training step at the paper's sizes against a textbook loop and the roofline.

    python -m benchmarks.training [--steps N] [--json]

The textbook loop is that of well-known tutorials: two discriminator passes, real and fake, each
with its own backward; the generator run again for its own step, whose backward also fills the
discriminator's weight gradients that nobody uses; one-hot labels through `nn.Linear`;
`nn.Dropout`; `torch.optim.SGD` with momentum as it comes; the images in memory as float32. Ours is
`Member`: the same networks, mini-batches of 100, Algorithm 1 with fresh noise. Both play on the
bundled digits on one thread, in turns, and every ratio is between neighbours of one round.

The product rate is that of the fastest bare float32 product among the networks' own shapes. A
loop's share of it is (its products' FLOP a step) x (its steps a second) / (that rate).
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.parzen import processor
from cgan_core.config import GANConfig
from cgan_core.data.digits import load_digits
from cgan_core.examples import Examples
from cgan_core.member import Member, count_parameters

REPEATS = 5
WARM_UP = 5
BATCH, PIXELS, CLASSES, NOISE = 100, 784, 10, 100
SHAPES = {  # rows, inner, columns of the large products, forward
    "image, real and fake": (2 * BATCH, PIXELS, 1200),
    "image, fake": (BATCH, PIXELS, 1200),
    "generator joint": (BATCH, 1200, 1200),
    "generator image": (BATCH, 1200, PIXELS),
    "joint, real and fake": (2 * BATCH, 290, 960),
    "weight gradient of image": (1200, 2 * BATCH, PIXELS),
}
PRODUCT_SECONDS = 0.1  # for each shape in each round


class TextbookMaxout(nn.Module):
    """Maxout by a view and a maximum over its last axis."""

    def __init__(self, width: int, units: int, pieces: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, units * pieces)
        self.units, self.pieces = units, pieces

    def forward(self, x: Tensor) -> Tensor:
        """Applies the layer."""
        affine: Tensor = self.linear(x)
        return affine.view(-1, self.units, self.pieces).max(2)[0]


class TextbookGenerator(nn.Module):
    """The paper's generator as tutorials write it."""

    def __init__(self) -> None:
        super().__init__()
        self.noise = nn.Sequential(nn.Linear(NOISE, 200), nn.ReLU(), nn.Dropout(0.5))
        self.label = nn.Sequential(nn.Linear(CLASSES, 1000), nn.ReLU(), nn.Dropout(0.5))
        self.joint = nn.Sequential(nn.Linear(1200, 1200), nn.ReLU(), nn.Dropout(0.5))
        self.image = nn.Sequential(nn.Linear(1200, PIXELS), nn.Sigmoid())

    def forward(self, z: Tensor, y: Tensor) -> Tensor:
        """Generates images."""
        images: Tensor = self.image(self.joint(torch.cat([self.noise(z), self.label(y)], 1)))
        return images


class TextbookDiscriminator(nn.Module):
    """The paper's discriminator as tutorials write it."""

    def __init__(self) -> None:
        super().__init__()
        self.image = nn.Sequential(TextbookMaxout(PIXELS, 240, 5), nn.Dropout(0.5))
        self.label = nn.Sequential(TextbookMaxout(CLASSES, 50, 5), nn.Dropout(0.5))
        self.joint = nn.Sequential(
            TextbookMaxout(290, 240, 4), nn.Dropout(0.5), nn.Linear(240, 1), nn.Sigmoid()
        )

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Returns the probability of "real"."""
        probability: Tensor = self.joint(torch.cat([self.image(x), self.label(y)], 1))
        return probability


class TextbookLoop:
    """Alternating training as tutorials write it."""

    def __init__(self, examples: Examples) -> None:
        self.images, labels = examples.batch(torch.arange(len(examples)))
        assert labels is not None
        self.labels = functional.one_hot(labels, CLASSES).float()
        self.generator, self.discriminator = TextbookGenerator(), TextbookDiscriminator()
        self.g_optimizer = torch.optim.SGD(self.generator.parameters(), lr=0.1, momentum=0.5)
        self.d_optimizer = torch.optim.SGD(self.discriminator.parameters(), lr=0.1, momentum=0.5)
        self.loss = nn.BCELoss()
        self.ones, self.zeros = torch.ones(BATCH, 1), torch.zeros(BATCH, 1)

    def advance(self, num_steps: int) -> None:
        """Makes steps."""
        for _ in range(num_steps):
            self._step()

    def _fake_inputs(self) -> tuple[Tensor, Tensor]:
        labels = torch.randint(0, CLASSES, (BATCH,))
        return torch.rand(BATCH, NOISE), functional.one_hot(labels, CLASSES).float()

    def _step(self) -> None:
        rows = torch.randint(0, len(self.images), (BATCH,))
        x, y = self.images[rows], self.labels[rows]
        self.d_optimizer.zero_grad()
        self.loss(self.discriminator(x, y), self.ones).backward()
        z, fake_y = self._fake_inputs()
        fake = self.generator(z, fake_y).detach()
        self.loss(self.discriminator(fake, fake_y), self.zeros).backward()
        self.d_optimizer.step()
        self.g_optimizer.zero_grad()
        z, fake_y = self._fake_inputs()
        judged = self.discriminator(self.generator(z, fake_y), fake_y)
        self.loss(judged, self.ones).backward()
        self.g_optimizer.step()


def product_rates() -> dict[str, float]:
    """Operations a second of each bare product, in GFLOP/s."""
    rates = {}
    for name, (rows, inner, columns) in SHAPES.items():
        a, b = torch.rand(rows, inner), torch.rand(inner, columns)
        out = torch.empty(rows, columns)
        torch.mm(a, b, out=out)
        count, started = 0, time.perf_counter()
        while (spent := time.perf_counter() - started) < PRODUCT_SECONDS:
            torch.mm(a, b, out=out)
            count += 1
        rates[name] = 2 * rows * inner * columns * count / spent / 1e9
    return rates


def gigaflop_of_a_step(advance: Callable[[int], None]) -> float:
    """Operations of one step's matrix products, in GFLOP."""
    with FlopCounterMode(display=False) as counter:
        advance(1)
    return float(counter.get_total_flops()) / 1e9


def steps_per_second(advance: Callable[[int], None], num_steps: int) -> float:
    """Speed of a loop."""
    started = time.perf_counter()
    advance(num_steps)
    return num_steps / (time.perf_counter() - started)


def loops() -> dict[str, Callable[[int], None]]:
    """The loops to compare, at equal sizes."""
    examples = Examples(load_digits("a benchmark"))
    textbook = TextbookLoop(examples)
    member = Member(GANConfig.paper(), examples, seed=0)
    for ours, theirs in (
        (member.generator, textbook.generator),
        (member.discriminator, textbook.discriminator),
    ):
        assert count_parameters(ours) == count_parameters(theirs)
    return {"textbook": textbook.advance, "alternating_float32": member.advance}


def one_round(
    calls: dict[str, Callable[[int], None]], num_steps: int
) -> tuple[float, dict[str, float], dict[str, float]]:
    """The best product rate, that of each shape, and the speed of each loop, one after another."""
    rates = product_rates()
    speeds = {name: steps_per_second(call, num_steps) for name, call in calls.items()}
    return max(rates.values()), rates, speeds


def measure(num_steps: int) -> dict[str, object]:
    """All figures of one run, as medians of interleaved rounds with their spread."""
    calls = loops()
    work = {name: gigaflop_of_a_step(call) for name, call in calls.items()}
    for call in calls.values():
        call(WARM_UP)
    rounds = [one_round(calls, num_steps) for _ in range(REPEATS)]
    shares = {
        name: [work[name] * speeds[name] / best for best, _, speeds in rounds] for name in calls
    }
    ratios = [speeds["alternating_float32"] / speeds["textbook"] for _, _, speeds in rounds]
    by_loop = {name: [speeds[name] for _, _, speeds in rounds] for name in calls}
    return {
        "ratios": {
            "alternating_float32": statistics.median(ratios),
            "simultaneous_float32": None,  # not built yet
            "simultaneous_bfloat16": None,
        },
        "roofline_fraction": None,  # of simultaneous float32
        "ratio_spread": {"alternating_float32": spread(ratios)},
        "steps_per_second": {name: statistics.median(v) for name, v in by_loop.items()},
        "steps_per_second_spread": {name: spread(v) for name, v in by_loop.items()},
        "gigaflop_per_step": work,
        "product_share": {name: statistics.median(v) for name, v in shares.items()},
        "product_share_spread": {name: spread(v) for name, v in shares.items()},
        "product_gigaflops": statistics.median(best for best, _, _ in rounds),
        "product_gigaflops_by_shape": {
            name: statistics.median(rates[name] for _, rates, _ in rounds) for name in SHAPES
        },
        **circumstances(num_steps),
    }


def spread(values: list[float]) -> list[float]:
    """Smallest and largest."""
    return [min(values), max(values)]


def circumstances(num_steps: int) -> dict[str, object]:
    """What a reader needs to judge the figures."""
    return {
        "data": "bundled digits",
        "batch_size": BATCH,
        "steps": num_steps,
        "repeats": REPEATS,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "processor": processor(),
    }


def print_table(result: dict[str, object]) -> None:
    """Prints what `measure` found, for people."""

    def column(name: str) -> dict[str, object]:
        value = result[name]
        assert isinstance(value, dict)
        return value

    print(f"{'loop':24} {'steps/s':>8} {'GFLOP/step':>11} {'of product rate':>16} {'ratio':>6}")
    ratios = {"textbook": 1.0} | column("ratios")
    for name, ratio in ratios.items():
        if ratio is None:
            print(f"{name:24} not built yet")
            continue
        speed, work = column("steps_per_second")[name], column("gigaflop_per_step")[name]
        share = column("product_share")[name]
        print(f"{name:24} {speed:8.1f} {work:11.2f} {share:16.2f} {ratio:6.2f}")
    for key, value in result.items():
        if key.endswith("spread") or not isinstance(value, dict):
            print(f"{key}: {'not built yet' if value is None else value}")


def main(arguments: list[str]) -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description="Speed of a training step.")
    parser.add_argument("--steps", type=int, default=60, help="of each loop in each round")
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    options = parser.parse_args(arguments)
    if options.steps < 1:
        parser.error(f"`steps >= 1` must hold, but got steps={options.steps}")
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)  # as trials do
    torch.manual_seed(0)
    result = measure(options.steps)
    if options.json:
        print(json.dumps(result))
    else:
        print_table(result)


if __name__ == "__main__":
    main(sys.argv[1:])
