"""How a condition comes into convolutional nets."""

from jaxtyping import Float
from torch import Tensor, nn

from cgan_core.configs.convolutional import ConvolutionalConfig
from cgan_core.networks.convolutions import multiply
from cgan_core.networks.layers import ConditionKind, ConditionLayer, Conditions
from cgan_core.networks.pictures import Maps
from cgan_core.networks.tape import Tape


class ConditionMaps(nn.Module):
    """An embedding of the condition, mapped to maps by a dense layer.

    A condition vector has an affine layer for an embedding.

    Args:
        kind: of the condition.
        width: of the embedding.
        maps: how many.
        side: of a map.
    """

    def __init__(self, kind: ConditionKind, width: int, maps: int, side: int) -> None:
        super().__init__()
        self._side = side
        self.embedding = ConditionLayer(kind, width)
        self.dense = nn.Linear(width, maps * side**2)

    def forward(self, condition: Conditions, tape: Tape | None) -> Maps:
        """Returns the maps."""
        flat = multiply(self.dense, self.embedding(condition), tape)
        return flat.view(len(flat), -1, self._side, self._side)


class Projection(nn.Module):
    """The inner product of an embedded condition with the picture's features.

    sum_k (W^T y + b)_k sum_positions h_k (Miyato & Koyama 2018, "cGANs with projection
    discriminator", equation 4).

    Args:
        kind: of the condition.
        maps: of the features.
    """

    def __init__(self, kind: ConditionKind, maps: int) -> None:
        super().__init__()
        self.classes = ConditionLayer(kind, maps)

    def forward(self, maps: Maps, condition: Conditions) -> Float[Tensor, " rows"]:
        """Returns what it adds to the logit."""
        weights: Tensor = self.classes(condition)
        return (weights * maps.sum((2, 3))).sum(1)


def joined_map(
    config: ConvolutionalConfig, kind: ConditionKind | None, side: int
) -> ConditionMaps | None:
    """Returns what makes the map that joins a discriminator's picture, where one does."""
    if kind is None or config.d_join != "map":
        return None
    return ConditionMaps(kind, config.noise_dim, 1, side)


def projection(
    config: ConvolutionalConfig, kind: ConditionKind | None, maps: int
) -> Projection | None:
    """Returns what projects the condition on a discriminator's features, where one does."""
    return None if kind is None or config.d_join != "projection" else Projection(kind, maps)
