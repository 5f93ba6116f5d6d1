"""Whether the trials of an earlier study may be told to the models of this one."""

from collections.abc import Iterator, Mapping
from typing import Any

from cgan_core.families import family_of
from search.spec_errors import SpecError, show
from search.study import StudySpec

_SAME = (
    *("objective.metric", "objective.direction", "objective.also"),
    *("budget.kimg_per_trial", "budget.measure_kimg", "replication.folds"),
)
_MOST_SHOWN = 5


def check_comparable(
    place: str, earlier: Mapping[str, Any], spec: StudySpec, digests: Mapping[str, str]
) -> None:
    """Refuses a study whose scores mean something else than those of this one.

    Args:
        place: The earlier study's folder, for the message.
        earlier: The content of its `study.json`.
        spec: This study.
        digests: `dataset_digest` and `protocol_digest` of this study.

    Raises:
        SpecError: They differ in data, protocol, objective, length of a trial or parameters.
    """
    problems = [
        f"{name} is {str(earlier.get(name))[:12]} there, {here[:12]} here"
        for name, here in digests.items()
        if earlier.get(name) != here
    ]
    then = earlier["spec"].get("seed")
    if problems and then != spec.seed:  # it draws the protocol's noise, and a file's splits
        problems.append(f"seed is {then} there, {spec.seed} here, and data or protocol follow it")
    problems += [*_other_terms(earlier["spec"], spec), *_other_parameters(earlier["spec"], spec)]
    if problems:
        listed = "\n  ".join(problems[:_MOST_SHOWN])
        raise SpecError(
            f"warm_start: the scores of {place} cannot be compared with those of this study; "
            f"leave it out, or search as it did:\n  {listed}"
        )


def _other_terms(earlier: Mapping[str, Any], spec: StudySpec) -> Iterator[str]:
    here = spec.model_dump(mode="json")
    for key in _SAME:
        section, name = key.split(".")
        now = here[section][name]
        then = earlier.get(section, {}).get(name, type(now)())  # an older one knows no `also`
        if then != now:
            yield f"{key} is {show(then)} there, {show(now)} here"


def _other_parameters(earlier: Mapping[str, Any], spec: StudySpec) -> Iterator[str]:
    for name in sorted(earlier["space"].keys() - spec.space.keys()):
        yield f"{name} is searched there only"
    for name in sorted(spec.space.keys() - earlier["space"].keys()):
        yield f"{name} is searched here only"
    both = earlier["space"].keys() & spec.space.keys()
    then, now = _fixed(earlier["model"]), _fixed(spec.model)
    for name in sorted((then.keys() | now.keys()) - both):
        if then.get(name) != now.get(name):
            yield f"model.{name} is {show(then.get(name))} there, {show(now.get(name))} here"


def _fixed(model: Mapping[str, Any]) -> dict[str, Any]:
    """Every field that is not searched: what the model says, else the default."""
    return family_of(model).defaults | dict(model)
