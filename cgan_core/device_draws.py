"""Device streams for a stacked population: drawn where the lanes are, without a look at the host.

Seeds, steps and thresholds are read from tensors there, so that a captured turn can be replayed;
a member's draws depend on its seed and step alone. The training images stay bytes until a
mini-batch is formed.
"""

import math
from collections.abc import Callable, Mapping

import torch
from jaxtyping import Float, Int, Int64
from torch import Tensor

from cgan_core import philox
from cgan_core.config import GANConfig
from cgan_core.data.conditions import ConditionDensity, UniformConditions
from cgan_core.examples import Examples
from cgan_core.host_draws import Occupants, Places, Steps
from cgan_core.member import Member
from cgan_core.networks import Masks
from cgan_core.streams import keep_threshold

KeepMasks = Callable[..., Float[Tensor, "lanes rows units"]]


class DeviceConditions:
    """Conditions of the training images, and a source of those of fakes, on a device.

    Args:
        examples: whose conditions they are.
        config: whether they are used, and how those of fakes are drawn.
        device: where they go.
    """

    def __init__(self, examples: Examples, config: GANConfig, device: torch.device) -> None:
        kind, given = examples.kind_for(config), examples.conditions
        self.of_images = None if kind is None or given is None else given.to(device)
        uniform = kind and kind.labels and examples.sampler_for(config) == "uniform"
        self._classes = kind.width if kind and uniform else None
        self._seats = self.of_images  # about which those of fakes are drawn
        self._widths: Tensor | None = None
        self._box: tuple[Tensor, Tensor] | None = None
        if kind is not None and not kind.labels:
            self._settle_vectors(examples, config, device)

    def _settle_vectors(self, examples: Examples, config: GANConfig, device: torch.device) -> None:
        sampler = examples.vector_sampler(config.condition_sampler)
        if isinstance(sampler, ConditionDensity):
            self._seats = torch.from_numpy(sampler.kernel_centers).to(device)
            self._widths = torch.from_numpy(sampler.kernel_widths).float().to(device)
        elif isinstance(sampler, UniformConditions):
            low, high = (torch.from_numpy(end).to(device) for end in (sampler.low, sampler.high))
            self._box = low, high

    def draw(self, draw_words: Callable[[int], Tensor], rows: int) -> Tensor | None:
        """Draws the conditions of a mini-batch of fakes in each lane, from words."""
        if self._seats is None:
            return None
        if self._classes is not None:
            return philox.integers(draw_words(rows), self._classes)
        if self._box is not None:
            low, high = self._box
            shares = philox.uniform(draw_words(rows * len(low))).unflatten(1, (rows, len(low)))
            return torch.minimum(low + shares * (high - low), high)
        width = 0 if self._widths is None else self._seats.shape[1]
        pairs = -(-rows * width // 2)
        drawn = draw_words(rows + 2 * pairs)
        chosen = self._seats[philox.integers(drawn[:, :rows], len(self._seats))]
        if self._widths is None:
            return chosen
        noise = philox.gaussian(drawn[:, rows:].unflatten(1, (2, pairs))).flatten(1)
        return chosen + noise[:, : rows * width].view_as(chosen) * self._widths


class DeviceDraws:
    """The draws of every lane's member by device streams.

    Args:
        config: of any member, for its sizes.
        examples: training images and conditions; the device gets a copy.
        capacity: lanes.
        device: where the lanes are.
    """

    def __init__(
        self, config: GANConfig, examples: Examples, capacity: int, device: torch.device
    ) -> None:
        self.keep_masks: KeepMasks = philox.keep_masks  # or one compiled
        self._config, self._device = config, device
        self._images = examples.images.to(device)
        self._conditions = DeviceConditions(examples, config, device)
        self._batches = len(examples) // config.batch_size
        spanned = 1 + math.ceil((config.d_steps - 1) / self._batches)  # epochs that a turn can see
        orders = (capacity, spanned, len(examples))
        self._orders = torch.zeros(orders, dtype=torch.int32, device=device)
        self._epochs = [[-1] * spanned for _ in range(capacity)]
        self._seeds = torch.zeros(capacity, 2, dtype=torch.int64, device=device)
        self._names: dict[str, Int64[Tensor, " words"]] = {}
        self._thresholds: dict[str, Int64[Tensor, " lanes"]] = {}
        self._places = Places({}, {})

    def join(self, lane: int, member: Member) -> None:
        """Takes the seed and the dropout rates of a lane's new member."""
        self._epochs[lane] = [-1] * len(self._epochs[lane])
        self._seeds[lane] = torch.tensor(philox.split(member.seed))
        players = {"generator": member.generator, "discriminator": member.discriminator}
        rates = {
            f"{name} {place}": rate
            for name, player in players.items()
            for place, (_, rate) in player.dropout.items()
        }
        for place in rates.keys() | self._thresholds.keys():
            if place not in self._thresholds:
                self._thresholds[place] = torch.full_like(self._seeds[:, 0], 256)
            self._thresholds[place][lane] = keep_threshold(rates.get(place, 0.0))

    def drop_at(self, places: Places) -> None:
        """Takes the places where units are dropped in any lane."""
        self._places = places

    def prepare(self, lanes: Occupants) -> None:
        """Shuffles the epochs that the next turn of the active members begins."""
        for lane, member in enumerate(lanes):
            if member is None:
                continue
            first = member.t * self._config.d_steps
            last = first + self._config.d_steps - 1
            for epoch in range(first // self._batches, last // self._batches + 1):
                slot = epoch % len(self._epochs[lane])
                if self._epochs[lane][slot] != epoch:
                    self._orders[lane, slot] = self._shuffled(lane, epoch)
                    self._epochs[lane][slot] = epoch

    def _shuffled(self, lane: int, epoch: int) -> Int[Tensor, " images"]:
        index = torch.full((1,), epoch, dtype=torch.int64, device=self._device)
        count, seeds = len(self._images), self._seeds[lane : lane + 1]
        drawn = philox.words(seeds, self._name("order"), index, 2 * count).unflatten(1, (2, count))
        keys = (drawn[:, 0] << 31) | (drawn[:, 1] >> 1)  # 63 bits: ties are not to be feared
        order: Tensor = keys[0].argsort(stable=True)
        return order

    def real(self, batch: Steps) -> tuple[Float[Tensor, "lanes rows pixels"], Tensor | None]:
        """Returns the images and conditions of each lane's mini-batch."""
        rows = self._config.batch_size
        slot = batch // self._batches % self._orders.shape[1]
        first = slot * self._orders.shape[2] + batch % self._batches * rows
        places = first.unsqueeze(1) + torch.arange(rows, device=self._device)
        chosen = self._orders.flatten(1).gather(1, places)
        images = self._images.index_select(0, chosen.flatten()).float().div_(255)
        conditions = self._conditions.of_images
        return (
            images.unflatten(0, chosen.shape),
            None if conditions is None else conditions[chosen.long()],
        )

    def noise_and_condition(
        self, name: str, t: Steps
    ) -> tuple[Float[Tensor, "lanes rows noise_dim"], Tensor | None]:
        """Draws what each lane's fakes are made from."""
        shape = (self._config.batch_size, self._config.noise_dim)
        count = math.prod(shape)
        half = -(-count // 2)
        drawn = self._words(name, t, 2 * half)
        if self._config.noise == "gaussian":
            noise = philox.gaussian(drawn.unflatten(1, (2, half))).flatten(1)
        else:
            noise = philox.uniform(drawn)
        condition = self._conditions.draw(
            lambda num: self._words(f"{name} condition", t, num), shape[0]
        )
        return noise[:, :count].unflatten(1, shape), condition

    def generator_masks(self, name: str, t: Steps) -> Masks:
        """Draws the generators' dropout masks."""
        return self._masks("generator", self._places.generator, self._config.batch_size, name, t)

    def discriminator_masks(self, rows: int, name: str, t: Steps) -> Masks:
        """Draws the discriminators' dropout masks."""
        return self._masks("discriminator", self._places.discriminator, rows, name, t)

    def _masks(
        self, player: str, places: Mapping[str, int], rows: int, name: str, t: Steps
    ) -> Masks:
        return {
            place: self.keep_masks(
                self._seeds,
                self._name(f"{name} {place}"),
                t,
                self._thresholds[f"{player} {place}"],
                rows,
                units,
            )
            for place, units in places.items()
        }

    def _words(self, name: str, t: Steps, num: int) -> Int64[Tensor, "lanes {num}"]:
        return philox.words(self._seeds, self._name(name), t, num)

    def _name(self, name: str) -> Int64[Tensor, " words"]:
        if name not in self._names:  # made in the first, eager turn; a capture may not copy
            self._names[name] = torch.tensor(philox.name_words(name), device=self._device)
        return self._names[name]
