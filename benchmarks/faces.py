"""What a study's best generator of faces makes of conditions, judged by traits it was not told.

    python -m benchmarks.faces runs/lfwcrop-quick [--out PICTURES] [--json]

A classifier of real training faces (pixels to `male` or `smile`) is asked about real validation
faces and about samples; what it should answer is read from the condition by a logistic regression
fitted on the training split. Samples are made for the validation split's own conditions, whose
faces nobody was trained on, and for conditions drawn from the density. Shares are balanced: the
mean over those who should have the trait and those who should not, so that 0.5 is a guess.

Where the condition is a part of the picture, only pictures of completions are made.
"""

import argparse
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cgan_core.classifier import Classifier
from cgan_core.condition_pictures import (
    beside_nearest,
    completions,
    noise_of,
    sensitivities,
    walk,
)
from cgan_core.data import DataError, DataSplits
from cgan_core.examples import Examples
from cgan_core.model import BEST_FOLDER, Model, ModelError
from cgan_core.pictures import class_grid, save_grid, to_bytes
from cgan_core.streams import stream
from cgan_core.traits import LinearTrait, trait_splits
from search.data_source import DataSource
from search.study import StudySpec
from search.study_file import StudyError, read_study

ROWS, PAIRS, COMPLETIONS = 8, 30, 5  # of walks and completions; samples; completions of a picture
STEPS = 7  # of a walk, from log-odds that 1 % of training faces are below to what 1 % are above
DENSITY_ROWS = 1_000


@dataclass(frozen=True)
class Faces:
    """A trained generator and the data that it learnt from."""

    model: Model
    splits: DataSplits
    examples: Examples

    @classmethod
    def of(cls, study: Path) -> "Faces":
        """Reads a study's folder."""
        recorded = read_study(study)
        spec = StudySpec.from_mapping(recorded["spec"])
        splits = DataSource.of(spec.data, spec.seed, recorded["dataset"]).load()
        return cls(Model.load(study / BEST_FOLDER), splits, Examples(splits))

    def drawn(self) -> Tensor:
        """Conditions from the density."""
        drawn = self.examples.draw_conditions(stream(0, "faces"), DENSITY_ROWS)
        assert drawn is not None
        return drawn

    def samples(self, conditions: Tensor) -> Tensor:
        """One image a condition."""
        return self.model.images(noise_of(self.model, len(conditions)), conditions)


def main() -> int:
    """Prints the numbers and writes the pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("study", type=Path, help="the folder of a finished study")
    parser.add_argument("--out", type=Path, help="where pictures go (default: STUDY/faces)")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    try:
        faces = Faces.of(options.study)
    except (DataError, ModelError, StudyError) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    out = options.out or options.study / "faces"
    if faces.splits.mask is not None:
        write_completions(faces, out)
        return 0
    found = measured(faces)
    write_pictures(faces, out)
    print(json.dumps(found) if options.json else table(found))
    return 0


def measured(faces: Faces) -> dict[str, Any]:
    """Returns how far pixels change with y and z, and how often each trait is as it should be."""
    drawn = faces.drawn()
    by_y, by_z = sensitivities(faces.model, drawn)
    traits = {name: judged(faces, name, drawn) for name in faces.splits.train.traits}
    return {"mean_change_by_condition": by_y, "mean_change_by_noise": by_z, "traits": traits}


def judged(faces: Faces, name: str, drawn: Tensor) -> dict[str, float]:
    """Returns the balanced share of right answers about one trait, by who was judged."""
    splits, validation = faces.splits, faces.splits.validation
    classifier = Classifier.of(trait_splits(splits, name))
    linear = linear_trait(splits, name)
    trait, known = validation.traits[name], validation.traits[name] >= 0
    assert validation.conditions is not None
    held_out = torch.from_numpy(validation.conditions)
    wanted = linear.has(validation.conditions)
    real = read(classifier, validation.pixels)
    return {
        "real_faces": balanced(real[known], trait[known] == 1),
        "condition_alone": balanced(wanted[known], trait[known] == 1),
        "real_faces_by_condition": balanced(real, wanted),
        "samples_of_held_out": balanced(read(classifier, faces.samples(held_out)), wanted),
        "samples_of_drawn": balanced(
            read(classifier, faces.samples(drawn)), linear.has(drawn.numpy())
        ),
    }


def linear_trait(splits: DataSplits, name: str) -> LinearTrait:
    """Fits what the condition says of a trait, on the training split."""
    assert splits.train.conditions is not None
    return LinearTrait.fit(splits.train.conditions, splits.train.traits[name])


def read(classifier: Classifier, images: Tensor) -> np.ndarray:
    """Returns in which images the classifier finds the trait."""
    found: np.ndarray = classifier.classes(classifier.features(images)).numpy()
    has: np.ndarray = found == 1
    return has


def balanced(found: np.ndarray, wanted: np.ndarray) -> float:
    """Returns the mean of the shares of right answers where yes, and where no, is wanted."""
    return float((found[wanted].mean() + (~found[~wanted]).mean()) / 2)


def write_pictures(faces: Faces, out: Path) -> None:
    """Writes a grid of one z a column, walks along each trait, and nearest training faces."""
    model, train = faces.model, faces.splits.train
    held_out = faces.splits.validation.conditions
    assert train.conditions is not None
    assert held_out is not None
    starts = held_out[:ROWS]
    grid = class_grid(model.generator, model.config, model.condition, torch.from_numpy(starts))
    save(model, grid, out / "fixed_noise.png", 10)
    for name in train.traits:
        linear = linear_trait(faces.splits, name)
        low, high = np.quantile(linear.log_odds(train.conditions), (0.01, 0.99))
        images = walk(model, starts, linear, np.linspace(low, high, STEPS).tolist())
        save(model, images, out / f"walk_{name}.png", STEPS)
    samples = faces.samples(faces.drawn()[:PAIRS])
    pairs = beside_nearest(samples, train.pixels)
    save(model, pairs, out / "nearest.png", 10)


def write_completions(faces: Faces, out: Path) -> None:
    """Writes rows of a held-out picture, what is visible of it, and what is made of that."""
    validation, mask = faces.splits.validation, faces.splits.mask
    assert mask is not None
    assert validation.conditions is not None
    visible = torch.from_numpy(mask.visible(validation.images[:ROWS]))
    conditions = torch.from_numpy(validation.conditions[:ROWS])
    rows = completions(faces.model, validation.pixels[:ROWS], visible, conditions, COMPLETIONS)
    save(faces.model, rows, out / "completions.png", COMPLETIONS + 2)


def save(model: Model, images: Tensor, path: Path, columns: int) -> None:
    """Writes a grid of images in [0, 1]."""
    save_grid(to_bytes(images, model.image_shape), path, columns)


def table(found: dict[str, Any]) -> str:
    """Returns the numbers as lines."""
    lines = [
        f"mean change of a pixel: {found['mean_change_by_condition']:.3f} with another condition, "
        f"{found['mean_change_by_noise']:.3f} with other noise"
    ]
    for name, shares in found["traits"].items():
        lines.append(f"{name}:")
        lines += [f"  {who.replace('_', ' '):<26}{share:.3f}" for who, share in shares.items()]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
