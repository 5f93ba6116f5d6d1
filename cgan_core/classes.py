"""Which classes a classifier can be trusted to find among samples."""

from dataclasses import dataclass

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

DEVIATIONS = 3  # standard deviations of a count that chance is given


@dataclass(frozen=True)
class ClassReader:
    """How a classifier reads held-out real images.

    Args:
        found: of each class, the share of its images that are read as it.
        mistaken: of each class, the share of all other images that are read as it.
        num_images: held-out images that tell.
    """

    found: Float64[Tensor, " classes"]
    mistaken: Float64[Tensor, " classes"]
    num_images: int

    @classmethod
    def of(
        cls, read: Int64[Tensor, " images"], labels: Int64[Tensor, " images"], num_classes: int
    ) -> "ClassReader":
        """Counts what held-out images were read as; a class without any is unreadable."""
        table = torch.bincount(labels * num_classes + read, minlength=num_classes**2)
        table = table.view(num_classes, num_classes).double()
        own, sizes, as_it = table.diagonal(), table.sum(1), table.sum(0)
        others = (len(labels) - sizes).clamp(min=1)
        return cls(own / sizes.clamp(min=1), (as_it - own) / others, len(labels))

    @property
    def accuracy_limit(self) -> float | None:
        """Half way from chance to the accuracy on real images, classes counted alike.

        None where that accuracy is no better than chance, and labels cannot be judged.
        """
        chance = 1 / len(self.found)
        accuracy = float(self.found.mean())
        error = (chance * (1 - chance) / self.num_images) ** 0.5
        return (chance + accuracy) / 2 if accuracy > chance + DEVIATIONS * error else None

    def missing(self, read: Int64[Tensor, " samples"]) -> int:
        """Counts the classes that so few samples are read as that misreadings account for them.

        With N samples evenly of C classes, misreadings of the other classes are N (C - 1) / C
        times `mistaken` on average; three standard deviations (Poisson) are added. A class is
        never missing with half as many samples as real images of it would give.
        """
        classes = len(self.found)
        misread = len(read) * (classes - 1) / classes * self.mistaken
        limits = misread + DEVIATIONS * misread.sqrt() + 1
        limits = limits.minimum(len(read) / classes * self.found / 2)
        counts = torch.bincount(read, minlength=classes)
        return int((counts < limits).sum())
