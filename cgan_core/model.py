"""A trained generator on disk: `model.safetensors` and `config.json`, read without pickle."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from cgan_core.config import ConfigError, GANConfig
from cgan_core.data.standardization import Standardization
from cgan_core.families import FAMILIES, config_of
from cgan_core.networks import ConditionKind, Generator
from cgan_core.replacing import replacing
from cgan_core.tensor_files import read_tensors, write_tensors

WEIGHTS_FILE, CONFIG_FILE = "model.safetensors", "config.json"
BEST_FOLDER = "best"  # where a study keeps that of its winner


class ModelError(ValueError):
    """A model folder is missing, broken, or asked for what it cannot give."""


@dataclass(frozen=True)
class Model:
    """A generator with what is needed to use it.

    Args:
        config: the hyperparameters it was trained with.
        image_shape: (h, w) or (h, w, c).
        condition: kind and width of its condition, or None.
        generator: the network, with its trained parameters.
        provenance: where it came from (data set, trial, scores); plain JSON.
        standardization: how condition vectors as they were measured become those that the
            generator takes, or None where it takes them as they are.
    """

    config: GANConfig
    image_shape: tuple[int, ...]
    condition: ConditionKind | None
    generator: Generator
    provenance: dict[str, Any]
    standardization: Standardization | None = None

    @classmethod
    def of(
        cls,
        config: GANConfig,
        image_shape: tuple[int, ...],
        condition: ConditionKind | None,
        parameters: dict[str, Tensor],
        provenance: dict[str, Any] | None = None,
        standardization: Standardization | None = None,
    ) -> Self:
        """Creates a model from a generator's parameters."""
        shape = tuple(image_shape)
        generator = FAMILIES[config.family].generator(config, shape, condition)
        generator.load_state_dict(parameters)
        known = provenance or {}
        return cls(config, shape, condition, generator.eval(), known, standardization)

    def save(self, folder: Path) -> None:
        """Writes the two files; the JSON comes last, so its presence says that both are whole."""
        folder.mkdir(parents=True, exist_ok=True)
        with replacing(folder / WEIGHTS_FILE) as partial:
            write_tensors(self.generator.state_dict(), partial)
        description = {
            "model": self.config.to_mapping(),
            "image_shape": list(self.image_shape),
            "condition": self._described_condition(),
            "provenance": self.provenance,
        }
        with replacing(folder / CONFIG_FILE) as partial:
            partial.write_text(json.dumps(description, indent=2) + "\n")

    def _described_condition(self) -> dict[str, Any] | None:
        kind, standard = self.condition, self.standardization
        if kind is None:
            return None
        described = {"width": kind.width, "labels": kind.labels}
        if standard is None:
            return described
        return described | {"mean": standard.mean.tolist(), "scale": standard.scale.tolist()}

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Reads a model.

        Raises:
            ModelError: if the folder holds no whole model.
        """
        try:
            description = json.loads((folder / CONFIG_FILE).read_text())
            condition = description["condition"]
            return cls.of(
                config_of(description["model"]),
                tuple(description["image_shape"]),
                None if condition is None else _kind(condition),
                read_tensors(folder / WEIGHTS_FILE),
                description["provenance"],
                None if condition is None else _standardization(condition),
            )
        except (OSError, KeyError, TypeError, RuntimeError, ValueError) as error:
            reason = str(error).splitlines()[0] if not isinstance(error, ConfigError) else error
            inside = folder / BEST_FOLDER
            hint = f"; did you mean {inside}?" if (inside / CONFIG_FILE).exists() else ""
            raise ModelError(f"{folder}: holds no whole model ({reason}){hint}") from error

    def images(
        self, noise: Float[Tensor, "rows noise_dim"], conditions: Tensor | None
    ) -> Float[Tensor, "rows pixels"]:
        """Generates images in [0, 1] with dropout off."""
        with torch.inference_mode():
            images: Tensor = self.generator(noise, conditions)
        return images


def _kind(condition: dict[str, Any]) -> ConditionKind:
    return ConditionKind(width=condition["width"], labels=condition["labels"])


def _standardization(condition: dict[str, Any]) -> Standardization | None:
    if "mean" not in condition:
        return None
    return Standardization(np.array(condition["mean"]), np.array(condition["scale"]))
