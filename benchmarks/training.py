"""Speed of one training step against a textbook loop and the roofline.

    python -m benchmarks.training [--setting paper|quick] [--steps N] [--json]

`paper` is the net and optimiser of Mirza & Osindero (2014), `quick` what the quick study of
`spaces/mnist.yaml` trains: halves joined by product, Adam. The textbook loop is described in
`benchmarks/textbook.py`; ours is `Member`: the same networks, mini-batches of 100. In
`alternating` the generator learns from the very fakes that the discriminator was shown, so that
it runs once a step: the quick study's setting, and the code of Goodfellow et al. (2014) shares the
noise too. With fresh noise it runs twice, as in Algorithm 1 of their text and in the textbook
loop. All play on the bundled digits on one thread, in turns, and every ratio is between
neighbours of one round.

The product rate is that of the fastest bare float32 product among the networks' own shapes. A
loop's share of it is (its products' FLOP a step) x (its steps a second) / (that rate). The
roofline of a step is its FLOP over the product rate plus the bytes of one optimiser sweep over
the rate of a plain copy.
"""

import argparse
import json
import statistics
import sys
import time
from dataclasses import dataclass

import torch

from benchmarks.parzen import processor
from benchmarks.roofline import copy_rate, gigaflop_of_a_step, product_rates, shapes, sweep_bytes
from benchmarks.textbook import TextbookLoop
from cgan_core.configs.mlp import MLPConfig
from cgan_core.data.digits import load_digits
from cgan_core.examples import Examples
from cgan_core.member import Member, count_parameters

REPEATS = 5
WARM_UP = 5
CHUNK = 5  # steps of one loop before the next has its turn
SETTINGS = {
    "paper": MLPConfig.paper(),
    "quick": MLPConfig.paper(
        optimizer="adam",
        learning_rate=1.5e-3,
        d_rate_ratio=0.6,
        noise="gaussian",
        g_join="product",
        g_noise_units=1000,
        g_dropout=0.4,
        d_join="product",
        d_condition_units=240,
        d_condition_dropout=0.0,
        d_condition_init_range=1.0,
        d_dropout=0.6,
    ),
}
OURS: dict[str, dict[str, object]] = {
    "alternating_float32": {"update": "alternating", "fresh_noise": False},
    "alternating_fresh_noise_float32": {"update": "alternating", "fresh_noise": True},
    "simultaneous_float32": {"update": "simultaneous"},
    "simultaneous_bfloat16": {"update": "simultaneous", "precision": "bfloat16"},
}


@dataclass(frozen=True)
class Round:
    """One round: the machine's rates, then each loop's speed.

    Args:
        products: GFLOP/s of the bare float32 products by shape.
        bfloat16_products: the same in bfloat16.
        copies: GB/s.
        speeds: steps a second by loop.
    """

    products: dict[str, float]
    bfloat16_products: dict[str, float]
    copies: float
    speeds: dict[str, float]

    @property
    def product_rate(self) -> float:
        """That of the fastest shape."""
        return max(self.products.values())


def loops(config: MLPConfig, examples: Examples) -> dict[str, TextbookLoop | Member]:
    """The loops to compare, at equal sizes."""
    textbook = TextbookLoop(config, examples)
    members = {
        name: Member(
            MLPConfig(**config.to_mapping() | {"fresh_noise": None} | changes),
            examples,
            seed=0,
        )
        for name, changes in OURS.items()
    }
    for member in members.values():
        assert count_parameters(member.generator) == count_parameters(textbook.generator)
        assert count_parameters(member.discriminator) == count_parameters(textbook.discriminator)
    return {"textbook": textbook} | members


