"""What generators are given when they are scored: noise and conditions, the same for all."""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from cgan_core.examples import Examples
from cgan_core.streams import draw_noise, stream

SampleSet = Literal["first", "second"]
# The first set has no name of its own: its streams are those of before there was a second.
SUFFIXES: dict[SampleSet, str] = {"first": "", "second": " redrawn"}


class EvaluationNoise:
    """N draws of noise and conditions, the same for every generator.

    They depend on the seed, the set, and the number of the draw alone. The search is scored on
    draw 0, confirmations on others, lest a winner be confirmed by the noise that chose it. Each
    draw has two sets, whose difference in score shows what a finite sample leaves to chance.

    Args:
        examples: the training images, for the density of their conditions.
        num_samples: N.
        num_classes: classes that share N evenly, or None.
        seed: of the study.
        device: where they are kept.
    """

    def __init__(
        self,
        examples: Examples,
        num_samples: int,
        num_classes: int | None,
        seed: int,
        device: torch.device,
    ) -> None:
        self._examples, self._device, self._seed = examples, device, seed
        self._num_samples, self._num_classes = num_samples, num_classes
        self._noise: dict[tuple[str, int, int, SampleSet], Tensor] = {}
        self._drawn: dict[tuple[int, SampleSet], Tensor | None] = {}

    def noise(
        self, kind: str, dim: int, draw: int, which: SampleSet
    ) -> Float[Tensor, "samples dim"]:
        """The noise of a draw's set, `uniform` or `gaussian`."""
        key = (kind, dim, draw, which)
        if key not in self._noise:
            rng = stream(self._seed, f"evaluation noise{SUFFIXES[which]}", draw)
            self._noise[key] = draw_noise(rng, kind, self._num_samples, dim).to(self._device)
        return self._noise[key]

    def conditions(self, draw: int, which: SampleSet) -> Tensor | None:
        """The conditions of a draw's set: each class equally often and in turn, or from p_y."""
        if self._num_classes is not None:
            draw, which = 0, "first"  # there is nothing to draw
        if (draw, which) not in self._drawn:
            made = self._conditions(draw, which)
            self._drawn[draw, which] = None if made is None else made.to(self._device)
        return self._drawn[draw, which]

    def _conditions(self, draw: int, which: SampleSet) -> Tensor | None:
        if self._num_classes is not None:
            return torch.arange(self._num_samples) % self._num_classes
        rng = stream(self._seed, f"evaluation y{SUFFIXES[which]}", draw)
        return self._examples.draw_conditions(rng, self._num_samples)
