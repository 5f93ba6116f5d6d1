"""Host streams for a stacked population: the draws of each of its members, stacked.

They are the numbers that a member alone would see (`cgan_core.draws`).
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from cgan_core.member import Member
from cgan_core.networks import Masks

Occupants = Sequence[Member | None]
Steps = Int64[Tensor, " lanes"]


class Places(NamedTuple):
    """Where each player drops units in any lane, by place: its width."""

    generator: Mapping[str, int]
    discriminator: Mapping[str, int]


def places_of(members: Sequence[Member]) -> Places:
    """Returns the places where at least one member drops units."""
    g_places: dict[str, int] = {}
    d_places: dict[str, int] = {}
    for member in members:
        g_places |= {k: width for k, (width, _) in member.generator.dropout.items()}
        d_places |= {k: width for k, (width, _) in member.discriminator.dropout.items()}
    return Places(g_places, d_places)


class HostDraws:
    """Each member's own draws, stacked; idle lanes see what the first of the active ones sees.

    Args:
        device: where the lanes are.
    """

    def __init__(self, device: torch.device) -> None:
        self._places, self._device = Places({}, {}), device
        self._members: list[Member] = []

    def join(self, lane: int, member: Member) -> None:
        """Needs nothing of a new member: it draws for itself."""

    def drop_at(self, places: Places) -> None:
        """Takes the places where units are dropped in any lane."""
        self._places = places

    def prepare(self, lanes: Occupants) -> None:
        """Takes the members that are active, in their lanes."""
        first = next(member for member in lanes if member)
        self._members = [member or first for member in lanes]

    def real(self, batch: Steps) -> tuple[Float[Tensor, "lanes rows pixels"], Tensor | None]:
        """Returns the images and conditions of each lane's mini-batch."""
        pairs = zip(self._members, self._own(batch), strict=True)
        return self._stacked([member.draws.real(number) for member, number in pairs])

    def noise_and_condition(
        self, name: str, t: Steps
    ) -> tuple[Float[Tensor, "lanes rows noise_dim"], Tensor | None]:
        """Draws what each lane's fakes are made from."""
        pairs = zip(self._members, self._own(t), strict=True)
        return self._stacked(
            [member.draws.noise_and_condition(name, own) for member, own in pairs]
        )

    def generator_masks(self, name: str, t: Steps) -> Masks:
        """Draws the generators' dropout masks."""
        pairs = zip(self._members, self._own(t), strict=True)
        own = [member.draws.generator_masks(name, number) for member, number in pairs]
        return self._masks(own, self._members[0].config.batch_size, self._places.generator)

    def discriminator_masks(self, rows: int, name: str, t: Steps) -> Masks:
        """Draws the discriminators' dropout masks."""
        pairs = zip(self._members, self._own(t), strict=True)
        own = [member.draws.discriminator_masks(rows, name, number) for member, number in pairs]
        return self._masks(own, rows, self._places.discriminator)

    def _own(self, t: Steps) -> list[int]:
        return [int(number) for number in t.tolist()]

    def _stacked(
        self, drawn: Sequence[tuple[Tensor, Tensor | None]]
    ) -> tuple[Tensor, Tensor | None]:
        conditions = [condition for _, condition in drawn if condition is not None]
        return (
            torch.stack([first for first, _ in drawn]).to(self._device),
            torch.stack(conditions).to(self._device) if conditions else None,
        )

    def _masks(
        self, own: Sequence[Mapping[str, Tensor]], rows: int, places: Mapping[str, int]
    ) -> Masks:
        def mask(masks: Mapping[str, Tensor], place: str, width: int) -> Tensor:
            return masks[place] if place in masks else torch.ones(rows, width)

        return {
            place: torch.stack([mask(masks, place, width) for masks in own]).to(self._device)
            for place, width in places.items()
        }
