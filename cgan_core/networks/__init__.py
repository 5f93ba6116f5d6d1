"""Networks, one family a file.

Axis names: rows (of a mini-batch), pixels (height * width * channels), units (of a layer).
"""

from cgan_core.networks.layers import ConditionKind, Masks
from cgan_core.networks.player import Discriminator, Generator
from cgan_core.networks.tape import Tape

__all__ = ["ConditionKind", "Discriminator", "Generator", "Masks", "Tape"]
