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
    Gradient,
    Record,
    Rows,
    output_gradients,
    parameter_gradients,
)

Images = Float[Tensor, "*members rows pixels"]
Loss = Float[Tensor, "*members"]
Gradients = Iterator[tuple[str, Gradient]]
"""With the parameter's name in its network; made one by one, without a look at the weights."""

IMAGE = "image"  # the discriminator's layer on images


@dataclass(frozen=True)
class Judged:
    """What the discriminator made of a mini-batch; the fakes come last in it.

    Args:
        logits: of real and fake images, or of fakes alone.
        records: of its layers.
        input_mask: of dropout on the images, or None.
    """

    logits: Rows
    records: dict[str, Record]
    input_mask: Activations | None = None

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
    """

    images: Images
    records: dict[str, Record]


def discriminator_gradients(config: GANConfig, judged: Judged) -> tuple[Gradients, Loss]:
    """Returns the gradients and the loss of the discriminator on real and fake images."""
    loss = DISCRIMINATOR_LOSSES[config.d_loss](*judged.logits.chunk(2, -1))
    at_outputs = output_gradients(loss, torch.ones_like(loss), judged.records)
    return parameter_gradients(judged.records, at_outputs), loss.detach()


def generator_gradients(
    config: GANConfig, judged: Judged, fake: Generated
) -> tuple[Gradients, Loss]:
    """Returns the gradients and the loss of the generator, whose fakes alone were judged."""
    loss = GENERATOR_LOSSES[config.generator_loss](judged.logits)
    at_image_layer = {IMAGE: judged.records[IMAGE]}
    at_outputs = output_gradients(loss, torch.ones_like(loss), at_image_layer)
    at_images = judged.fakes_gradient(at_outputs[IMAGE], fake.images.shape[-2])
    return _through_generator(fake, at_images), loss.detach()


def simultaneous_gradients(
    config: GANConfig, judged: Judged, fake: Generated
) -> tuple[tuple[Gradients, Loss], tuple[Gradients, Loss]]:
    """Returns gradients and loss of the discriminator, then of the generator, from one pass."""
    logits = judged.logits
    at_outputs = output_gradients(logits, torch.ones_like(logits), judged.records)
    real, of_fake = logits.chunk(2, -1)
    d_loss, slopes = with_slopes(DISCRIMINATOR_LOSSES[config.d_loss], real, of_fake)
    g_loss, (slope,) = with_slopes(GENERATOR_LOSSES[config.generator_loss], of_fake)
    at_images = judged.fakes_gradient(at_outputs[IMAGE], fake.images.shape[-2])
    d_side = parameter_gradients(judged.records, at_outputs, torch.cat(slopes, -1))
    return (d_side, d_loss), (_through_generator(fake, at_images * slope.unsqueeze(-1)), g_loss)


def _through_generator(fake: Generated, at_images: Images) -> Gradients:
    at_outputs = output_gradients(fake.images, at_images, fake.records)
    return parameter_gradients(fake.records, at_outputs)
