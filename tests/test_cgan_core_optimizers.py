from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from cgan_core.configs.mlp import MLPConfig
from cgan_core.networks.tape import Gradient
from cgan_core.optimizers import PlayerOptimizer
from cgan_core.schedules import learning_rate, momentum

STEPS = 40


def parameters() -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    return [nn.Parameter(torch.randn(shape, generator=generator)) for shape in [(3, 4), (5,)]]


def player(values: list[nn.Parameter]) -> nn.Module:
    return nn.ParameterList(values)


def gradients(t: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(100 + t)
    return [torch.randn(shape, generator=generator) for shape in [(3, 4), (5,)]]


def named(values: list[Tensor]) -> list[tuple[str, Gradient]]:
    """As of a weight and a bias, in another order than the parameters': names count."""
    weight, bias = values
    rows = torch.tensor([[1.0], [2.0], [-1.0]])  # whose sum over the rows is 2
    return [("1", Gradient(rows * bias / 2)), ("0", Gradient(torch.eye(3), weight))]


def test_the_papers_rate_falls_from_a_tenth_to_a_millionth() -> None:
    config = MLPConfig.paper()
    assert learning_rate(config, 0) == 0.1
    assert learning_rate(config, 1000) == pytest.approx(0.1 / 1.00004**1000, rel=1e-12)
    assert learning_rate(config, 287_828) > 1e-6
    assert learning_rate(config, 287_829) == 1e-6
    assert learning_rate(config, 10**7) == 1e-6


@given(st.integers(0, 10**7), st.floats(1e-6, 1), st.floats(1, 2))
def test_the_rate_never_rises_nor_falls_below_the_least(t: int, rate: float, decay: float) -> None:
    config = MLPConfig.paper(learning_rate=rate, learning_rate_decay=decay)
    assert config.min_learning_rate <= learning_rate(config, t + 1) <= learning_rate(config, t)


def test_the_papers_momentum_rises_linearly_over_250_epochs() -> None:
    config = MLPConfig.paper()
    rises = {0: 0.5, 62.5: 0.55, 125: 0.6, 250: 0.7, 251: 0.7, 10_000: 0.7}
    for epoch, expected in rises.items():
        assert momentum(config, epoch) == pytest.approx(expected, abs=1e-12)


@given(st.floats(0, 0.99), st.floats(0, 0.99), st.floats(0, 1000), st.floats(0, 1000))
def test_momentum_never_falls(start: float, final: float, early: float, late: float) -> None:
    config = MLPConfig.paper(momentum=start, final_momentum=final)
    early, late = sorted((early, late))
    assert start <= momentum(config, early) <= momentum(config, late) <= max(start, final) + 1e-12


@pytest.mark.parametrize(
    "changes",
    [
        {"momentum": 0.5, "learning_rate_decay": 1.2},
        {"momentum": 0.0, "learning_rate_decay": 1.2, "momentum_epochs": 10.0},
        {"momentum": 0.0, "final_momentum": 0.0},
        {"momentum": 0.9, "final_momentum": 0.5, "min_learning_rate": 0.05},
        {"momentum": 0.3, "d_steps": 3, "learning_rate_decay": 1.1},
    ],
)
def test_sgd_holds_the_rate_inside_the_velocity(changes: dict[str, Any]) -> None:
    config = MLPConfig.paper(**changes)
    ours, ratio = parameters(), 0.3
    optimizer = PlayerOptimizer(config, player(ours), ratio)
    truth = [parameter.detach().double() for parameter in parameters()]
    velocity = [torch.zeros_like(weight) for weight in truth]
    for update in range(STEPS):
        t = update // config.d_steps
        epoch = t / 2
        optimizer.step(named(gradients(update)), t, epoch)
        rate = max(0.1 / config.learning_rate_decay**t, config.min_learning_rate) * ratio
        rise = max(config.final_momentum - config.momentum, 0)
        m = config.momentum + rise * min(epoch / config.momentum_epochs, 1)
        for weight, v, g in zip(truth, velocity, gradients(update), strict=True):
            v.mul_(m).sub_(rate * g.double())
            weight.add_(v)
        for parameter, weight in zip(ours, truth, strict=True):
            torch.testing.assert_close(parameter.double(), weight, rtol=2e-5, atol=2e-6)


def test_sgd_stands_still_once_the_rate_is_nothing() -> None:
    config = MLPConfig.paper(learning_rate_decay=2.0, min_learning_rate=0.0)
    ours = parameters()
    optimizer = PlayerOptimizer(config, player(ours))
    for t in (1073, 1074, 1075, 1076, 2000):
        optimizer.step(named(gradients(t)), t, 0.0)
    for parameter, start in zip(ours, parameters(), strict=True):
        assert torch.equal(parameter, start)


def test_buffers_that_a_state_does_not_name_start_anew() -> None:
    """As in the checkpoints of a player that had made no step, which once had none."""
    optimizer = PlayerOptimizer(MLPConfig.paper(), player(parameters()))
    optimizer.step(named(gradients(0)), 0, 0.0)
    optimizer.load_state_dict({})
    assert not any(value.any() for value in optimizer.state_dict().values())


def test_adam_is_pytorchs_under_the_schedule() -> None:
    config = MLPConfig.paper(
        optimizer="adam", learning_rate=0.01, learning_rate_decay=1.1, adam_beta2=0.9
    )
    ours, theirs = parameters(), parameters()
    optimizer = PlayerOptimizer(config, player(ours), 2.0)
    plain = torch.optim.Adam(theirs, lr=1.0, betas=(0.5, 0.9), foreach=False)
    for t in range(STEPS):
        optimizer.step(named(gradients(t)), t, 0.0)
        plain.param_groups[0]["lr"] = 0.01 / 1.1**t * 2
        for parameter, gradient in zip(theirs, gradients(t), strict=True):
            parameter.grad = gradient
        plain.step()
        for a, b in zip(ours, theirs, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", ["sgd", "adam"])
def test_state_taken_over_goes_on_bit_for_bit(kind: str) -> None:
    config = MLPConfig.paper(optimizer=kind)
    straight, halved = parameters(), parameters()
    optimizer = PlayerOptimizer(config, player(straight))
    first = PlayerOptimizer(config, player(halved))
    for t in range(4):
        optimizer.step(named(gradients(t)), t, 0.0)
    for t in range(2):
        first.step(named(gradients(t)), t, 0.0)
    second = PlayerOptimizer(config, player(halved))
    second.load_state_dict(first.state_dict())
    for t in range(2, 4):
        second.step(named(gradients(t)), t, 0.0)
    assert all(torch.equal(a, b) for a, b in zip(straight, halved, strict=True))
    assert sorted(second.state_dict()) == sorted(optimizer.state_dict())
    for name, value in optimizer.state_dict().items():
        assert torch.equal(second.state_dict()[name], value)
