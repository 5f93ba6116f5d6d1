"""Schedules of the optimiser, as pure functions of t, the number of generator updates made."""

from cgan_core.config import GANConfig


def learning_rate(config: GANConfig, t: int) -> float:
    """Returns max(learning_rate / decay^t, min_learning_rate) (Mirza & Osindero 2014, 4.1)."""
    decayed: float = config.learning_rate * config.learning_rate_decay**-t
    return max(decayed, config.min_learning_rate)


def momentum(config: GANConfig, epoch: float) -> float:
    """Returns the momentum, rising linearly to `final_momentum` over `momentum_epochs`.

    It never falls: where it starts above `final_momentum` it stays.
    """
    risen = min(epoch / config.momentum_epochs, 1.0)
    rise = max(config.final_momentum - config.momentum, 0.0)
    return config.momentum + rise * risen
