"""A study is read as it was written, or refused in one message that says where and why."""

# ruff: noqa: E501 - an exact message is one line

import json
import textwrap
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from cgan_core.config import GANConfig
from cgan_core.configs.mlp import MLPConfig
from search.sections import parse_duration
from search.space import corner_points
from search.study import SpecError, StudySpec, load_spec
from search.yaml_source import Source

SPACES = sorted((Path(__file__).parent.parent / "spaces").glob("*.yaml"))

STUDY = """\
study: digits
data: {name: mnist}
model:
  noise_dim: 64
space:
  learning_rate: {type: float, low: 0.01, high: 1.0, log: true}
  d_dropout: {type: float, low: 0.0, high: 0.6}
  momentum:
    - {type: float, low: 0.0, high: 0.9, when: {optimizer: sgd}}
    - {type: categorical, choices: [0.0], when: {optimizer: adam}}
  optimizer: {type: categorical, choices: [sgd, adam]}
stages:
  - kind: manual
    points:
      - {learning_rate: 0.1, d_dropout: 0.5, momentum: 0.5, optimizer: sgd}
  - {kind: random_grid, levels: {learning_rate: 3, d_dropout: 2, momentum: 3}, trials: 10}
  - {kind: model, trials: 20}
scheduler: {grace_kimg: 100}
budget: {kimg_per_trial: 900, measure_kimg: 50, trials: 31, time: 1h30m}
sizes:
  quick:
    budget: {kimg_per_trial: 300, trials: 8}
    model: {noise_dim: 32, g_joint_units: 100}
    stages:
      - {kind: model, trials: 8}
"""

