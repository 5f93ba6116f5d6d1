"""The gradients of both players, each from a pass of its own or both from one.

A discriminator's backward pass is linear in the gradient at its logits, and where no row depends
on another, row by row. So it is made once, with ones there; the gradients u that it leaves at the
layers' outputs serve every loss on those logits. A loss's own slope dL/dl_i scales row i where a
weight gradient is formed, and the generator's slope scales the fakes' image gradients before they
go back through the generator (Shen et al. 2021, "Training generative adversarial networks in one
stage"). Their form divides one player's gradient by the other's slope, which vanishes once the
discriminator is confident; here nothing is divided.

Leading axes, where there are any, are the members of a stacked population.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from cgan_core.config import GANConfig
from cgan_core.losses import DISCRIMINATOR_LOSSES, GENERATOR_LOSSES, with_slopes
from cgan_core.networks.tape import Gradients
from cgan_core.passes import Generated, Judged

Loss = Float[Tensor, "*members"]


def discriminator_gradients(config: GANConfig, judged: Judged) -> tuple[Gradients, Loss]:
    """Returns the gradients and the loss of the discriminator on real and fake images."""
    loss, slopes = with_slopes(DISCRIMINATOR_LOSSES[config.d_loss], *judged.logits.chunk(2, -1))
    return judged.gradients(torch.cat(slopes, -1)), loss


def generator_gradients(
    config: GANConfig, judged: Judged, fake: Generated
) -> tuple[Gradients, Loss]:
    """Returns the gradients and the loss of the generator, whose fakes alone were judged."""
    loss, (slope,) = with_slopes(GENERATOR_LOSSES[config.generator_loss], judged.logits)
    return fake.gradients(judged.image_gradients(slope, slope.shape[-1])), loss


def simultaneous_gradients(
    config: GANConfig, judged: Judged, fake: Generated
) -> tuple[tuple[Gradients, Loss], tuple[Gradients, Loss]]:
    """Returns gradients and loss of the discriminator, then of the generator, from one pass."""
    real, of_fake = judged.logits.chunk(2, -1)
    d_loss, slopes = with_slopes(DISCRIMINATOR_LOSSES[config.d_loss], real, of_fake)
    g_loss, (slope,) = with_slopes(GENERATOR_LOSSES[config.generator_loss], of_fake)
    d_side, at_images = judged.both(torch.cat(slopes, -1), slope)
    return (d_side, d_loss), (fake.gradients(at_images), g_loss)
