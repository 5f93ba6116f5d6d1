"""What the convolutional families are built of."""

from torch import Tensor, nn
from torch.func import functional_call

from cgan_core.networks.bounded import DIRECTION, Bounded
from cgan_core.networks.layers import Masks
from cgan_core.networks.pictures import Maps
from cgan_core.networks.player import Player, RandomOf, draw_normal
from cgan_core.networks.tape import Tape

SLOPE = 0.2  # of LeakyReLU below 0


def multiply(layer: nn.Module, x: Tensor, tape: Tape | None) -> Tensor:
    """Applies an affine layer or a convolution, in the tape's precision where it has one."""
    values = layer.values(tape) if isinstance(layer, Bounded) else dict(layer.named_parameters())
    applied = layer.layer if isinstance(layer, Bounded) else layer
    dtype = None if tape is None else tape.dtype
    given = {name: value.to(dtype or value.dtype) for name, value in values.items()}
    output: Tensor = functional_call(applied, given, (x.to(given["weight"].dtype),))
    return output if dtype is None else output.float()


def bounded(layer: nn.Linear | nn.Conv2d, place: str, d_norm: str) -> nn.Module:
    """Returns a discriminator's layer, bounded where its norm is spectral."""
    return Bounded(layer, place) if d_norm == "spectral" else layer


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
    for name, buffer in network.named_buffers():
        if name.endswith(DIRECTION):
            draw_normal(buffer, random_of(name), mean=0.0, std=1.0)
