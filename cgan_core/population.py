"""Members that share a device: what a host of many trials asks of a population."""

import time
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from cgan_core.config import GANConfig
from cgan_core.examples import Examples
from cgan_core.families import PER_MEMBER
from cgan_core.member import Member


def signature(config: GANConfig) -> Hashable:
    """Returns what the configurations of members that can be fused have in common."""
    mapping = config.to_mapping()
    return tuple((name, value) for name, value in mapping.items() if name not in PER_MEMBER)


@dataclass(frozen=True)
class Stretch:
    """What some updates were to one member.

    Args:
        seconds: its training time.
        fault: what its training raised; then its state is lost.
    """

    seconds: float
    fault: Exception | None = None


class Population:
    """Members in lanes of one device, which join, leave and are advanced independently.

    A member's course does not depend on who else is there. On a CPU members are advanced one
    after another, for there fusing their products gains nothing.

    Args:
        examples: training images and conditions, shared by all members.
        capacity: lanes, the most members at a time.
    """

    device = "cpu"
    streams = "host"  # of `cgan_core.streams`, drawn with numpy
    fused = False  # whether members of one signature advance together at the cost of one

    def __init__(self, examples: Examples, capacity: int) -> None:
        self.examples, self.capacity = examples, capacity
        self._members: list[Member] = []

    @property
    def empty(self) -> bool:
        """Whether no lane is taken."""
        return not self._members

    def join(self, config: GANConfig, seed: int) -> Member:
        """Creates a member at t = 0; `load_state_dict` takes it to where it was.

        Raises:
            ConfigError: if the configuration does not fit the data.
            ValueError: if every lane is taken.
        """
        if len(self._members) >= self.capacity:
            raise ValueError(
                f"a population of {self.capacity} must have a free lane, but has none"
            )
        member = Member(config, self.examples, seed)
        self._members.append(member)
        return member

    def leave(self, member: Member) -> None:
        """Frees the member's lane."""
        self._members.remove(member)

    def advance(self, members: Sequence[Member], num_steps: int) -> list[Stretch]:
        """Makes `num_steps` updates of each of `members` that has not diverged.

        On return they are made: nothing is left in a device's queue.

        A member that raises costs only itself: its neighbours go on.
        """
        return [_advance(member, num_steps) for member in members]


def _advance(member: Member, num_steps: int) -> Stretch:
    fault: Exception | None = None
    started = time.perf_counter()
    try:
        member.advance(num_steps)
    except Exception as error:
        fault = error
    return Stretch(time.perf_counter() - started, fault)
