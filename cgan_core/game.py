"""The gradients of both players, each from a pass of its own or both from one.

The discriminator's backward pass is linear in the gradient at its logits, row by row. So it is
made once, with ones there; the gradients u that it leaves at the layers' outputs serve every loss
on those logits. A loss's own slope dL/dl_i scales row i where a weight gradient is formed, and the
generator's slope scales the fakes' image gradients before they go back through the generator
(Shen et al. 2021, "Training generative adversarial networks in one stage"). Their form divides
one player's gradient by the other's slope, which vanishes once the discriminator is confident;
here nothing is divided.

Leading axes, where there are any, are the members of a stacked population.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from cgan_core.config import GANConfig
from cgan_core.losses import DISCRIMINATOR_LOSSES, GENERATOR_LOSSES, with_slopes
from cgan_core.networks.tape import (
    Activations,
    AffineRecord,
    Record,
    Rows,
    output_gradients,
    parameter_gradients,
)

Images = Float[Tensor, "*members rows pixels"]
Loss = Float[Tensor, "*members"]
Gradients = Iterator[tuple[str, Tensor]]
"""With the parameter's name in its network; made one by one, without a look at the weights."""

IMAGE = "image"  # the discriminator's layer on images


@dataclass(frozen=True)
class Judged:
    """What the discriminator made of a mini-batch; the fakes come last in it.

    Args:
        logits: of real and fake images, or of fakes alone.
        records: of its layers.
        input_mask: of dropout on the images, or None.
        workspace: where weight gradients are made one after another, or None.
    """

    logits: Rows
    records: dict[str, Record]
    input_mask: Activations | None = None
    workspace: Tensor | None = None

    def output_gradients(self, *places: str) -> dict[str, Activations]:
        """Returns the gradient of each row's logit at the layers' outputs (all, if none named)."""
        records = {place: self.records[place] for place in places or self.records}
        return output_gradients(self.logits, torch.ones_like(self.logits), records)

    def fakes_gradient(
        self, at_image_layer: Activations, num_fakes: int
    ) -> Float[Tensor, "*members fakes pixels"]:
        """Returns the gradient of each fake's logit at its pixels."""
        record = self.records[IMAGE]
        assert isinstance(record, AffineRecord)
        gradient = record.input_gradient(at_image_layer[..., -num_fakes:, :])
        if self.input_mask is None:
            return gradient
        return gradient * self.input_mask[..., -num_fakes:, :]


@dataclass(frozen=True)
class Generated:
    """What the generator made of a mini-batch of noise.

    Args:
        images: with their graph.
        records: of its layers.
        workspace: where weight gradients are made one after another, or None.
    """

    images: Images
    records: dict[str, Record]
    workspace: Tensor | None = None


def discriminator_gradients(config: GANConfig, judged: Judged) -> tuple[Gradients, Loss]:
    """Returns the gradients and the loss of the discriminator on real and fake images."""
    return _discriminator_side(config, judged, judged.output_gradients())


def generator_gradients(
    config: GANConfig, judged: Judged, fake: Generated
) -> tuple[Gradients, Loss]:
    """Returns the gradients and the loss of the generator, whose fakes alone were judged."""
    return _generator_side(config, judged, judged.output_gradients(IMAGE), fake)


def simultaneous_gradients(
    config: GANConfig, judged: Judged, fake: Generated
) -> tuple[tuple[Gradients, Loss], tuple[Gradients, Loss]]:
    """Returns gradients and loss of the discriminator, then of the generator, from one pass."""
    at_outputs = judged.output_gradients()
    return (
        _discriminator_side(config, judged, at_outputs),
        _generator_side(config, judged, at_outputs, fake),
    )


def _discriminator_side(
    config: GANConfig, judged: Judged, at_outputs: dict[str, Activations]
) -> tuple[Gradients, Loss]:
    real, fake = judged.logits.chunk(2, -1)
    loss, slopes = with_slopes(DISCRIMINATOR_LOSSES[config.d_loss], real, fake)
    scale = torch.cat(slopes, -1)
    return parameter_gradients(judged.records, at_outputs, scale, judged.workspace), loss


def _generator_side(
    config: GANConfig, judged: Judged, at_outputs: dict[str, Activations], fake: Generated
) -> tuple[Gradients, Loss]:
    num_fakes = fake.images.shape[-2]
    logits = judged.logits[..., -num_fakes:]
    loss, (slope,) = with_slopes(GENERATOR_LOSSES[config.generator_loss], logits)
    at_images = judged.fakes_gradient(at_outputs[IMAGE], num_fakes) * slope.unsqueeze(-1)
    at_generator = output_gradients(fake.images, at_images, fake.records)
    return parameter_gradients(fake.records, at_generator, workspace=fake.workspace), loss
