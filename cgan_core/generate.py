"""Writes pictures of a trained model.

`python -m cgan_core.generate MODEL_DIR --condition 7 --count 16 --out grid.png`, or for condition
vectors `--condition-file FILE.npy` (or `.csv`): rows of values as they were measured.

The function `cgan_core.generate` is defined in `pictures.py`: nothing may import this module
under the package, or its name would hide the function's.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cgan_core.condition_file import read_conditions
from cgan_core.model import Model, ModelError
from cgan_core.pictures import generate, save_grid

DEFAULT_COUNT = 16  # pictures


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m cgan_core.generate", description="Generate pictures from a trained model."
    )
    parser.add_argument("model_dir", type=Path, help="folder with model.safetensors, config.json")
    parser.add_argument("--condition", type=int, help="label; every label in turn where absent")
    parser.add_argument(
        "--condition-file",
        type=Path,
        metavar="FILE.npy|csv",
        help="condition vectors, not standardised, a row each; every row in turn",
    )
    parser.add_argument(
        "--count", type=int, help="pictures (default: 16, or one a row of --condition-file)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the noise (default: 0)")
    parser.add_argument("--out", type=Path, required=True, help="FILE.png or FILE.npz")
    options = parser.parse_args(arguments)
    try:
        _write(options)
    except (ModelError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    return 0


def _write(options: argparse.Namespace) -> None:
    if options.count is not None and options.count < 1:
        raise ModelError(f"--count: `1 <= count` must hold, but got {options.count}")
    if options.out.suffix not in (".png", ".npz"):
        raise ModelError(f"--out: must end in .png or .npz, but got {options.out}")
    model = Model.load(options.model_dir)
    images = generate(model, _conditions(model, options), options.seed)
    if options.out.suffix == ".npz":
        options.out.parent.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(options.out, images=images)
    else:
        save_grid(images, options.out)


def _conditions(model: Model, options: argparse.Namespace) -> Tensor:
    if options.condition_file is None:
        return _labels(model, options.condition, options.count or DEFAULT_COUNT)
    if options.condition is not None:
        raise ModelError("--condition and --condition-file: give one of them")
    rows = read_conditions(options.condition_file, model)
    if model.standardization is not None:
        rows = model.standardization.apply(rows).astype(np.float64)
    count = options.count or len(rows)
    return torch.from_numpy(rows[np.arange(count) % len(rows)]).float()


def _labels(model: Model, condition: int | None, count: int) -> Tensor:
    """Returns one label many times, or every label in turn."""
    kind = model.condition
    if kind is not None and not kind.labels:
        raise ModelError("this model takes condition vectors: give --condition-file FILE.npy")
    if condition is not None:
        if kind is None:
            raise ModelError(f"--condition: this model takes none, but got {condition}")
        return torch.full((count,), condition)
    return torch.arange(count) % (kind.width if kind else 1)


if __name__ == "__main__":
    sys.exit(main())
