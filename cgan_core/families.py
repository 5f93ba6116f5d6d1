"""The families of networks that can be trained, by name."""

import dataclasses
import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from cgan_core.config import ConfigError, GANConfig
from cgan_core.configs.dcgan import DCGANConfig
from cgan_core.configs.maxout_conv import MaxoutConvConfig
from cgan_core.configs.mlp import MLPConfig
from cgan_core.configs.upsample_conv import UpsampleConvConfig

if TYPE_CHECKING:
    from cgan_core.networks import ConditionKind, Discriminator, Generator

ImageShape = tuple[int, ...]


@dataclass(frozen=True)
class Family:
    """A kind of networks.

    Attributes:
        config: the class of its hyperparameters.
        generator: makes a generator of (config, image_shape, condition).
        discriminator: makes a discriminator of the same.
    """

    config: type[GANConfig]
    generator: "Callable[[Any, ImageShape, ConditionKind | None], Generator]"
    discriminator: "Callable[[Any, ImageShape, ConditionKind | None], Discriminator]"

    @property
    def fields(self) -> "dict[str, dataclasses.Field[Any]]":
        """Its hyperparameters, by name."""
        return {spec.name: spec for spec in dataclasses.fields(self.config)}

    @property
    def defaults(self) -> dict[str, Any]:
        """The default values of the hyperparameters that have one."""
        missing = dataclasses.MISSING
        return {k: spec.default for k, spec in self.fields.items() if spec.default is not missing}


def _late(module: str, network: str) -> Callable[..., Any]:
    """Imports a network when one is made: to check hyperparameters takes no PyTorch."""

    def make(*given: Any) -> Any:
        return getattr(import_module(f"cgan_core.networks.{module}"), network)(*given)

    return make


FAMILIES: Mapping[str, Family] = {
    "mlp": Family(MLPConfig, _late("mlp", "MLPGenerator"), _late("mlp", "MLPDiscriminator")),
    "dcgan": Family(
        DCGANConfig, _late("dcgan", "DCGANGenerator"), _late("dcgan", "DCGANDiscriminator")
    ),
    "upsample_conv": Family(
        UpsampleConvConfig,
        _late("upsample_conv", "UpsampleConvGenerator"),
        _late("upsample_conv", "UpsampleConvDiscriminator"),
    ),
    "maxout_conv": Family(
        MaxoutConvConfig,
        _late("maxout_conv", "MaxoutConvGenerator"),
        _late("maxout_conv", "MaxoutConvDiscriminator"),
    ),
}
DEFAULT_FAMILY = "mlp"


def family_of(mapping: Mapping[str, Any]) -> Family:
    """Returns the family that hyperparameters name; the paper's where they name none.

    Raises:
        ConfigError: if there is no such family.
    """
    name = mapping.get("family", DEFAULT_FAMILY)
    if not isinstance(name, str) or name not in FAMILIES:
        choices = ", ".join(FAMILIES)
        raise ConfigError(f"`family` must be one of {choices}, but got family={name!r}", "family")
    return FAMILIES[name]


def config_of(mapping: Mapping[str, Any]) -> GANConfig:
    """Creates a configuration from flat names and values.

    Raises:
        ConfigError: if a name is unknown or of another family, missing, or its value is out of
            range.
    """
    mapping = _renamed(mapping)
    family = family_of(mapping)
    for name in mapping:
        if name not in family.fields:
            raise ConfigError(_unknown(name, family), name)
    for name in family.fields.keys() - family.defaults.keys() - mapping.keys():
        raise ConfigError(f"`{name}` must be given: it has no default", name)
    return family.config(**mapping)


def _of_scope(*scopes: str) -> frozenset[str]:
    specs = (spec for family in FAMILIES.values() for spec in family.fields.values())
    return frozenset(spec.name for spec in specs if spec.metadata.get("scope") in scopes)


# What members of one population may differ in: not the shape of a step. Of these the ones that
# still matter to a member that has begun: another one of the same signature can go on from its
# state with other values of them.
PER_MEMBER = _of_scope("step", "start")
CHANGEABLE = _of_scope("step")


def owner_of(field: str) -> str | None:
    """Returns the first family that has a hyperparameter of this name."""
    return next((name for name, family in FAMILIES.items() if field in family.fields), None)


def _renamed(mapping: Mapping[str, Any]) -> Mapping[str, Any]:
    """Reads what was recorded before `fake_labels` became `condition_sampler`."""
    if "fake_labels" not in mapping:
        return mapping
    sampler = "uniform" if mapping["fake_labels"] == "uniform" else None
    others = {name: value for name, value in mapping.items() if name != "fake_labels"}
    return {"condition_sampler": sampler, **others}


def _unknown(name: str, family: Family) -> str:
    if owner := owner_of(name):
        return f"`{name}` is a hyperparameter of the family {owner}, not of this one"
    near = difflib.get_close_matches(name, family.fields, n=1)
    hint = f"; did you mean `{near[0]}`?" if near else ""
    return f"`{name}` is not a hyperparameter of the model{hint}"
