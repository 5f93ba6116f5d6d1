"""The hyperparameters that the batch-normalised convolutional families share."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from cgan_core.config import GANConfig
from cgan_core.config_fields import ranged, rate


@dataclass(frozen=True, kw_only=True)
class ConvolutionalConfig(GANConfig):
    """What nets of convolutions and batch normalisation have beyond what all have.

    Defaults are those of Radford et al. (2015, "Unsupervised representation learning with deep
    convolutional generative adversarial networks"): Adam with beta1 0.5 (at a rate of 2e-4, which
    as every search moves it has no default here), weights from N(0, 0.02). Their rate stays as it
    is, so `learning_rate_decay` is 1.

    Raises:
        ConfigError: if a value is of the wrong type or out of its range.
    """

    label_sampler: ClassVar[Literal["empirical", "uniform"]] = "uniform"

    optimizer: Literal["sgd", "adam"] = "adam"
    learning_rate_decay: float = ranged("divisor per update", 1.0, 2.0, scope="step", default=1.0)
    noise: Literal["uniform", "gaussian"] = "gaussian"

    init_std: float = ranged(
        "of weights N(0, s) and of batch norm's gains N(1, s)",
        0.0,
        low_open=True,
        scope="start",
        default=0.02,
    )
    embedding_std: float = ranged(
        "of the condition's embedding N(0, s)", 0.0, low_open=True, scope="start", default=1.0
    )
    batch_norm_momentum: float = ranged(
        "share of a new batch in the running statistics", 0.0, 1.0, low_open=True, default=0.1
    )
    d_dropout: float = rate(default=0.0)  # of whole maps
    d_norm: Literal["batch", "spectral", "none"] = "batch"
    d_join: Literal["map", "projection"] = "map"  # of the condition
    r1_weight: float = ranged(
        "gamma of gamma / 2 E|grad D(x)|^2 at real images x", 0.0, default=0.0
    )
