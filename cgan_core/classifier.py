"""A small classifier of a data set's images, trained once and kept: a judge of labels and classes.

It knows nothing of any generator. What it reads off samples is held against what it reads off
held-out real images, so it need not be good, only the same for all.
"""

import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float32, Int64
from torch import Tensor
from torch.nn import functional

from cgan_core.data import DataSplits
from cgan_core.data.places import cache_folder
from cgan_core.examples import Examples
from cgan_core.replacing import replacing
from cgan_core.streams import keep_mask, stream
from cgan_core.tensor_files import TensorFileError, read_tensors, write_tensors

HIDDEN_UNITS, FEATURES = 256, 64
BATCH_SIZE, MAX_STEPS, MAX_EPOCHS = 100, 2_000, 30
LEARNING_RATE, DROPOUT = 0.001, 0.25
ROWS = 1_000  # judged at once; bounds memory
VERSION = 1  # of how it is trained


@dataclass(frozen=True)
class Classifier:
    """Pixels -> 256 ReLU -> 64 ReLU (the features) -> one logit a class.

    Args:
        weights: `hidden`, `features` and `logits`, each with `.weight` and `.bias`.
    """

    weights: Mapping[str, Tensor]

    @classmethod
    def of(cls, splits: DataSplits, folder: Path | None = None) -> "Classifier":
        """Reads the classifier of a labelled data set, or trains and keeps it (seconds).

        Args:
            splits: whose training split it learns.
            folder: where classifiers are kept; default `classifiers` in the cache
                (`CGAN_CACHE_DIR`). One that cannot be written is trained again next time.
        """
        path = (folder or cache_folder() / "classifiers") / f"{key_of(splits)}.safetensors"
        with suppress(OSError, TensorFileError):
            return cls(read_tensors(path))
        classifier = cls(_train(splits))
        with suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(path) as partial:
                write_tensors(dict(classifier.weights), partial)
        return classifier

    @torch.no_grad()
    def features(
        self, images: Float32[Tensor, "images pixels"]
    ) -> Float32[Tensor, "images features"]:
        """The last hidden layer, of images in [0, 1]."""
        blocks = [self._features(rows) for rows in images.split(ROWS)]
        return torch.cat(blocks)

    @torch.no_grad()
    def classes(self, features: Float32[Tensor, "images features"]) -> Int64[Tensor, " images"]:
        """The likeliest class of each image, from its features."""
        return _affine(self.weights, "logits", features).argmax(1)

    def _features(self, images: Tensor) -> Tensor:
        hidden = functional.relu(_affine(self.weights, "hidden", images))
        return functional.relu(_affine(self.weights, "features", hidden))


def key_of(splits: DataSplits) -> str:
    """SHA-256 over the data's digest and all that defines the classifier."""
    definition = {
        "dataset": splits.digest,
        "units": [HIDDEN_UNITS, FEATURES],
        "training": [BATCH_SIZE, MAX_STEPS, MAX_EPOCHS, LEARNING_RATE, DROPOUT],
        "version": VERSION,
    }
    return hashlib.sha256(json.dumps(definition, sort_keys=True).encode()).hexdigest()


def _affine(weights: Mapping[str, Tensor], layer: str, values: Tensor) -> Tensor:
    return functional.linear(values, weights[f"{layer}.weight"], weights[f"{layer}.bias"])


def _train(splits: DataSplits) -> dict[str, Tensor]:
    """Minimises cross-entropy by Adam, the rate falling to 0, dropout on the hidden layers.

    On one thread, so that the result does not depend on how many the process has.
    """
    assert splits.num_classes is not None
    examples, before = Examples(splits), torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return _fit(examples, _initial(examples.pixels, splits.num_classes))
    finally:
        torch.set_num_threads(before)


def _initial(pixels: int, classes: int) -> dict[str, Tensor]:
    """Draws weights from U(-a, a), a^2 = 6 / inputs (He et al. 2015); biases are 0."""
    rng, weights, inputs = stream(0, "classifier weights"), {}, pixels
    for layer, units in (("hidden", HIDDEN_UNITS), ("features", FEATURES), ("logits", classes)):
        bound = (6 / inputs) ** 0.5
        values = torch.from_numpy(rng.uniform(-bound, bound, (units, inputs)))
        weights[f"{layer}.weight"] = values.float().requires_grad_()
        weights[f"{layer}.bias"] = torch.zeros(units, requires_grad=True)
        inputs = units
    return weights


def _fit(examples: Examples, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    size = min(BATCH_SIZE, len(examples))
    per_epoch = len(examples) // size
    steps = min(MAX_STEPS, MAX_EPOCHS * per_epoch)
    optimizer = torch.optim.Adam(weights.values(), lr=LEARNING_RATE, fused=True)
    for step in range(steps):
        epoch, position = divmod(step, per_epoch)
        if position == 0:
            order = stream(0, "classifier epoch", epoch).permutation(len(examples))
        rows = torch.from_numpy(order[position * size : (position + 1) * size])
        optimizer.param_groups[0]["lr"] = LEARNING_RATE * (1 - step / steps)
        images, labels = examples.batch(rows)
        assert labels is not None
        with torch.enable_grad():
            loss = functional.cross_entropy(_dropped_logits(weights, images, step), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return {name: value.detach() for name, value in weights.items()}


def _dropped_logits(weights: Mapping[str, Tensor], images: Tensor, step: int) -> Tensor:
    rng, values = stream(0, "classifier dropout", step), images
    for layer in ("hidden", "features"):
        values = functional.relu(_affine(weights, layer, values))
        values = values * keep_mask(rng, len(values), values.shape[1], DROPOUT)
    return _affine(weights, "logits", values)
