"""Batch normalisation of maps (Ioffe & Szegedy 2015).

y = gain (x - mean) / sqrt(var + eps) + bias, where mean and var are
those of a map over the rows and positions of a batch.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from cgan_core.configs.convolutional import ConvolutionalConfig
from cgan_core.networks.pictures import Maps
from cgan_core.networks.tape import Tape

EPSILON = 1e-5


class BlockNorm(nn.Module):
    """Batch normalisation in a discriminator, of each block of rows by its own statistics.

    So real and fake images, which come one after the other, are normalised apart, as Radford et
    al. (2015) do. Running statistics are not kept: a discriminator is used in training alone.

    Args:
        maps: how many there are.
        block: rows of a block.
    """

    def __init__(self, maps: int, block: int) -> None:
        super().__init__()
        self._block = block
        self.weight = nn.Parameter(torch.empty(maps))
        self.bias = nn.Parameter(torch.empty(maps))

    def forward(self, x: Maps) -> Maps:
        """Normalises every block."""
        blocks = [_normalized(part, self.weight, self.bias)[0] for part in x.split(self._block)]
        return torch.cat(blocks) if len(blocks) > 1 else blocks[0]


class RunningNorm(nn.Module):
    """Batch normalisation in a generator, by running statistics where it does not train.

    Args:
        maps: how many there are.
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, maps: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(maps))
        self.bias = nn.Parameter(torch.empty(maps))
        self.register_buffer("running_mean", torch.zeros(maps))
        self.register_buffer("running_var", torch.ones(maps))

    def forward(self, x: Maps, place: str, tape: Tape | None) -> Maps:
        """Normalises by the batch and notes on the tape what it took, or by the running values."""
        if tape is None:
            return functional.batch_norm(
                x, self.running_mean, self.running_var, self.weight, self.bias, eps=EPSILON
            )
        output, mean, inverse_std = _normalized(x, self.weight, self.bias)
        count = x.numel() // x.shape[1]
        unbiased = (inverse_std**-2 - EPSILON).clamp(min=0) * (count / max(count - 1, 1))
        tape.statistics[place] = mean.detach(), unbiased.detach()
        return output


def discriminator_norms(config: ConvolutionalConfig, widths: Sequence[int]) -> list[BlockNorm]:
    """Returns one of each width, or none where `d_norm` is something else."""
    wanted = widths if config.d_norm == "batch" else []
    return [BlockNorm(width, config.batch_size) for width in wanted]


def _normalized(x: Maps, gain: Tensor, bias: Tensor) -> tuple[Maps, Tensor, Tensor]:
    """Returns the normalised maps, the mean and 1 / sqrt(var + eps), var being the biased one."""
    found: tuple[Tensor, Tensor, Tensor] = torch.native_batch_norm(
        x, gain, bias, None, None, True, 0.0, EPSILON
    )
    return found