def play(players: dict[str, TextbookLoop | Member], config: MLPConfig, num_steps: int) -> Round:
    """Measures machine and loops, one after another."""
    sizes = shapes(config, pixels=784)
    products = product_rates(sizes, torch.float32)
    in_bfloat16 = product_rates(sizes, torch.bfloat16)
    seconds = dict.fromkeys(players, 0.0)
    for _ in range(num_steps // CHUNK):  # in short turns, for a busy machine changes by the second
        for name, player in players.items():
            started = time.perf_counter()
            player.advance(CHUNK)
            seconds[name] += time.perf_counter() - started
    speeds = {name: num_steps // CHUNK * CHUNK / spent for name, spent in seconds.items()}
    return Round(products, in_bfloat16, copy_rate(), speeds)


def measure(setting: str, num_steps: int) -> dict[str, object]:
    """All figures of one run, as medians of interleaved rounds with their spread."""
    config = SETTINGS[setting]
    players = loops(config, Examples(load_digits("a benchmark")))
    work = {name: gigaflop_of_a_step(player.advance) for name, player in players.items()}
    for player in players.values():
        player.advance(WARM_UP)
    rounds = [play(players, config, num_steps) for _ in range(REPEATS)]
    textbook = players["textbook"]
    values = count_parameters(textbook.generator) + count_parameters(textbook.discriminator)
    sweep = sweep_bytes(config, values)
    ratios = {name: [r.speeds[name] / r.speeds["textbook"] for r in rounds] for name in OURS}
    shares = {
        name: [work[name] * r.speeds[name] / r.product_rate for r in rounds] for name in work
    }
    one_pass = "simultaneous_float32"
    rooflines = [
        r.speeds[one_pass] * (work[one_pass] / r.product_rate + sweep / 1e9 / r.copies)
        for r in rounds
    ]
    return {
        "ratios": medians(ratios),
        "roofline_fraction": statistics.median(rooflines),
        "ratio_spread": {name: spread(found) for name, found in ratios.items()},
        "roofline_fraction_spread": spread(rooflines),
        "gigaflop_per_step": work,
        "product_share": medians(shares),
        "product_share_spread": {name: spread(found) for name, found in shares.items()},
        **rates(rounds),
        **circumstances(setting, num_steps),
    }


def rates(rounds: list[Round]) -> dict[str, object]:
    """What the machine did, loop by loop and shape by shape."""
    speeds = {name: [r.speeds[name] for r in rounds] for name in rounds[0].speeds}
    by_shape = {name: [r.products[name] for r in rounds] for name in rounds[0].products}
    in_bfloat16 = {name: [r.bfloat16_products[name] for r in rounds] for name in by_shape}
    return {
        "steps_per_second": medians(speeds),
        "steps_per_second_spread": {name: spread(found) for name, found in speeds.items()},
        "product_gigaflops": statistics.median(r.product_rate for r in rounds),
        "product_gigaflops_by_shape": medians(by_shape),
        "bfloat16_product_gigaflops_by_shape": medians(in_bfloat16),
        "copy_gigabytes_per_second": statistics.median(r.copies for r in rounds),
    }


def medians(values: dict[str, list[float]]) -> dict[str, float]:
    """The median of each."""
    return {name: statistics.median(found) for name, found in values.items()}


def spread(values: list[float]) -> list[float]:
    """Smallest and largest."""
    return [min(values), max(values)]


def circumstances(setting: str, num_steps: int) -> dict[str, object]:
    """What a reader needs to judge the figures."""
    return {
        "setting": setting,
        "data": "bundled digits",
        "batch_size": SETTINGS[setting].batch_size,
        "steps": num_steps,
        "repeats": REPEATS,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "processor": processor(),
    }


def print_table(result: dict[str, object]) -> None:
    """Prints what `measure` found, for people."""

    def column(name: str) -> dict[str, float]:
        value = result[name]
        assert isinstance(value, dict)
        return value

    print(f"{'loop':32} {'steps/s':>8} {'GFLOP/step':>11} {'of product rate':>16} {'ratio':>6}")
    for name, ratio in ({"textbook": 1.0} | column("ratios")).items():
        speed, work = column("steps_per_second")[name], column("gigaflop_per_step")[name]
        share = column("product_share")[name]
        print(f"{name:32} {speed:8.1f} {work:11.2f} {share:16.2f} {ratio:6.2f}")
    for key, value in result.items():
        if not key.endswith("spread") and not isinstance(value, dict):
            print(f"{key}: {value}")


def main(arguments: list[str]) -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description="Speed of a training step.")
    parser.add_argument("--setting", choices=list(SETTINGS), default="paper")
    parser.add_argument("--steps", type=int, default=40, help="of each loop in each round")
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    options = parser.parse_args(arguments)
    if options.steps < CHUNK:
        parser.error(f"`steps >= {CHUNK}` must hold, but got steps={options.steps}")
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)  # as trials do
    torch.manual_seed(0)
    result = measure(options.setting, options.steps)
    if options.json:
        print(json.dumps(result))
    else:
        print_table(result)


if __name__ == "__main__":
    main(sys.argv[1:])
