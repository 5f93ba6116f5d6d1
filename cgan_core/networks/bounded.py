"""Spectral normalisation: layers whose weight is divided by its largest singular value."""

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from cgan_core.networks.tape import Tape

DIRECTION = "direction"


class Bounded(nn.Module):
    """A layer with W / sigma(W) for a weight (Miyato et al. 2018, "Spectral normalization").

    sigma = u^T W v by one round of the power method, v = W^T u' / |W^T u'| and u = W v / |W v|,
    from the direction u' that the last update of the discriminator left; both are constants to a
    gradient. The u that it finds is noted on the tape and kept once the update is made.

    Args:
        layer: whose weight's first axis is its outputs.
        place: its name in the network.
    """

    direction: Tensor

    def __init__(self, layer: nn.Linear | nn.Conv2d, place: str) -> None:
        super().__init__()
        self.layer, self._place = layer, place
        self.register_buffer(DIRECTION, torch.zeros(len(layer.weight)))

    def values(self, tape: Tape | None) -> dict[str, Tensor]:
        """Returns the layer's parameters, its weight divided."""
        weight = self.layer.weight.flatten(1)
        with torch.no_grad():
            right = normalize(weight.T @ self.direction, dim=0)
            left = normalize(weight @ right, dim=0)
        if tape is not None:
            tape.directions[f"{self._place}.{DIRECTION}"] = left
        sigma = left @ (weight @ right)
        own = dict(self.layer.named_parameters())
        return own | {"weight": self.layer.weight / sigma}
