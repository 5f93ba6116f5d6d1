"""Conditional adversarial nets: networks, training and Parzen-window likelihood, in PyTorch."""

from cgan_core.config import ConfigError, GANConfig
from cgan_core.data import DataError, DataSplits, load_data
from cgan_core.pictures import generate
from cgan_core.training import Measurement, Trainer

__all__ = [
    "ConfigError",
    "DataError",
    "DataSplits",
    "GANConfig",
    "Measurement",
    "Trainer",
    "generate",
    "load_data",
]
