"""Conditional adversarial nets: networks, training and Parzen-window likelihood, in PyTorch."""

from cgan_core.config import ConfigError, GANConfig
from cgan_core.configs.mlp import MLPConfig
from cgan_core.data import DataError, DataSplits, load_data
from cgan_core.families import config_of
from cgan_core.pictures import generate
from cgan_core.training import Measurement, Trainer

__all__ = [
    "ConfigError",
    "DataError",
    "DataSplits",
    "GANConfig",
    "MLPConfig",
    "Measurement",
    "Trainer",
    "config_of",
    "generate",
    "load_data",
]
