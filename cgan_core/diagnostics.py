"""How a game stands: what the discriminator says, how steep it is, whether conditions are heeded.

All is taken from copies and from streams of its own: training goes on as if nobody had looked.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from cgan_core.config import GANConfig
from cgan_core.draws import Draws
from cgan_core.game import discriminator_gradients, generator_gradients
from cgan_core.member import Member
from cgan_core.networks.tape import Gradients
from cgan_core.streams import stream

MAX_IMAGES = 1_000  # of each kind, in whole mini-batches

# The logit at which D says "neither", halfway between the targets of real and fake.
UNDECIDED = {"sum": 0.0, "half_sum": 0.0, "least_squares": 0.5, "hinge": 0.0}


@dataclass(frozen=True)
class Diagnostics:
    """What one look at the game found; dropout is off.

    Attributes:
        d_real: Mean of D's output on training images: sigma(l) of the cross-entropies (0.5 is
            confusion), the logit l of least squares (targets 1 and 0) and of the hinge.
        d_fake: The same on generated images.
        d_accuracy_real: Share of training images that D takes for real.
        d_accuracy_fake: Share of generated images that it takes for generated.
        d_gradient_norm: Euclidean norm of the gradient of D's loss, over all of its parameters.
        g_gradient_norm: The same of G.
        condition_sensitivity: E|G(z, y) - G(z, y')| over E|G(z, y) - G(z', y)|, Euclidean: how
            much of a picture another condition changes, held against other noise; 0 is a
            generator that ignores its condition. None without conditions, or where noise changes
            nothing.
    """

    d_real: float
    d_fake: float
    d_accuracy_real: float
    d_accuracy_fake: float
    d_gradient_norm: float
    g_gradient_norm: float
    condition_sensitivity: float | None

    @property
    def metrics(self) -> dict[str, float]:
        """Those that there are, by name."""
        return {name: value for name, value in vars(self).items() if value is not None}


def diagnose(member: Member) -> Diagnostics:
    """Looks at the game of a member as it stands.

    The mini-batches depend on the member's seed and t alone. Batch statistics are those of whole
    mini-batches, real and generated ones apart, as in training.
    """
    batches = max(1, min(MAX_IMAGES, len(member.examples)) // member.config.batch_size)
    look = _Look(member)
    outputs = [look.logits(position) for position in range(batches)]
    real, fake = (torch.cat(logits) for logits in zip(*outputs, strict=True))
    undecided = UNDECIDED[member.config.d_loss]
    d_norm, g_norm = look.gradient_norms()
    return Diagnostics(
        d_real=_mean_output(member.config, real),
        d_fake=_mean_output(member.config, fake),
        d_accuracy_real=float((real > undecided).double().mean()),
        d_accuracy_fake=float((fake < undecided).double().mean()),
        d_gradient_norm=d_norm,
        g_gradient_norm=g_norm,
        condition_sensitivity=look.condition_sensitivity(),
    )


class _Look:
    """The mini-batches of one look, on the member's device."""

    def __init__(self, member: Member) -> None:
        self._member, self._t = member, member.t
        self._device = next(member.generator.parameters()).device
        # Without dropout, and with an epoch of its own, so that the member's place is not lost.
        self._draws = Draws(member.config, member.examples, member.seed, {}, {})

    def _here(self, value: Tensor | None) -> Tensor | None:
        return None if value is None else value.to(self._device)

    def _noise_and_condition(self, name: str) -> tuple[Tensor, Tensor | None]:
        noise, condition = self._draws.noise_and_condition(f"diagnostic {name}", self._t)
        return noise.to(self._device), self._here(condition)

    def _real(self, position: int) -> tuple[Tensor, Tensor | None]:
        member = self._member
        rng = stream(member.seed, f"diagnostic real {position}", self._t)
        rows = torch.from_numpy(rng.permutation(len(member.examples)))
        images, condition = member.examples.batch(rows[: member.config.batch_size])
        return images.to(self._device), self._here(condition) if member.kind else None

    @torch.no_grad()
    def logits(self, position: int) -> tuple[Float[Tensor, " rows"], Float[Tensor, " rows"]]:
        """Returns the logits of real and of generated images of a mini-batch."""
        noise, condition = self._noise_and_condition(f"fake {position}")
        fake = self._member.generate(noise, condition, {}).images
        real, real_condition = self._real(position)
        both = self._member.judge(
            torch.cat([real, fake]), _joined(real_condition, condition), {}
        ).logits
        return both[: len(real)].float(), both[len(real) :].float()

    def gradient_norms(self) -> tuple[float, float]:
        """Returns the norms of the discriminator's and the generator's gradient."""
        member, config = self._member, self._member.config
        noise, condition = self._noise_and_condition("gradient")
        fake = member.generate(noise, condition, {})
        real, real_condition = self._real(0)
        images = fake.images.detach()
        judged = member.judge(torch.cat([real, images]), _joined(real_condition, condition), {})
        d_side, _ = discriminator_gradients(config, judged)
        d_norm = _norm(d_side)
        g_side, _ = generator_gradients(config, member.judge(images, condition, {}), fake)
        return d_norm, _norm(g_side)

    @torch.no_grad()
    def condition_sensitivity(self) -> float | None:
        """Returns by how much conditions change pictures, held against noise."""
        noise, condition = self._noise_and_condition("sensitivity")
        if condition is None:
            return None
        other_noise, _ = self._noise_and_condition("sensitivity, other noise")
        first, otherwise, elsewhere = (
            self._member.generate(z, y, {}).images
            for z, y in (
                (noise, condition),
                (noise, self._others(condition)),
                (other_noise, condition),
            )
        )
        by_condition, by_noise = (
            float((images - first).double().norm(dim=1).mean())
            for images in (otherwise, elsewhere)
        )
        return by_condition / by_noise if by_noise > 0 else None

    def _others(self, condition: Tensor) -> Tensor:
        """Returns other conditions: a different label, or the next row's vector."""
        kind = self._member.kind
        assert kind is not None
        if not kind.labels:
            return condition.roll(1, 0)
        rng = stream(self._member.seed, "diagnostic labels", self._t)
        steps = torch.from_numpy(rng.integers(1, max(kind.width, 2), len(condition)))
        return (condition + steps.to(self._device)) % kind.width


def _mean_output(config: GANConfig, logits: Float[Tensor, " rows"]) -> float:
    outputs = torch.sigmoid(logits) if config.d_loss in ("sum", "half_sum") else logits
    return float(outputs.double().mean())


def _joined(real: Tensor | None, fake: Tensor | None) -> Tensor | None:
    return None if real is None or fake is None else torch.cat([real, fake])


def _norm(gradients: Gradients) -> float:
    squares = [gradient.formed().double().square().sum() for _, gradient in gradients]
    return float(torch.stack(squares).sum().sqrt())