DESIGN_EXAMPLE = """\
study: mnist
data: {name: mnist}
model: {family: mlp, noise_dim: 100}
space:
  learning_rate: {type: float, low: 0.01, high: 1.0, log: true}
  d_dropout: {type: float, low: 0.0, high: 0.6}
  momentum: {type: float, low: 0.0, high: 0.9}
stages:
  - {kind: manual, points: [{learning_rate: 0.1, d_dropout: 0.5, momentum: 0.5}]}
  - {kind: random_grid, levels: {learning_rate: 5, d_dropout: 3, momentum: 3}, trials: 24}
  - {kind: model, sampler: tpe, trials: 40}
objective: {metric: validation_log_likelihood, direction: maximize}
replication: {seeds: 1, folds: 1}
scheduler: {kind: asha, grace_kimg: 1000, reduction_factor: 3}
budget: {kimg_per_trial: 28783, measure_kimg: 500, trials: 65, time: 12h}
resources: {gpus_per_trial: 0.0625, cpus_per_trial: 1}
confirm: {top: 3, seeds: 5}
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(folder: Path, text: str = STUDY) -> str:
    (folder / "s.yaml").write_text(textwrap.dedent(text))
    return "s.yaml"


def refusal(folder: Path, text: str, size: str | None = None, *overrides: str) -> str:
    with pytest.raises(SpecError) as caught:
        load_spec(write(folder, text), size, overrides)
    return str(caught.value)


def mapping() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(STUDY)
    return loaded


def test_the_designs_example_loads(folder: Path) -> None:
    spec = load_spec(write(folder, DESIGN_EXAMPLE))
    assert spec.budget.time == 12 * 3600
    assert [planned.trials for planned in spec.stage_plan] == [1, 24, 40]
    assert (spec.confirm.top, spec.confirm.seeds) == (3, 5)


REPLACED = [
    ("study: digits", "study: a/b", "1: study: must be made of letters, digits, `-`, `_` and `.`, but got 'a/b'"),
    ("noise_dim: 64", "noise_dim: 0", "4: model.noise_dim: `1 <= noise_dim` must hold, but got noise_dim=0"),
    ("noise_dim: 64", "nois_dim: 64", "4: model.nois_dim: must be a hyperparameter of this family of networks; did you mean `noise_dim` or `noise`?"),
    ("noise_dim: 64", "optimizer: sgd", "11: space.optimizer: must be searched or fixed, but `model.optimizer` fixes it too"),
    ("low: 0.01", "low: 2.0", "6: space.learning_rate.low: `low <= high` must hold, but got low=2.0, high=1.0"),
    ("low: 0.01", "low: 0", "6: space.learning_rate.low: `low > 0` must hold where `log` is true, but got low=0.0"),
    ("low: 0.01", "low: 1e-4", "6: space.learning_rate.low: YAML reads 1e-4 as text, not a number; write 1.0e-4"),
    ("low: 0.01", "low: 2.5E3", "6: space.learning_rate.low: YAML reads 2.5E3 as text, not a number; write 2.5e+3"),
    ("low: 0.01", "low: '0.01'", "6: space.learning_rate.low: must be a number, but got '0.01'"),
    ("low: 0.01", "low: .nan", "6: space.learning_rate.low: must be finite, but got nan"),
    ("low: 0.01, ", "", "6: space.learning_rate.low: this key is required, but it is missing"),
    ("low: 0.01", "lo: 0.01", "6: space.learning_rate.low: this key is required, but it is missing\ns.yaml:6: space.learning_rate.lo: unknown key; did you mean `low` or `log`?"),
    ("{type: float, low: 0.01", "{low: 0.01", "6: space.learning_rate: `type` is required: float, int or categorical"),
    ("{type: float, low: 0.01", "{type: real, low: 0.01", "6: space.learning_rate.type: must be float, int or categorical, but got 'real'"),
    ("log: true", "step: 0.3", "6: space.learning_rate.step: `high - low` must be a multiple of `step`, but got low=0.01, high=1.0, step=0.3"),
    ("log: true", "log: true, step: 0.01", "6: space.learning_rate.step: `step` must be left out where `log` is true, but got both"),
    ("  d_dropout: {", "  d_dropuot: {", "7: space.d_dropuot: must be a hyperparameter of this family of networks; did you mean `d_dropout` or `g_dropout` or `d_joint_dropout`?"),
    ("high: 0.6", "high: 1.2", "7: space.d_dropout.high: `0 <= d_dropout < 1` must hold, but got d_dropout=1.2"),
    ("when: {optimizer: sgd}", "when: {optimiser: sgd}", "9: space.momentum.0.when.optimiser: `when` must name another searched parameter; did you mean `optimizer`?"),
    ("when: {optimizer: sgd}", "when: {optimizer: rms}", "9: space.momentum.0.when.optimizer: `optimizer` must be able to be 'rms', but its domain has no such value"),
    ("when: {optimizer: sgd}", "when: {d_dropout: 0.0}", "9: space.momentum.0.when.d_dropout: `when` must ask for a categorical or int parameter, but `d_dropout` is a float"),
    ("when: {optimizer: sgd}", "when: {optimizer: [sgd, adam]}", "10: space.momentum.1: the `when` of two branches must not both hold, but these can"),
    ("high: 0.6", "high: 0.6, when: {optimizer: sgd}", "7: space.d_dropout: a branch must apply where optimizer='adam', for it has no default"),
    ("choices: [sgd, adam]", "choices: []", "11: space.optimizer.choices: must not be empty"),
    ("choices: [sgd, adam]", "choices: [sgd, adam, sgd]", "11: space.optimizer.choices: choices must differ, but 'sgd' is there twice"),
    ("adam}}\n  optimizer: {type: categorical, choices: [sgd, adam]", "[adam, rms]}}\n  optimizer: {type: categorical, choices: [sgd, adam, rms]", "11: space.optimizer.choices: `optimizer` must be one of sgd, adam, but got optimizer='rms'"),
    ("choices: [sgd, adam]", "choices: [sgd, adam], when: {momentum: 0.0}", "11: space.optimizer.when.momentum: `when` must ask for a categorical or int parameter, but `momentum` is a float"),
    ("kind: manual", "kind: manuel", "13: stages.0.kind: must be manual, random_grid, full_grid or model, but got 'manuel'"),
    ("learning_rate: 0.1,", "learning_rate: 3,", "15: stages.0.points.0.learning_rate: `0.01 <= learning_rate <= 1.0` must hold, but got learning_rate=3"),
    ("momentum: 0.5, optimizer: sgd}\n", "optimizer: sgd}\n", "15: stages.0.points.0.momentum: must be given at every point, but it is missing"),
    ("momentum: 0.5, optimizer: sgd", "momentum: 0.5, optimizer: adam", "15: stages.0.points.0.momentum: must be one of 0.0, but got momentum=0.5"),
    ("momentum: 0.5, optimizer: sgd", "momentum: 0.5, optimizer: sgd, noise_dim: 3", "15: stages.0.points.0.noise_dim: must be a parameter of `space`; known: d_dropout, learning_rate, momentum, optimizer"),
    ("d_dropout: 2, momentum: 3}", "momentum: 3}", "16: stages.1.levels: `d_dropout` must have levels, a number or a list of values, but has none"),
    ("d_dropout: 2,", "d_dropout: 0,", "16: stages.1.levels.d_dropout: at least one level must be given, but got 0"),
    ("d_dropout: 2,", "d_dropout: few,", "16: stages.1.levels.d_dropout: must be a number of levels or a list of values, but got 'few'"),
    ("d_dropout: 2,", "d_dropout: [0.1, 0.9],", "16: stages.1.levels.d_dropout: `0.0 <= d_dropout <= 0.6` must hold, but got d_dropout=0.9"),
    ("momentum: 3}", "momentum: 3, optimizer: 2}", "16: stages.1.levels.optimizer: levels of a categorical parameter must be a list, but got 2"),
    ("momentum: 3}", "momentum: 3, momentun: 2}", "16: stages.1.levels.momentun: must be a parameter of `space`; did you mean `momentum`?"),
    ("trials: 10}", "trials: 40}", "16: stages.1.trials: `trials <= 24` must hold, for the grid has 24 cells, but got trials=40"),
    ("d_dropout: 2,", "d_dropout: 60000,", "16: stages.1.levels: a grid must have at most 100,000 cells, but this one has more"),
    ("{kind: model,", "{kind: model, sampler: gpp,", "17: stages.2.sampler: must be 'tpe', 'gp', 'cmaes', 'nsga2', 'sobol' or 'random', but got 'gpp'"),
    ("grace_kimg: 100", "grace_kimg: 120", "18: scheduler.grace_kimg: `grace_kimg` must be a multiple of `measure_kimg`, but got grace_kimg=120.0, measure_kimg=50.0"),
    ("grace_kimg: 100", "grace_kimg: 1000", "18: scheduler.grace_kimg: `grace_kimg <= kimg_per_trial` must hold, but got grace_kimg=1000.0, kimg_per_trial=900.0"),
    ("{grace_kimg: 100}", "{kind: asha}", "18: scheduler: `grace_kimg` must be given where `kind` is asha, but it is missing"),
    ("grace_kimg: 100", "grace_kimg: 100, reduction_factor: 1", "18: scheduler.reduction_factor: `reduction_factor >= 2` must hold, but got reduction_factor=1"),
    ("measure_kimg: 50", "measure_kimg: 1000", "19: budget.measure_kimg: `measure_kimg <= kimg_per_trial` must hold, but got measure_kimg=1000.0, kimg_per_trial=900.0"),
    ("measure_kimg: 50", "measure_kimg: 0", "19: budget.measure_kimg: `measure_kimg > 0` must hold, but got measure_kimg=0"),
    ("trials: 31", "trials: 32", "19: budget.trials: `trials <= 31`, the sum over the stages, must hold, but got trials=32"),
    ("trials: 31", "trials: 3.5", "19: budget.trials: must be a whole number, but got 3.5"),
    ("trials: 31", "trials: true", "19: budget.trials: must be a whole number, but got True"),
    ("time: 1h30m", "time: 1:30", "19: budget.time: YAML reads 1:30 as a number in base 60; quote it"),
    ("time: 1h30m", "time: soon", "19: budget.time: must be a duration such as 15m, 12h or 1h30m, but got 'soon'"),
    ("time: 1h30m", "tme: 1h30m", "19: budget.tme: unknown key; did you mean `time`?"),
    ("data: {name: mnist}", "data: mnist", "2: data: must be a mapping, but got 'mnist'"),
    ("data: {name: mnist}", "data: {name: mnist, path: x.npz}", "2: data: one of `name` and `path` must be given, but got both"),
    ("data: {name: mnist}", "data: {path: x.npz, require_full: true}", "2: data.require_full: `require_full` must be left out where `path` is given: a file is whole"),
    ("data: {name: mnist}", "data: {name: cifar}", "2: data.name: must be 'mnist', 'lfwcrop' or 'lfw_people', but got 'cifar'"),
    ("data: {name: mnist}", "data: {name: mnist, size: 32}", "2: data.size: `size` must be left out for mnist, but got size=32"),
    ("data: {name: mnist}", "data: {name: lfwcrop, conditions: a.csv}", "2: data.conditions: `conditions` needs `path`, the folder of the pictures, but got name"),
    ("data: {name: mnist}", "data: {path: d, max_broken_share: 1}", "2: data.max_broken_share: `max_broken_share < 1` must hold, but got max_broken_share=1"),
    ("data: {name: mnist}", "data: {name: mnist, condition: none}", "2: data.condition: must be 'given' or 'masked_image', but got 'none'"),
    ("data: {name: mnist}", "data: {name: mnist, condition: masked_image}", "2: data.condition: `mask` must be given where `condition` is masked_image, but it is missing"),
    ("data: {name: mnist}", "data: {name: mnist, mask: centre}", "2: data.mask: `mask` needs `condition: masked_image`, but got given"),
    ("data: {name: mnist}", "data: {name: mnist, condition: masked_image, mask: middle}", "2: data.mask: must be 'left_half', 'right_half', 'top_half', 'bottom_half' or 'centre', but got 'middle'"),
    ("data: {name: mnist}", "data: {name: mnist, condition: masked_image, mask: {top: 1, left: 2, height: 0, width: 4}}", "2: data.mask.height: `height >= 1` must hold, but got height=0"),
    ("data: {name: mnist}", "data: {name: mnist, condition: masked_image, mask: {top: 1}}", "2: data.mask.left: this key is required, but it is missing\ns.yaml:2: data.mask.height: this key is required, but it is missing\ns.yaml:2: data.mask.width: this key is required, but it is missing"),
    ("data: {name: mnist}", "data: {name: mnist}\ndata: {name: cifar}", "3: `data` must be given once, but it is here again"),
    ("data: {name: mnist}", "data: {name: mnist}\nsize: quick", "3: size: must be chosen by `--size`; overlays go under `sizes`"),
    ("data: {name: mnist}", "data: {name: mnist}\n3: quick", "3: a key must be text, but got '3'"),
    ("data: {name: mnist}", "data: {name: mnist}\nreplication: {folds: 0}", "3: replication.folds: `folds >= 1` must hold, but got folds=0"),
    ("data: {name: mnist}", "data: {name: mnist}\nreplication: {seeds: 0}", "3: replication.seeds: `seeds >= 1` must hold, but got seeds=0"),
    ("data: {name: mnist}", "data: {name: mnist}\nobjective: {metric: recall, direction: minimise}", "3: objective.direction: must be 'maximize' or 'minimize', but got 'minimise'"),
    ("data: {name: mnist}", "data: {name: mnist}\nobjective: {metric: recall, direction: minimize}", "3: objective.direction: `direction` must be maximize where `metric` is recall, of which more is better, but got minimize"),
    ("{grace_kimg: 100}", "{kind: hyperband, grace_kimg: 400}", "18: scheduler.grace_kimg: `grace_kimg * reduction_factor <= 900.0` (kimg_per_trial) must hold, or no bracket stops anyone, but got grace_kimg=400.0, reduction_factor=3"),
    ("data: {name: mnist}", "data: {name: mnist}\nobjective: {metric: frechet_distance}", "3: objective.direction: `direction` must be minimize where `metric` is frechet_distance, of which less is better, but got maximize"),
    ("data: {name: mnist}", "data: {name: mnist}\nobjective: {constraints: [recall > 0.2]}", "3: objective.constraints.0: must look like `label_accuracy >= 0.9` (or `<=`), but got 'recall > 0.2'"),
    ("data: {name: mnist}", "data: {name: mnist}\nobjective: {constraints: [recall <= nan]}", "3: objective.constraints.0: must look like `label_accuracy >= 0.9` (or `<=`), but got 'recall <= nan'"),
    ("data: {name: mnist}", "data: {name: mnist}\nobjective: {constraints: [recal >= 0.2]}", "3: objective.constraints.0: must bound a metric, but got recal; did you mean `recall`?"),
    ("data: {name: mnist}", "data: {name: mnist}\nobjective: {metric: loss}", "3: objective.metric: must be 'validation_log_likelihood', 'conditional_log_likelihood', 'label_accuracy', 'missing_classes', 'frechet_distance', 'precision', 'recall', 'two_sample_accuracy', 'memorization_ratio' or 'sharpness', but got 'loss'"),
    ("data: {name: mnist}", "data: {name: mnist}\nresources: {pack: many}", "3: resources.pack: must be auto or a number from 1 to 64, but got 'many'"),
    ("data: {name: mnist}", "data: {name: mnist}\nresources: {pack: 0}", "3: resources.pack: must be auto or a number from 1 to 64, but got 0"),
    ("data: {name: mnist}", "data: {name: mnist}\nresources: {pack: 4, gpus_per_trial: 0.5}", "3: resources.pack: `pack * gpus_per_trial <= 1` must hold, for a pack shares one GPU, but got pack=4, gpus_per_trial=0.5"),
    ("data: {name: mnist}", "data: {name: mnist}\nresources: {gpus_per_trial: 1.5}", "3: resources.gpus_per_trial: `gpus_per_trial` must be at most 1 or whole, but got gpus_per_trial=1.5"),
    ("data: {name: mnist}", "data: {name: mnist}\nsampler: tpe", "3: sampler: unknown key; it is a key of a stage of `kind: model`"),
    ("data: {name: mnist}", "data: {name: mnist}\ngrace_kimg: 1", "3: grace_kimg: unknown key; it is a key of `scheduler`"),
    ("data: {name: mnist}", "data: {name: mnist}\nbugdet: {}", "3: bugdet: unknown key; did you mean `budget`?"),
    ("data: {name: mnist}", "data: {name: mnist", "3: must be YAML, but: expected ',' or '}', but got ':'"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("old", "new", "message"), REPLACED, ids=[row[2][:60] for row in REPLACED]
)
def test_a_wrong_study_is_refused_in_one_exact_message(
    folder: Path, old: str, new: str, message: str
) -> None:
    assert STUDY.count(old) >= 1
    assert refusal(folder, STUDY.replace(old, new, 1)) == f"s.yaml:{message}"


def test_an_empty_space_is_refused(folder: Path) -> None:
    head, rest = STUDY.split("space:\n")
    text = head + "space: {}\n" + rest[rest.index("stages:") :]
    assert refusal(folder, text) == (
        "s.yaml:5: space: at least one parameter must be searched, but got none"
    )


def test_a_field_without_default_must_be_fixed_or_searched(folder: Path) -> None:
    text = STUDY.replace("  d_dropout: {type: float, low: 0.0, high: 0.6}\n", "")
    assert refusal(folder, text) == (
        "s.yaml:3: model: `d_dropout` has no default: fix it in `model` or search it in `space`"
    )


def test_an_integer_condition_is_checked_where_no_branch_names_the_value(folder: Path) -> None:
    text = STUDY.replace(
        "d_dropout: {type: float, low: 0.0, high: 0.6}",
        "d_dropout: {type: float, low: 0.0, high: 0.6, when: {d_steps: [1, 3]}}\n"
        "  d_steps: {type: int, low: 1, high: 3}",
    )
    assert refusal(folder, text) == (
        "s.yaml:7: space.d_dropout: a branch must apply where d_steps=2, for it has no default"
    )


def test_conditions_may_not_lead_back(folder: Path) -> None:
    text = STUDY.replace("[sgd, adam]}", "[sgd, adam], when: {noise: uniform}}").replace(
        "stages:\n  - kind: manual",
        "  noise: {type: categorical, choices: [uniform], when: {optimizer: sgd}}\nstages:\n  - kind: manual",
    )
    message = refusal(folder, text)
    assert "`when` must not lead back to itself, but got" in message
    assert "noise -> optimizer" in message


def test_an_inactive_parameter_must_be_left_out(folder: Path) -> None:
    text = STUDY.replace(
        "stages:\n  - kind: manual",
        "  adam_beta1: {type: float, low: 0.0, high: 0.9, when: {optimizer: adam}}\n"
        "stages:\n  - kind: manual",
    ).replace("optimizer: sgd}\n  -", "optimizer: sgd, adam_beta1: 0.5}\n  -")
    assert refusal(folder, text, None, "stages.1.levels.adam_beta1=1") == (
        "s.yaml:16: stages.0.points.0.adam_beta1: must be left out where optimizer='sgd'"
    )


def test_points_must_differ(folder: Path) -> None:
    text = STUDY.replace(
        "optimizer: sgd}\n  -",
        "optimizer: sgd}\n"
        "      - {learning_rate: 1.0e-1, d_dropout: 0.5, momentum: 0.5, optimizer: sgd}\n  -",
    )
    assert refusal(folder, text) == (
        "s.yaml:16: stages.0.points.1: points must differ, but this one repeats stages.0.points.0"
    )


def test_a_grid_does_not_count_the_cells_that_were_tried_by_hand(folder: Path) -> None:
    text = STUDY.replace("momentum: 3}", "momentum: [0.0, 0.5, 0.9]}")
    text = text.replace("trials: 10", "trials: 24")  # 3 * 2 * (3 with sgd + 1 with adam)
    load_spec(write(folder, text))
    on_grid = text.replace("d_dropout: 2,", "d_dropout: [0.0, 0.5],")
    load_spec(write(folder, on_grid.replace("trials: 24", "trials: 23")))
    assert refusal(folder, on_grid) == (
        "s.yaml:16: stages.1.trials: `trials <= 23` must hold, for the grid has 24 cells, "
        "of which earlier stages use 1, but got trials=24"
    )


def test_a_grid_with_too_few_cells_is_refused_whatever_the_budget_cuts(folder: Path) -> None:
    text = STUDY.replace("trials: 10", "trials: 25")
    cut = text.replace("trials: 31", "trials: 5")
    assert "`trials <= 24` must hold" in refusal(folder, text)
    assert refusal(folder, cut) == refusal(folder, text)


def test_two_grids_share_their_cells(folder: Path) -> None:
    text = STUDY.replace(
        "  - {kind: model, trials: 20}",
        "  - {kind: random_grid, levels: {learning_rate: 3, d_dropout: 2, momentum: 3}, trials: 20}",
    )
    assert "`trials <= 14` must hold, for the grid has 24 cells, of which" in refusal(folder, text)


def test_all_errors_are_listed_up_to_five(folder: Path) -> None:
    text = STUDY.replace("budget: {", "budget: {a: 1, b: 2, c: 3, d: 4, e: 5, f: 6, ")
    lines = refusal(folder, text).splitlines()
    assert len(lines) == 6
    assert all(line.startswith("s.yaml:19: budget.") for line in lines[:5])
    assert lines[5] == "... and 1 more"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("budget.trials", "must look like `budget.trials=12`"),
        ("budget.trails=3", "budget.trails: unknown key; did you mean `trials`?"),
        ("bugdet.trials=3", "bugdet: unknown key; did you mean `budget`?"),
        ("space.lerning_rate.low=1", "there is no `lerning_rate` in `space`; did you mean `learning_rate`?"),
        ("space.d_drop=null", "there is no `d_drop` in `space`; did you mean `d_dropout`?"),
        ("stages.5.trials=1", "`0 <= position < 3` must hold in stages, but got 5"),
        ("study.name=x", "study is 'digits', which has no `name`"),
        ("space.learning_rate.low=1e-4", "space.learning_rate.low: YAML reads 1e-4 as text, not a number; write 1.0e-4"),
        ("space.learning_rate.low=2", "space.learning_rate.low: `low <= high` must hold, but got low=2.0, high=1.0"),
        ("budget.trials={", "must be YAML, but: expected the node content, but found '<stream end>'"),
    ],
)  # fmt: skip
def test_a_wrong_override_is_refused(folder: Path, override: str, message: str) -> None:
    assert refusal(folder, STUDY, None, override) == f"--set {override}: {message}"


def test_overrides_come_after_the_overlay_and_in_order(folder: Path) -> None:
    overrides = ["budget.trials=5", "model.noise_dim=7", "budget.trials=4", "budget.time=null"]
    spec = load_spec(write(folder), "quick", [*overrides, "confirm.top=2"])
    assert (spec.budget.trials, spec.model["noise_dim"], spec.budget.time) == (4, 7, None)
    assert spec.confirm.top == 2
    assert spec.budget.kimg_per_trial == 300


def test_an_overlay_merges_mappings_and_replaces_lists(folder: Path) -> None:
    spec = load_spec(write(folder), "quick")
    assert spec.size == "quick"
    assert spec.model == {"noise_dim": 32, "g_joint_units": 100}
    assert (spec.budget.kimg_per_trial, spec.budget.measure_kimg) == (300.0, 50.0)
    assert [stage.kind for stage in spec.stages] == ["model"]
    assert load_spec("s.yaml").size is None


def test_an_overlay_is_blamed_at_its_own_line(folder: Path) -> None:
    text = STUDY.replace("kimg_per_trial: 300,", "kimg_per_trial: -1,")
    assert refusal(folder, text, "quick") == (
        "s.yaml:22: budget.kimg_per_trial: "
        "`kimg_per_trial > 0` must hold, but got kimg_per_trial=-1"
    )


def test_an_unknown_size_names_the_near_one(folder: Path) -> None:
    assert refusal(folder, STUDY, "quik") == (
        "s.yaml:20: sizes: there is no size 'quik'; did you mean `quick`?"
    )
    assert refusal(folder, DESIGN_EXAMPLE, "quick") == (
        "s.yaml: there is no size 'quick'; this study has no sizes"
    )


def test_files_that_are_no_study(folder: Path) -> None:
    with pytest.raises(SpecError, match=r"^none\.yaml: the file must exist, but there is none$"):
        load_spec("none.yaml")
    with pytest.raises(SpecError, match=r"^\.: the file cannot be read: Is a directory$"):
        load_spec(".")
    Path("latin").write_bytes(b"study: \xe9")
    with pytest.raises(SpecError, match=r"^latin: the file must be UTF-8 text, but it is not$"):
        load_spec("latin")
    assert refusal(folder, "") == "s.yaml: a study must be a mapping of keys, but got None"
    assert refusal(folder, "- a") == "s.yaml: a study must be a mapping of keys, but got ['a']"
    assert refusal(folder, "study: &a [*a]") == "s.yaml:1: study.0: a value may not contain itself"
    assert refusal(folder, "study: !!python/name:os.system x").startswith(
        "s.yaml:1: the tag !!python/name:os.system is not read"
    )
    assert refusal(folder, "a: \x07").startswith("s.yaml: must be YAML, but: unacceptable char")


def test_anchors_may_be_merged(folder: Path) -> None:
    text = STUDY.replace(
        "{type: float, low: 0.0, high: 0.6}", "&rate {type: float, low: 0, high: 0.6}"
    )
    text = text.replace("stages:\n", "  g_dropout: {<<: *rate, high: 1.5}\nstages:\n", 1)
    message = refusal(folder, text, None, "stages.1.levels.g_dropout=1")
    assert "s.yaml:12: space.g_dropout.high: `0 <= g_dropout < 1` must hold" in message


def test_what_is_saved_makes_the_same_study_again(folder: Path) -> None:
    spec = load_spec(write(folder), "quick", ["seed=3"])
    saved = json.loads(json.dumps(spec.model_dump(mode="json"), sort_keys=True))
    again = StudySpec.from_mapping(saved)
    assert again == spec
    assert again.digest == spec.digest
    assert StudySpec.from_mapping(mapping(), "quick", ["seed=3"]) == spec


def test_the_digest_tells_studies_apart() -> None:
    digests = {
        StudySpec.from_mapping(mapping(), size, overrides).digest
        for size in (None, "quick")
        for overrides in ([], ["seed=1"], ["space.d_dropout.high=0.5"])
    }
    assert len(digests) == 6


def test_python_mappings_are_blamed_by_key_alone_and_left_untouched() -> None:
    wrong = mapping() | {"budget": {"kimg_per_trial": 1}}
    with pytest.raises(SpecError) as caught:
        StudySpec.from_mapping(wrong)
    assert str(caught.value).splitlines() == [
        "budget.measure_kimg: this key is required, but it is missing",
        "budget.trials: this key is required, but it is missing",
    ]
    before = mapping()
    StudySpec.from_mapping(before, "quick", ["budget.trials=2"])
    assert before == mapping()


def test_the_budget_caps_the_stages_in_order() -> None:
    spec = StudySpec.from_mapping(mapping(), overrides=["budget.trials=6"])
    assert [planned.trials for planned in spec.stage_plan] == [1, 5, 0]
    assert [planned.index for planned in spec.stage_plan] == [0, 1, 2]


def test_a_configuration_joins_fixed_and_searched_fields() -> None:
    spec = StudySpec.from_mapping(mapping())
    config = spec.gan_config({"learning_rate": 0.2, "d_dropout": 0.1, "momentum": 0.3})
    assert config == MLPConfig(noise_dim=64, learning_rate=0.2, d_dropout=0.1, momentum=0.3)


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("15m", 900), ("12h", 43200), ("1h30m", 5400), ("2d1s", 172801), ("0.5s", 0.5)]
)  # fmt: skip
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "0s", "15", "m", "5x", "-1h", "30m1h", "1 h", "1e9s"])
def test_no_durations(text: str) -> None:
    with pytest.raises(ValueError, match="must be a duration such as 15m, 12h or 1h30m"):
        parse_duration(text)


TREES = st.recursive(
    st.integers(0, 3) | st.lists(st.integers(0, 3), max_size=2),
    lambda leaves: st.dictionaries(st.sampled_from("abc"), leaves, max_size=3),
    max_leaves=8,
)
MAPPINGS = st.dictionaries(st.sampled_from("abc"), TREES, max_size=3)


def overlaid(base: dict[str, Any], overlay: dict[str, Any]) -> dict[str, Any]:
    return Source.of_mapping(base | {"sizes": {"x": overlay}}).sized("x").data


@given(MAPPINGS)
def test_laying_a_mapping_over_itself_or_nothing_changes_nothing(tree: dict[str, Any]) -> None:
    assert overlaid(tree, tree) == tree
    assert overlaid(tree, {}) == tree
    assert overlaid({}, tree) == tree


@given(MAPPINGS, MAPPINGS)
def test_an_overlay_wins_where_it_speaks_and_nowhere_else(
    base: dict[str, Any], overlay: dict[str, Any]
) -> None:
    merged = overlaid(base, overlay)
    assert merged.keys() == base.keys() | overlay.keys()
    for key in merged:
        below, above = base.get(key), overlay.get(key)
        if key not in overlay:
            assert merged[key] == base[key]
        elif isinstance(below, dict) and isinstance(above, dict):
            assert merged[key] == overlaid(below, above)
        else:
            assert merged[key] == overlay[key]
    assert overlaid(merged, overlay) == merged


@given(MAPPINGS, st.sampled_from("abc"))
def test_null_removes_a_key(base: dict[str, Any], key: str) -> None:
    assert overlaid(base, {key: None}) == {k: v for k, v in base.items() if k != key}


def test_the_annotated_example_is_a_study(folder: Path) -> None:
    readme = (Path(__file__).parent.parent / "spaces" / "README.md").read_text()
    example = readme.split("```yaml\n")[1].split("```")[0]
    for size, trials in ((None, [1, 20, 8, 21]), ("quick", [4, 4])):
        spec = load_spec(write(folder, example), size)
        assert [planned.trials for planned in spec.stage_plan] == trials


@pytest.mark.parametrize("path", SPACES, ids=lambda path: path.name)
def test_every_space_loads_in_every_size_and_its_corners_build(path: Path) -> None:
    sizes = yaml.safe_load(path.read_text()).get("sizes", {})
    assert "quick" in sizes
    for size in (None, *sizes):
        spec = load_spec(path, size)
        assert StudySpec.from_mapping(spec.model_dump(mode="json")) == spec
        for point in corner_points(spec.space):
            assert isinstance(spec.gan_config(point), GANConfig)
