"""The whole of a study as one frozen object, from YAML or from Python."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path as FilePath
from typing import Annotated, Any, Self

from pydantic import BaseModel, BeforeValidator, Field, ValidationError, model_validator

from cgan_core.config import GANConfig
from cgan_core.families import config_of
from search.data_section import DataSection
from search.domains import (
    Branches,
    CategoricalDomain,
    FloatDomain,
    IntDomain,
    Scalar,
    StrictModel,
    Value,
    as_tuple,
    as_values,
)
from search.objective import Aim, ObjectiveSection
from search.population_checks import check_population
from search.section_checks import (
    check_paired,
    check_rungs,
    check_several,
    check_warm_start,
)
from search.sections import (
    BudgetSection,
    ConfirmSection,
    ReplicationSection,
    ResourcesSection,
    SchedulerSection,
    parse_duration,
)
from search.space_checks import check_space
from search.spec_errors import Path, Problem, SpecError, problems_of, raise_any, spec_error
from search.stage_plan import PlannedStage, check_stages, plan_stages, stage_trials
from search.stages import FullGridStage, ManualStage, ModelStage, RandomGridStage, Stage
from search.yaml_source import Source

__all__ = ["SpecError", "StudySpec", "load_spec", "parse_duration"]

_TAGGED: dict[str | int, type[BaseModel]] = {
    "float": FloatDomain,
    "int": IntDomain,
    "categorical": CategoricalDomain,
    "manual": ManualStage,
    "random_grid": RandomGridStage,
    "full_grid": FullGridStage,
    "model": ModelStage,
}


Folder = Annotated[str, Field(min_length=1)]


class StudySpec(StrictModel):
    """A study with every choice made, its overlay and overrides applied.

    `StudySpec.from_mapping(spec.model_dump(mode="json")) == spec`: what is saved is enough to
    run the study again.

    Attributes:
        study: Name, also of its folder.
        size: The overlay that was chosen, if any.
        seed: From which every other seed of the study follows.
        data: Which images are learnt.
        model: `GANConfig` fields that stay fixed.
        space: Searched `GANConfig` fields, each with its branches.
        stages: How configurations are chosen, in order.
        objective: What is optimised.
        replication: How often each configuration is trained.
        scheduler: When a trial is stopped early.
        budget: How much is spent.
        resources: What one trial holds while it runs.
        confirm: How the best are tried again.
        warm_start: Folders of earlier studies whose trials the models are told of.
    """

    study: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]
    size: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")] | None = None
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    data: DataSection
    model: dict[str, Value | None] = Field(default_factory=dict)
    space: dict[str, Branches]
    stages: Annotated[tuple[Stage, ...], BeforeValidator(as_tuple), Field(min_length=1)]
    objective: ObjectiveSection = ObjectiveSection()
    replication: ReplicationSection = ReplicationSection()
    scheduler: SchedulerSection
    budget: BudgetSection
    resources: ResourcesSection = ResourcesSection()
    confirm: ConfirmSection = ConfirmSection()
    warm_start: Annotated[tuple[Folder, ...], BeforeValidator(as_values)] = ()

    @model_validator(mode="after")
    def _check(self) -> Self:
        problems = check_rungs(self.scheduler, self.budget)
        problems += check_paired(self.scheduler, self.objective)
        problems += check_several(self.objective, self.scheduler, self.stages)
        problems += check_warm_start(self.warm_start, self.stages)
        unsound = check_space(self.space, self.model)
        if not unsound:  # points and cells mean something only in a sound space
            trials, seed = self.budget.trials, self.seed
            problems += check_stages(self.stages, trials, self.space, self.model, seed)
            problems += check_population(self)
        raise_any(unsound + problems)
        return self

    @staticmethod
    def from_mapping(
        mapping: Mapping[str, Any], size: str | None = None, overrides: Iterable[str] = ()
    ) -> "StudySpec":
        """Creates a study from a mapping with the keys of a space file.

        Args:
            mapping: A space file's content, or what `model_dump(mode="json")` gave.
            size: The overlay to apply.
            overrides: Assignments such as `budget.trials=12`, applied in order.

        Raises:
            SpecError: It cannot be run.
        """
        return _resolve(Source.of_mapping(mapping), size, overrides)

    @property
    def stage_plan(self) -> tuple[PlannedStage, ...]:
        """The stages with the trials that the budget leaves to each."""
        counts = stage_trials(self.stages, self.space, self.seed)
        return plan_stages(self.stages, counts, self.budget.trials)

    @property
    def digest(self) -> str:
        """SHA-256 of the canonical JSON, in hexadecimal."""
        canonical = json.dumps(
            self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"), allow_nan=False
        )
        return hashlib.sha256(canonical.encode()).hexdigest()

    def gan_config(self, params: Mapping[str, Scalar]) -> GANConfig:
        """Creates the configuration of one trial: the fixed fields and the trial's own.

        Raises:
            ConfigError: They do not fit together.
        """
        return config_of({**self.model, **params})


def load_spec(
    path: str | FilePath,
    size: str | None = None,
    overrides: Sequence[str] = (),
    flags: Iterable[tuple[str, str]] = (),
) -> StudySpec:
    """Loads a study from a space file.

    Args:
        path: The YAML file.
        size: The overlay of `sizes` to apply.
        overrides: Assignments such as `budget.trials=12`, applied in order after the overlay.
        flags: Assignments applied last, each behind the flag that messages name instead.

    Raises:
        SpecError: It cannot be run; the message names file, line and key.
    """
    source = Source.read(FilePath(path))
    if "size" in source.data:
        place = source.where(("size",))
        raise SpecError(f"{place}: size: must be chosen by `--size`; overlays go under `sizes`")
    return _resolve(source, size, overrides, flags)


def _resolve(
    source: Source,
    size: str | None,
    overrides: Iterable[str],
    flags: Iterable[tuple[str, str]] = (),
) -> StudySpec:
    source = source.sized(size)
    for assignment in overrides:
        source = source.overridden(assignment)
    for flag, assignment in flags:
        source = source.overridden(assignment, flag)
    data = source.data if size is None else {**source.data, "size": size}
    try:
        return StudySpec.model_validate(data)
    except ValidationError as error:
        problems: list[Problem] = problems_of(error, data, _known_keys, _home_of)
    raise spec_error(problems, source.where)


def _known_keys(location: Path) -> Iterable[str]:
    """Names the keys of the section at pydantic's location."""
    if not location:
        return [name for name in StudySpec.model_fields if name != "size"] + ["sizes"]
    section = Aim if "also" in location else _TAGGED.get(location[-1])
    if section is None:
        annotation = StudySpec.model_fields[str(location[0])].annotation
        section = annotation if isinstance(annotation, type) else StrictModel
    return section.model_fields


def _home_of(key: str) -> str | None:
    """Names the section, or else the kind of stage, whose key it is; None where there is none."""
    for name, field in StudySpec.model_fields.items():
        section = field.annotation
        if isinstance(section, type) and key in getattr(section, "model_fields", ()):
            return f"`{name}`"
    stages = (kind for kind, tagged in _TAGGED.items() if "kind" in tagged.model_fields)
    owners = (f"a stage of `kind: {kind}`" for kind in stages if key in _TAGGED[kind].model_fields)
    return next(owners, None)
