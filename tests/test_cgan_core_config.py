import dataclasses
import json
import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_data import tiny_config, tiny_splits

from cgan_core.config import ConfigError
from cgan_core.configs.mlp import MLPConfig
from cgan_core.data import DataSplits
from cgan_core.examples import Examples
from cgan_core.families import config_of
from cgan_core.member import Member

FIELDS = {spec.name: spec for spec in dataclasses.fields(MLPConfig)}
NUMERIC = [name for name, spec in FIELDS.items() if "low" in spec.metadata]
INTEGERS = [name for name, spec in FIELDS.items() if spec.type is int]
OPTIONAL = [
    name for name, spec in FIELDS.items() if spec.default is None and "low" in spec.metadata
]


@pytest.mark.parametrize(
    ("changes", "key", "message"),
    [
        (
            {"d_dropout": 1.2},
            "d_dropout",
            "`0 <= d_dropout < 1` must hold, but got d_dropout=1.2",
        ),
        (
            {"learning_rate": 0.0},
            "learning_rate",
            "`0 < learning_rate <= 100` must hold, but got learning_rate=0.0",
        ),
        ({"batch_size": 0}, "batch_size", "`1 <= batch_size` must hold, but got batch_size=0"),
        (
            {"d_rate_ratio": math.inf},
            "d_rate_ratio",
            "`0 < d_rate_ratio` must hold, but got d_rate_ratio=inf",
        ),
        (
            {"momentum": math.nan},
            "momentum",
            "`0 <= momentum < 1` must hold, but got momentum=nan",
        ),
        (
            {"learning_rate": "1e-4"},
            "learning_rate",
            "`learning_rate` must be of type float, but got learning_rate='1e-4'",
        ),
        (
            {"d_steps": 1.0},
            "d_steps",
            "`d_steps` must be of type int, but got d_steps=1.0",
        ),
        (
            {"d_steps": True},
            "d_steps",
            "`d_steps` must be of type int, but got d_steps=True",
        ),
        (
            {"fresh_noise": 1},
            "fresh_noise",
            "`fresh_noise` must be of type bool, but got fresh_noise=1",
        ),
        (
            {"update": "simultaneous", "fresh_noise": True},
            "fresh_noise",
            "`fresh_noise=False` must hold for update=simultaneous, where both players learn from "
            "the same fakes, but got fresh_noise=True (leave it out to follow `update`)",
        ),
        (
            {"d_dropout": None},
            "d_dropout",
            "`d_dropout` must be of type float, but got d_dropout=None",
        ),
        (
            {"noise": "normal"},
            "noise",
            "`noise` must be one of uniform, gaussian, but got noise='normal'",
        ),
        (
            {"g_join": "product", "d_condition_units": 240},
            "g_noise_units",
            "`g_noise_units == g_condition_units` must hold for g_join=product, "
            "but got g_noise_units=200, g_condition_units=1000",
        ),
        (
            {"d_join": "product", "g_noise_units": 1000},
            "d_image_units",
            "`d_image_units == d_condition_units` must hold for d_join=product, "
            "but got d_image_units=240, d_condition_units=50",
        ),
    ],
)
def test_error_states_the_constraint_then_the_value(
    changes: dict[str, Any], key: str, message: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        MLPConfig.paper(**changes)
    assert (str(caught.value), caught.value.key) == (message, key)


@pytest.mark.parametrize(
    ("mapping", "key", "message"),
    [
        (
            {"learning_rate": 0.1, "d_dropout": 0.5, "learing_rate": 1.0},
            "learing_rate",
            "`learing_rate` is not a hyperparameter of the model; did you mean `learning_rate`?",
        ),
        (
            {"learning_rate": 0.1, "d_dropout": 0.5, "zzz": 1.0},
            "zzz",
            "`zzz` is not a hyperparameter of the model",
        ),
        (
            {"learning_rate": 0.1},
            "d_dropout",
            "`d_dropout` must be given: it has no default",
        ),
    ],
)
def test_mapping_with_unknown_or_missing_name_is_refused(
    mapping: dict[str, Any], key: str, message: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        config_of(mapping)
    assert (str(caught.value), caught.value.key) == (message, key)


def test_every_field_declares_a_type_that_is_checked() -> None:
    for name in FIELDS:
        with pytest.raises(ConfigError) as caught:
            MLPConfig.paper(**{name: object()})
        assert caught.value.key == name


def test_fresh_noise_follows_the_update_unless_it_is_given() -> None:
    assert MLPConfig.paper().fresh_noise is True
    assert MLPConfig.paper(fresh_noise=False).fresh_noise is False
    simultaneous = MLPConfig.paper(update="simultaneous")
    assert simultaneous.fresh_noise is False
    assert config_of(simultaneous.to_mapping()) == simultaneous


def test_paper_setting_survives_json() -> None:
    config = MLPConfig.paper(noise="gaussian", g_joint_dropout=0.25)
    assert config_of(json.loads(json.dumps(config.to_mapping()))) == config


@given(data=st.data(), name=st.sampled_from(NUMERIC))
def test_a_number_is_accepted_exactly_inside_its_interval(data: st.DataObject, name: str) -> None:
    bounds = FIELDS[name].metadata
    integer = name in INTEGERS
    value: float = data.draw(st.integers(-5, 2000) if integer else st.floats())
    above = value > bounds["low"] if bounds["low_open"] else value >= bounds["low"]
    below = value < bounds["high"] if bounds["high_open"] else value <= bounds["high"]
    inside = above and below and math.isfinite(value)
    if not inside:
        with pytest.raises(ConfigError, match=f"must hold, but got {name}=") as caught:
            MLPConfig.paper(**{name: value})
        assert caught.value.key == name
        return
    config = MLPConfig.paper(**{name: value})
    assert config_of(config.to_mapping()) == config


# What to change in each field, and what must be set beside it for the field to matter.
CHANGES: dict[str, tuple[Any, dict[str, Any]]] = {
    "learning_rate": (0.2, {}),
    "momentum": (0.6, {}),
    "optimizer": ("adam", {}),
    "batch_size": (12, {}),
    "d_rate_ratio": (0.5, {}),
    "learning_rate_decay": (1.1, {}),
    "min_learning_rate": (0.2, {}),
    "final_momentum": (0.9, {}),
    "momentum_epochs": (1.0, {}),
    "adam_beta1": (0.9, {"optimizer": "adam"}),
    "adam_beta2": (0.9, {"optimizer": "adam"}),
    "adam_epsilon": (1e-3, {"optimizer": "adam"}),
    "generator_loss": ("minimax", {}),
    "d_loss": ("half_sum", {}),
    "update": ("simultaneous", {"fresh_noise": False}),
    "condition": ("none", {}),
    "precision": ("bfloat16", {}),
    "g_average_kimg": (0.1, {}),
    "d_steps": (2, {}),
    "fresh_noise": (False, {}),
    "condition_sampler": ("uniform", {}),
    "noise": ("gaussian", {}),
    "noise_dim": (4, {}),
    "g_noise_units": (9, {}),
    "g_condition_units": (9, {}),
    "g_joint_units": (9, {}),
    "g_init_range": (0.1, {}),
    "g_dropout": (0.2, {}),
    "g_noise_dropout": (0.2, {}),
    "g_condition_dropout": (0.2, {}),
    "g_joint_dropout": (0.2, {}),
    "d_image_units": (9, {}),
    "d_image_pieces": (2, {}),
    "d_condition_units": (9, {}),
    "d_condition_pieces": (3, {}),
    "d_joint_units": (9, {}),
    "d_joint_pieces": (3, {}),
    "d_init_range": (0.01, {}),
    "d_dropout": (0.2, {}),
    "d_input_dropout": (0.2, {}),
    "d_image_dropout": (0.2, {}),
    "d_condition_dropout": (0.2, {}),
    "d_joint_dropout": (0.2, {}),
    "g_join": ("product", {"g_noise_units": 7, "g_condition_units": 7}),
    "d_join": ("product", {"d_image_units": 6, "d_condition_units": 6}),
    "g_condition_init_range": (0.2, {}),
    "d_condition_init_range": (0.2, {}),
}


@pytest.fixture(scope="module")
def splits() -> DataSplits:
    return tiny_splits()


def trained(splits: DataSplits, **changes: Any) -> dict[str, torch.Tensor]:
    """Parameters after three steps, long enough for a second epoch's momentum at batch 10."""
    member = Member(tiny_config(**changes), Examples(splits), seed=0)
    member.advance(3)
    networks = (member.generator, member.discriminator, member.scored_generator)
    return {f"{i}.{k}": v for i, n in enumerate(networks) for k, v in n.state_dict().items()}


def test_every_field_is_known_to_the_test_of_effects() -> None:
    assert set(CHANGES) == set(FIELDS) - {"family"}  # one family so far


@pytest.mark.parametrize("name", list(CHANGES))
def test_no_hyperparameter_is_dead(splits: DataSplits, name: str) -> None:
    value, beside = CHANGES[name]
    before = trained(splits, **beside)
    after = trained(splits, **beside, **{name: value})
    assert value != getattr(tiny_config(**beside), name)
    assert any(
        before[key].shape != after[key].shape or not torch.equal(before[key], after[key])
        for key in before
    )


@pytest.mark.parametrize("name", OPTIONAL)
def test_the_value_of_one_place_overrides_the_common_one(splits: DataSplits, name: str) -> None:
    common = name[0] + ("_dropout" if name.endswith("dropout") else "_init_range")
    same = trained(splits, **{common: 0.5, name: 0.5})
    inherited = trained(splits, **{common: 0.5})
    assert all(torch.equal(same[key], inherited[key]) for key in same)
