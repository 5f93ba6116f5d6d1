"""Members of one signature whose state lies stacked, so that one turn of all is one of each."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call, vmap

from cgan_core.device_draws import DeviceDraws
from cgan_core.families import FAMILIES
from cgan_core.game import Loss
from cgan_core.host_draws import HostDraws, Places, places_of
from cgan_core.member import Member, average_share
from cgan_core.networks import Masks, Tape
from cgan_core.networks.tape import Gradients
from cgan_core.passes import (
    Generated,
    Judged,
    Statistics,
    TapedImages,
    TapedLogits,
    TracedImages,
    TracedLogits,
)
from cgan_core.running import keep, move_average, move_running
from cgan_core.sweeps import Scalars, StackedOptimizer, Update, adam, sgd
from cgan_core.turn import take_turn

UPDATES: Mapping[str, Update] = {"sgd": sgd, "adam": adam}


class Lanes:
    """The stacked state of up to `capacity` members, which take their turns together.

    A member in a lane is an ordinary `Member` whose tensors are views of the lane: what it saves,
    loads, checks and generates needs nothing of its own here. Idle lanes are masked: they are
    computed with the others, and their state does not move.

    Args:
        member: whose sizes all others share.
        capacity: lanes.
        device: where the state lies.
        draws: what chance gives, by host or by device streams.
        dtype: of the state; float32 but for tests.
    """

    def __init__(
        self,
        member: Member,
        capacity: int,
        device: torch.device,
        draws: HostDraws | DeviceDraws,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        config, examples = member.config, member.examples
        self.members: list[Member | None] = [None] * capacity
        self.config, self.draws, self.device = config, draws, device
        self.places = Places({}, {})  # where units are dropped in any lane
        self.update: Update = UPDATES[config.optimizer]  # or one compiled
        self._state = {
            name: torch.zeros(
                capacity, *value.shape, dtype=_widened(value.dtype, dtype), device=device
            )
            for name, value in member.tensors().items()
        }
        self._loss_sums = self._state["progress.loss_sums"]
        self._t = torch.zeros(capacity, dtype=torch.int64, device=device)
        self._active = torch.zeros(capacity, dtype=torch.bool, device=device)
        self._scalars = Scalars(capacity, device)
        self._batches_per_epoch = member.batches_per_epoch
        self._products = torch.bfloat16 if config.precision == "bfloat16" else None
        with torch.device("meta"):  # shapes alone: the parameters come with each call
            family, shape = FAMILIES[config.family], examples.image_shape
            self._generator = family.generator(config, shape, member.kind)
            self._discriminator = family.discriminator(config, shape, member.kind)
        self._g_parameters = self._parameters("generator", self._generator)
        self._d_parameters = self._parameters("discriminator", self._discriminator)
        self._g_buffers = self._buffers("generator", self._generator)
        self._d_buffers = self._buffers("discriminator", self._discriminator)
        self._average = self._part("average")
        self._g_optimizer = self._optimizer("g_optimizer", self._g_parameters)
        self._d_optimizer = self._optimizer("d_optimizer", self._d_parameters)

    def _parameters(self, player: str, network: nn.Module) -> dict[str, Tensor]:
        stacked = self._part(player)
        return {name: stacked[name].requires_grad_() for name, _ in network.named_parameters()}

    def _buffers(self, player: str, network: nn.Module) -> dict[str, Tensor]:
        stacked = self._part(player)
        return {name: stacked[name] for name, _ in network.named_buffers()}

    def _optimizer(self, name: str, parameters: Mapping[str, Tensor]) -> StackedOptimizer:
        return StackedOptimizer(
            self.config.optimizer,
            self._scalars,
            parameters,
            self._part(name),
            is_discriminator=name == "d_optimizer",
        )

    def _part(self, name: str) -> dict[str, Tensor]:
        prefix = f"{name}."
        return {k[len(prefix) :]: v for k, v in self._state.items() if k.startswith(prefix)}

    def join(self, member: Member) -> None:
        """Moves a member into the first free lane."""
        lane = self.members.index(None)
        member.move({name: value.detach()[lane] for name, value in self._state.items()})
        self.members[lane] = member
        self._scalars.fill(lane, member.config)
        self.draws.join(lane, member)
        self._settle()

    def leave(self, member: Member) -> None:
        """Moves a member, with its state, out of its lane to the CPU's memory."""
        lane = self.members.index(member)
        member.move(
            {name: torch.empty_like(v, device="cpu") for name, v in member.tensors().items()}
        )
        self.members[lane] = None
        self._settle()

    def _settle(self) -> None:
        self.places = places_of([member for member in self.members if member])
        self.draws.drop_at(self.places)

    def activate(self, members: Sequence[Member]) -> None:
        """Says which members take the turns to come, and where they stand."""
        chosen = [member if member in members else None for member in self.members]
        self._active.copy_(torch.tensor([member is not None for member in chosen]))
        self._t.copy_(torch.tensor([member.t if member else 0 for member in self.members]))

    def prepare(self, members: Sequence[Member]) -> None:
        """Readies on the host what the next turn of these members reads."""
        self.draws.prepare([member if member in members else None for member in self.members])

    def turn(self) -> None:
        """Makes one turn of the active members; t moves on the device, not on the members."""
        take_turn(self.config, self, self.draws, self._t)
        self._t += self._active

    def diverged(self, members: Sequence[Member]) -> list[Member]:
        """Returns those with a loss or a value of a network that is not finite.

        It waits for the device.
        """
        if not members:
            return []
        networks = [*self._part("generator").values(), *self._part("discriminator").values()]
        checked = [*networks, self._loss_sums]
        sums = [value.detach().flatten(1).sum(1).double() for value in checked]
        finite = torch.stack(sums).isfinite().all(0).tolist()
        return [member for member in members if not finite[self.members.index(member)]]

    def generate(self, noise: Tensor, condition: Tensor | None, masks: Masks) -> Generated:
        """Runs the generators."""
        network, parameters = self._generator, self._g_parameters
        images, tape = self._run(network, parameters, noise, condition, masks)
        if network.taped:
            return TapedImages(images, tape.records)
        return TracedImages(images, parameters, tape.statistics)

    def judge(self, images: Tensor, condition: Tensor | None, masks: Masks) -> Judged:
        """Runs the discriminators."""
        network, parameters = self._discriminator, self._d_parameters
        if not network.taped:
            images = images.requires_grad_()
        values = parameters | self._d_buffers
        logits, tape = self._run(network, values, images, condition, masks)
        if network.taped:
            return TapedLogits(logits, tape.records, masks.get("input"))
        return TracedLogits(logits, parameters, images, tape.directions, network.r1_weight)

    def _run(
        self,
        network: nn.Module,
        values: Mapping[str, Tensor],
        x: Tensor,
        condition: Tensor | None,
        masks: Masks,
    ) -> tuple[Tensor, Tape]:
        """Returns the stacked output, and a tape of what all of the stack noted."""

        def of_one(values: Any, x: Tensor, condition: Tensor | None, masks: Any) -> Any:
            tape = Tape(self._products)
            output = functional_call(network, values, (x, condition, masks, tape))
            return output, tape.noted()

        in_dims = (0, 0, None if condition is None else 0, 0)
        output, noted = vmap(of_one, in_dims)(values, x, condition, masks)
        return output, Tape(self._products, *noted)

    def keep_directions(self, directions: Mapping[str, Tensor]) -> None:
        """Keeps what the bounded layers of the active members' discriminators found."""
        keep(self._d_buffers, directions, ~self._active)

    def follow_generator(self, statistics: Statistics) -> None:
        """Moves the active members' running statistics towards a batch's, and averages."""
        idle = ~self._active
        momentum = self._generator.statistics_momentum
        move_running(self._g_buffers, statistics, momentum, idle)
        if self._average:
            share = average_share(self.config)
            move_average(self._average, self._part("generator"), share, idle)

    def update_discriminator(self, gradients: Gradients, loss: Loss) -> None:
        """Makes one of the k discriminator updates of the active members."""
        self._step(self._d_optimizer, gradients)
        self._add(0, loss / self.config.d_steps)

    def update_generator(self, gradients: Gradients, loss: Loss) -> None:
        """Makes the generator's update of the active members."""
        self._step(self._g_optimizer, gradients)
        self._add(1, loss)
        self._add(2, torch.ones_like(loss))

    def _step(self, optimizer: StackedOptimizer, gradients: Gradients) -> None:
        epoch = self._t.double() * self.config.d_steps / self._batches_per_epoch
        optimizer.step(gradients, self._t, epoch, self._active, self.update)

    def _add(self, column: int, values: Float[Tensor, " lanes"]) -> None:
        self._loss_sums[:, column] += values.masked_fill(~self._active, 0)


def _widened(own: torch.dtype, dtype: torch.dtype) -> torch.dtype:
    return dtype if own == torch.float32 else own
