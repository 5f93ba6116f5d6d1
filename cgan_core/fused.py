"""A population whose members advance together, at the cost of one where launches bound a step."""

import time
from collections.abc import Sequence

import torch

from cgan_core.config import GANConfig
from cgan_core.device_draws import DeviceDraws
from cgan_core.examples import Examples
from cgan_core.graphs import TurnRunner
from cgan_core.host_draws import HostDraws
from cgan_core.lanes import Lanes
from cgan_core.member import CHECK_EVERY, Member
from cgan_core.population import Stretch, signature


class FusedPopulation:
    """Members of one signature in lanes of one device: `cgan_core.population.Population`, fused.

    A member's course depends on its configuration, seed, data, the streams and the capacity; not
    on its lane, its neighbours or when it joined.

    Args:
        examples: training images and conditions, shared by all members.
        capacity: lanes, the most members at a time.
        device: where they are trained.
        streams: `device` ones are drawn there, `host` ones are those of a member alone.
        eager: whether turns are neither compiled nor captured, even on a GPU.
    """

    fused = True

    def __init__(
        self,
        examples: Examples,
        capacity: int,
        device: str = "cuda",
        streams: str = "device",
        *,
        eager: bool = False,
    ) -> None:
        self.examples, self.capacity, self.device = examples, capacity, device
        self.streams = streams
        self._eager = eager or torch.device(device).type != "cuda" or streams == "host"
        self._lanes: Lanes | None = None
        self._runner: TurnRunner | None = None

    @property
    def empty(self) -> bool:
        """Whether no lane is taken."""
        return self._lanes is None or not any(self._lanes.members)

    @property
    def execution(self) -> str:
        """How turns are run: `eager` (and why, where that was not wanted) or `graph`."""
        return self._runner.execution if self._runner else "not run yet"

    def join(self, config: GANConfig, seed: int) -> Member:
        """Creates a member at t = 0; `load_state_dict` takes it to where it was.

        Raises:
            ConfigError: if the configuration does not fit the data.
            ValueError: if every lane is taken, or the members here are of another signature.
        """
        if self._lanes and signature(config) != signature(self._lanes.config):
            raise ValueError("members of a fused population must be of one signature")
        if self._lanes and None not in self._lanes.members:
            raise ValueError(
                f"a population of {self.capacity} must have a free lane, but has none"
            )
        member = Member(config, self.examples, seed)
        if self._lanes is None:
            self._lanes = self._lanes_for(member)
            self._runner = TurnRunner(self._lanes, eager=self._eager)
        self._lanes.join(member)
        return member

    def _lanes_for(self, member: Member) -> Lanes:
        device = torch.device(self.device)
        if device.type == "cuda":  # else convolutions would round as it comes, and to 10 bits
            torch.backends.cudnn.deterministic = True
            torch.backends.cudnn.benchmark = False
            torch.backends.cudnn.allow_tf32 = False
        draws: HostDraws | DeviceDraws = HostDraws(device)
        if self.streams == "device":
            draws = DeviceDraws(member.config, self.examples, self.capacity, device)
        return Lanes(member, self.capacity, device, draws)

    def leave(self, member: Member) -> None:
        """Frees the member's lane; the member keeps its state, on the CPU."""
        assert self._lanes
        self._lanes.leave(member)

    def advance(self, members: Sequence[Member], num_steps: int) -> list[Stretch]:
        """Makes `num_steps` updates of each of `members` that has not diverged.

        On return they are made: nothing is left in a device's queue. The time is shared evenly.

        Raises:
            Exception: what the device raises; then no member here can be trusted.
        """
        started = time.perf_counter()
        left = num_steps
        while left and (active := [member for member in members if not member.infeasible]):
            left -= self._advance(active, left)
        if self._runner:
            self._runner.wait()
        seconds = (time.perf_counter() - started) / max(len(members), 1)
        return [Stretch(seconds) for _ in members]

    def _advance(self, active: Sequence[Member], most: int) -> int:
        """Advances to where the next of them is due for a look at its numbers."""
        assert self._lanes
        assert self._runner
        steps = min(most, *(CHECK_EVERY - member.t % CHECK_EVERY for member in active))
        self._runner.ready()
        self._lanes.activate(active)
        for _ in range(steps):
            self._lanes.prepare(active)
            self._runner.run()
            for member in active:
                member.t += 1
        due = [member for member in active if member.t % CHECK_EVERY == 0]
        for member in self._lanes.diverged(due):
            member.check()
        return steps
