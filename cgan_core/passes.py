"""Forward passes of the players, and the gradients that they lead to.

A pass of affine layers alone is on a tape, which forms the gradients of their weights from what
the layers saw (`cgan_core.networks.tape`); of any other networks autograd has a trace. Leading
axes, where there are any, are the members of a stacked population.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from cgan_core.networks.tape import (
    Activations,
    FormedGradient,
    Gradients,
    LookupRecord,
    Record,
    Rows,
    output_gradients,
    parameter_gradients,
)

Images = Float[Tensor, "*members rows pixels"]
Statistics = Mapping[str, tuple[Tensor, Tensor]]
"""Mean and variance of a batch in each layer that takes them."""

IMAGE = "image"  # the discriminator's layer on images, on a tape


@dataclass(frozen=True)
class TapedImages:
    """What a generator of affine layers made of a mini-batch of noise.

    Args:
        images: with their graph.
        records: of its layers.
    """

    images: Images
    records: dict[str, Record]

    @property
    def statistics(self) -> Statistics:
        """None: affine layers take none."""
        return {}

    def gradients(self, at_images: Images) -> Gradients:
        """Returns the gradient of each parameter."""
        at_outputs = output_gradients(self.images, at_images, self.records)
        return parameter_gradients(self.records, at_outputs)


@dataclass(frozen=True)
class TapedLogits:
    """What a discriminator of affine layers made of a mini-batch; the fakes come last in it.

    Args:
        logits: of real and fake images, or of fakes alone.
        records: of its layers.
        input_mask: of dropout on the images, or None.
    """

    logits: Rows
    records: dict[str, Record]
    input_mask: Activations | None = None

    @property
    def directions(self) -> Mapping[str, Tensor]:
        """None: affine layers here are not bounded."""
        return {}

    def gradients(self, at_logits: Rows) -> Gradients:
        """Returns the gradient of each parameter."""
        at_outputs = output_gradients(self.logits, at_logits, self.records)
        return parameter_gradients(self.records, at_outputs)

    def image_gradients(self, at_logits: Rows, num_fakes: int) -> Images:
        """Returns the gradient at the fakes."""
        layer = {IMAGE: self.records[IMAGE]}
        at_outputs = output_gradients(self.logits, at_logits, layer)
        return self._at_fakes(at_outputs[IMAGE], num_fakes)

    def both(self, at_logits: Rows, at_fakes: Rows) -> tuple[Gradients, Images]:
        """Returns both from one backward pass (see `cgan_core.game`)."""
        at_outputs = output_gradients(self.logits, torch.ones_like(self.logits), self.records)
        at_images = self._at_fakes(at_outputs[IMAGE], at_fakes.shape[-1])
        own = parameter_gradients(self.records, at_outputs, at_logits)
        return own, at_images * at_fakes.unsqueeze(-1)

    def _at_fakes(self, at_image_layer: Activations, num_fakes: int) -> Images:
        record = self.records[IMAGE]
        assert not isinstance(record, LookupRecord)
        gradient = record.input_gradient(at_image_layer[..., -num_fakes:, :])
        if self.input_mask is None:
            return gradient
        return gradient * self.input_mask[..., -num_fakes:, :]


@dataclass(frozen=True)
class TracedImages:
    """What any generator made of a mini-batch of noise.

    Args:
        images: with their graph.
        parameters: those of the generator that require gradients.
        statistics: what its layers took of the batch.
    """

    images: Images
    parameters: Mapping[str, Tensor]
    statistics: Statistics

    def gradients(self, at_images: Images) -> Gradients:
        """Returns the gradient of each parameter."""
        return _traced(self.images, self.parameters, at_images)


@dataclass(frozen=True)
class TracedLogits:
    """What any discriminator made of a mini-batch, whose rows may depend on each other.

    Args:
        logits: of real and fake images, or of fakes alone.
        parameters: those of the discriminator that require gradients.
        images: a leaf of the graph.
        directions: what its bounded layers found (`cgan_core.networks.bounded`), by buffer.
        r1_weight: gamma of the penalty gamma / 2 E[|dl(x)/dx|^2] at real images x in [0, 1]
            (Mescheder et al. 2018, "Which training methods for GANs do actually converge?"),
            whose gradient is added to that of the parameters.
    """

    logits: Rows
    parameters: Mapping[str, Tensor]
    images: Images
    directions: Mapping[str, Tensor] = field(default_factory=dict)
    r1_weight: float = 0.0

    def gradients(self, at_logits: Rows) -> Gradients:
        """Returns the gradient of each parameter, of real and fake images."""
        if not self.r1_weight:
            return _traced(self.logits, self.parameters, at_logits)
        outputs, cotangents = [self.logits, self._penalty()], [at_logits, None]
        formed = torch.autograd.grad(outputs, list(self.parameters.values()), cotangents)
        return zip(self.parameters, map(FormedGradient, formed), strict=True)

    def _penalty(self) -> Float[Tensor, ""]:
        """Returns R1, summed over the members."""
        num_real = self.logits.shape[-1] // 2
        of_real = self.logits[..., :num_real].sum()
        (slopes,) = torch.autograd.grad(of_real, self.images, create_graph=True)
        squares = slopes[..., :num_real, :].square().sum(-1)
        return self.r1_weight / 2 * squares.mean(-1).sum()

    def image_gradients(self, at_logits: Rows, num_fakes: int) -> Images:
        """Returns the gradient at the fakes."""
        (gradient,) = torch.autograd.grad(self.logits, self.images, at_logits)
        return gradient[..., -num_fakes:, :]

    def both(self, at_logits: Rows, at_fakes: Rows) -> tuple[Gradients, Images]:
        """Returns both, from a backward pass each: rows may be coupled by batch statistics."""
        zeros = torch.zeros_like(self.logits[..., : -at_fakes.shape[-1]])
        (gradient,) = torch.autograd.grad(
            self.logits, self.images, torch.cat([zeros, at_fakes], -1), retain_graph=True
        )
        return self.gradients(at_logits), gradient[..., -at_fakes.shape[-1] :, :]


Generated = TapedImages | TracedImages
Judged = TapedLogits | TracedLogits


def _traced(output: Tensor, parameters: Mapping[str, Tensor], at_output: Tensor) -> Gradients:
    formed = torch.autograd.grad(output, list(parameters.values()), at_output)
    return zip(parameters, map(FormedGradient, formed), strict=True)
