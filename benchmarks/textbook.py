"""Alternating training as well-known tutorials write it, for comparison.

Two discriminator passes, real and fake, each with its own backward; the generator run again for
its own step, whose backward also fills the discriminator's weight gradients that nobody uses;
one-hot labels through `nn.Linear`; `nn.Dropout`; PyTorch's optimisers as they come; the images in
memory as float32.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from cgan_core.configs.mlp import MLPConfig
from cgan_core.examples import Examples


class Maxout(nn.Module):
    """Maxout by a view and a maximum over its last axis."""

    def __init__(self, width: int, units: int, pieces: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, units * pieces)
        self.units, self.pieces = units, pieces

    def forward(self, x: Tensor) -> Tensor:
        """Applies the layer."""
        affine: Tensor = self.linear(x)
        return affine.view(-1, self.units, self.pieces).max(2)[0]


def joined(halves: tuple[Tensor, Tensor], how: str) -> Tensor:
    """Joins the halves by product or concatenation."""
    return halves[0] * halves[1] if how == "product" else torch.cat(halves, 1)


class TextbookGenerator(nn.Module):
    """The generator of a configuration."""

    def __init__(self, config: MLPConfig, pixels: int, classes: int) -> None:
        super().__init__()
        a, b = config.g_noise_units, config.g_condition_units
        self.how, drop = config.g_join, config.g_dropout
        self.noise = nn.Sequential(nn.Linear(config.noise_dim, a), nn.ReLU(), nn.Dropout(drop))
        self.label = nn.Sequential(nn.Linear(classes, b), nn.ReLU(), nn.Dropout(drop))
        width, units = a if self.how == "product" else a + b, config.g_joint_units
        self.joint = nn.Sequential(nn.Linear(width, units), nn.ReLU(), nn.Dropout(drop))
        self.image = nn.Sequential(nn.Linear(units, pixels), nn.Sigmoid())

    def forward(self, z: Tensor, y: Tensor) -> Tensor:
        """Generates images."""
        halves = self.noise(z), self.label(y)
        images: Tensor = self.image(self.joint(joined(halves, self.how)))
        return images


class TextbookDiscriminator(nn.Module):
    """The discriminator of a configuration."""

    def __init__(self, config: MLPConfig, pixels: int, classes: int) -> None:
        super().__init__()
        c, self.how = config, config.d_join
        on_label = c.d_dropout if c.d_condition_dropout is None else c.d_condition_dropout
        self.image = nn.Sequential(
            nn.Dropout(c.d_input_dropout),
            Maxout(pixels, c.d_image_units, c.d_image_pieces),
            nn.Dropout(c.d_dropout),
        )
        self.label = nn.Sequential(
            Maxout(classes, c.d_condition_units, c.d_condition_pieces), nn.Dropout(on_label)
        )
        width = c.d_image_units + (0 if self.how == "product" else c.d_condition_units)
        self.joint = nn.Sequential(
            Maxout(width, c.d_joint_units, c.d_joint_pieces),
            nn.Dropout(c.d_dropout),
            nn.Linear(c.d_joint_units, 1),
            nn.Sigmoid(),
        )

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Returns the probability of "real"."""
        probability: Tensor = self.joint(joined((self.image(x), self.label(y)), self.how))
        return probability


class TextbookLoop:
    """Alternating training of a configuration's nets."""

    def __init__(self, config: MLPConfig, examples: Examples, device: str = "cpu") -> None:
        self.images, labels = examples.batch(torch.arange(len(examples)))
        assert labels is not None
        assert examples.kind is not None
        self.config, self.classes = config, examples.kind.width
        self.device, self.images = device, self.images.to(device)
        self.labels = functional.one_hot(labels, self.classes).float().to(device)
        self.generator = TextbookGenerator(config, examples.pixels, self.classes).to(device)
        self.discriminator = TextbookDiscriminator(config, examples.pixels, self.classes).to(
            device
        )
        self.g_optimizer = self._optimizer(self.generator, 1.0)
        self.d_optimizer = self._optimizer(self.discriminator, config.d_rate_ratio)
        self.loss = nn.BCELoss()
        self.ones = torch.ones(config.batch_size, 1, device=device)
        self.zeros = torch.zeros(config.batch_size, 1, device=device)

    def _optimizer(self, network: nn.Module, ratio: float) -> torch.optim.Optimizer:
        config, rate = self.config, self.config.learning_rate * ratio
        if config.optimizer == "adam":
            betas = (config.adam_beta1, config.adam_beta2)
            return torch.optim.Adam(network.parameters(), lr=rate, betas=betas)
        return torch.optim.SGD(network.parameters(), lr=rate, momentum=config.momentum)

    def advance(self, num_steps: int) -> None:
        """Makes steps."""
        for _ in range(num_steps):
            self._step()

    def _fake_inputs(self) -> tuple[Tensor, Tensor]:
        rows, dim = self.config.batch_size, self.config.noise_dim
        labels = torch.randint(0, self.classes, (rows,), device=self.device)
        draw = torch.randn if self.config.noise == "gaussian" else torch.rand
        z = draw(rows, dim, device=self.device)
        return z, functional.one_hot(labels, self.classes).float()

    def _step(self) -> None:
        rows = torch.randint(0, len(self.images), (self.config.batch_size,), device=self.device)
        x, y = self.images[rows], self.labels[rows]
        self.d_optimizer.zero_grad()
        self.loss(self.discriminator(x, y), self.ones).backward()
        z, fake_y = self._fake_inputs()
        fake = self.generator(z, fake_y).detach()
        self.loss(self.discriminator(fake, fake_y), self.zeros).backward()
        self.d_optimizer.step()
        self.g_optimizer.zero_grad()
        z, fake_y = self._fake_inputs()
        judged = self.discriminator(self.generator(z, fake_y), fake_y)
        self.loss(judged, self.ones).backward()
        self.g_optimizer.step()
