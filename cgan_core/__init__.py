"""Conditional adversarial nets: networks, training and Parzen-window likelihood, in PyTorch."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
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

_MODULES = {
    "ConfigError": "config_fields",
    "DataError": "data",
    "DataSplits": "data",
    "GANConfig": "config",
    "MLPConfig": "configs.mlp",
    "Measurement": "training",
    "Trainer": "training",
    "config_of": "families",
    "generate": "pictures",
    "load_data": "data",
}


def __getattr__(name: str) -> Any:
    """Imports a public name when it is first asked for: a configuration needs no PyTorch."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
