"""What the convolutional families are built of."""

from torch import Tensor, nn
from torch.func import functional_call

from cgan_core.networks.layers import ConditionKind, ConditionLayer, Conditions, Masks
from cgan_core.networks.pictures import Maps
from cgan_core.networks.player import Player, RandomOf, draw_normal
from cgan_core.networks.tape import Tape

SLOPE = 0.2  # of LeakyReLU below 0


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


def multiply(layer: nn.Module, x: Tensor, tape: Tape | None) -> Tensor:
    """Applies an affine layer or a convolution, in the tape's precision where it has one."""
    dtype = None if tape is None else tape.dtype
    if dtype is None:
        output: Tensor = layer(x.to(next(layer.parameters()).dtype))
        return output
    coarse = {name: value.to(dtype) for name, value in layer.named_parameters()}
    output = functional_call(layer, coarse, (x.to(dtype),))
    return output.float()


def drop_maps(maps: Maps, masks: Masks | None, place: str) -> Maps:
    """Multiplies whole maps by their mask, where they have one (Tompson et al. 2015)."""
    if masks is None or place not in masks:
        return maps
    return maps * masks[place].unsqueeze(-1).unsqueeze(-1)


def initialize_normal(
    network: Player, random_of: RandomOf, std: float, embedding_std: float
) -> None:
    """Draws gains from N(1, std), embeddings from N(0, embedding_std), weights from N(0, std).

    Biases are zeroed.
    """
    for name, parameter in network.named_parameters():
        if name.endswith("bias"):
            nn.init.zeros_(parameter)
        elif name.startswith("norms."):
            draw_normal(parameter, random_of(name), mean=1.0, std=std)
        elif name.endswith("embedding.weight"):
            draw_normal(parameter, random_of(name), mean=0.0, std=embedding_std)
        else:
            draw_normal(parameter, random_of(name), mean=0.0, std=std)
