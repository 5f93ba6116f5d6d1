"""Everything that needs a GPU, over as many calls as it takes.

    CGAN_DATA_DIR=... python -m benchmarks.gpu [--minutes 8] [--out runs/bench-gpu]

Measures training of 1 to 64 fused members beside the textbook loop on the same device, the Parzen
score, and one population that trains the paper's 287,829 updates. What is done is kept in the
output folder: call it again to go on. Each call prints one JSON object at its end. It needs what
`cgan_core` needs (torch, numpy, safetensors, jaxtyping) and nothing else. `--device cpu --tiny`
goes the same way on toy sizes.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu_population import Job, measure_parzen, read_configurations
from benchmarks.gpu_speed import CHANGES, Bench, measure_training
from cgan_core.configs.mlp import MLPConfig
from cgan_core.data import DataSplits, LabeledImages, load_data
from cgan_core.data.folds import leave_out
from cgan_core.evaluation import Evaluator, protocol_for

CONFIGURATIONS = Path(__file__).with_name("gpu_configurations.json")
POPULATION = "population"
TINY_NETS = {
    **{"noise_dim": 5, "g_noise_units": 6, "g_condition_units": 6, "g_joint_units": 8},
    **{"d_image_units": 6, "d_image_pieces": 2, "d_condition_units": 6, "d_joint_units": 5},
    "batch_size": 20,
}

Measure = Callable[[], dict[str, Any]]


@dataclass(frozen=True)
class Sizes:
    """How much is measured."""

    members: tuple[int, ...]
    seconds: float  # of each measurement
    steps: int  # of a population at a stretch
    parzen_points: int
    population_steps: int
    population_stretch: int
    reserve_seconds: float  # kept back of each call for a last checkpoint


FULL = Sizes((64, 32, 16, 8, 4, 2, 1), 0.3, 50, 10_000, 287_829, 500, 30.0)
TINY = Sizes((2, 1), 0.01, 2, 200, 20, 5, 0.0)


class Session:
    """One call: what is left to do, and until when.

    Args:
        device: where everything is measured.
        out: folder of the results.
        tiny: whether toy sizes are enough.
        minutes: after which no measurement is begun; at least one is made.
    """

    def __init__(self, device: str, out: Path, *, tiny: bool, minutes: float) -> None:
        self.device, self.out, self.sizes = device, out, TINY if tiny else FULL
        self.deadline = time.monotonic() + 60 * minutes - self.sizes.reserve_seconds
        self.configs = read_configurations(CONFIGURATIONS)
        splits = load_data("mnist")
        protocol = protocol_for(splits)
        if tiny:
            self.configs, splits = [tiny_net(config) for config in self.configs[:3]], few(splits)
            protocol = replace(protocol, num_samples=100, num_bandwidth_points=100)
        self.evaluator = Evaluator(splits, protocol, device)
        out.mkdir(parents=True, exist_ok=True)

    def run(self) -> None:
        """Does what is left, as far as time allows."""
        for name, measure in self.parts():
            if self.is_done(name):
                continue
            print(f"{name} ...", file=sys.stderr, flush=True)
            self._path(name).write_text(json.dumps(attempted(measure), indent=1) + "\n")
            if time.monotonic() >= self.deadline:
                return

    def parts(self) -> Iterator[tuple[str, Measure]]:
        """Yields what is measured in one go, by name."""
        splits, sizes = self.evaluator.splits, self.sizes
        bench = Bench(
            self.device, self.evaluator.examples, self.configs[0], sizes.seconds, sizes.steps
        )
        count, wait = sizes.parzen_points, bench.synchronize
        yield "parzen", partial(measure_parzen, self.evaluator, count, wait)
        for eager in (True,) if self.device == "cpu" else (False, True):
            for kind in CHANGES:
                for members in sizes.members:
                    name = f"{kind}-{members}-{'eager' if eager else 'graph'}"
                    yield name, partial(measure_training, bench, kind, members, eager=eager)
        folder = self.out / "checkpoint"
        steps, stretch = sizes.population_steps, sizes.population_stretch
        job = Job(self.configs, splits, self.device, steps, stretch, folder)
        yield POPULATION, partial(job.run, self.evaluator, self.deadline)

    def is_done(self, name: str) -> bool:
        """Whether a part is measured; the population is once its members are scored."""
        found = self._found(name)
        return found is not None and (name != POPULATION or "members" in found)

    def report(self) -> dict[str, Any]:
        """Returns all that was found so far, and what is left."""
        names = [name for name, _ in self.parts()]
        return {
            "left": [name for name in names if not self.is_done(name)],
            "device": device_name(self.device),
            "torch": torch.__version__,
            "data": self.evaluator.splits.source,
            "results": {name: found for name in names if (found := self._found(name))},
        }

    def _path(self, name: str) -> Path:
        return self.out / f"{name}.json"

    def _found(self, name: str) -> dict[str, Any] | None:
        path = self._path(name)
        return json.loads(path.read_text()) if path.exists() else None


def attempted(measure: Measure) -> dict[str, Any]:
    """Returns what was measured, or that the device's memory was too small for it."""
    try:
        return measure()
    except torch.OutOfMemoryError as error:
        return {"out_of_memory": str(error).partition("\n")[0]}


def tiny_net(config: MLPConfig) -> MLPConfig:
    """Returns a configuration with a few units a layer."""
    return MLPConfig(**config.to_mapping() | TINY_NETS)


def few(splits: DataSplits, images: int = 500) -> DataSplits:
    """Returns some images of each part."""

    def some(part: LabeledImages) -> LabeledImages:
        folds = max(2, len(part) // images)
        return leave_out(replace(splits, train=part), 0, folds, seed=0)[1]

    return replace(
        splits,
        train=some(splits.train),
        validation=some(splits.validation),
        test=some(splits.test),
    )


def device_name(device: str) -> str:
    """Returns what the device calls itself."""
    return torch.cuda.get_device_name(device) if device.startswith("cuda") else device


def main(arguments: list[str]) -> int:
    """Runs the benchmark; returns the exit status."""
    parser = argparse.ArgumentParser(description="Fused training and Parzen scores on a GPU.")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--minutes", type=float, default=8.0, help="of this call, at most")
    parser.add_argument("--out", type=Path, default=Path("runs/bench-gpu"))
    parser.add_argument("--tiny", action="store_true", help="toy sizes, to see that all works")
    options = parser.parse_args(arguments)
    if options.device.startswith("cuda") and not torch.cuda.is_available():
        print("torch sees no GPU here, so nothing was measured", file=sys.stderr)
        return 2
    session = Session(options.device, options.out, tiny=options.tiny, minutes=options.minutes)
    session.run()
    report = session.report()
    (options.out / "result.json").write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps(report))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
