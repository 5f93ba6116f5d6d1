"""What a user reads when a study cannot be run: where it was written, the key, the constraint."""

import difflib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from pydantic import ValidationError
from pydantic_core import ErrorDetails

Path = tuple[str | int, ...]

_MOST_SHOWN = 5
_KINDS = {
    "float_type": "a number",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "bool_type": "true or false",
    "string_type": "text",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
    "tuple_type": "a list",
}
_SIGNS = {
    "greater_than_equal": ("ge", ">="),
    "greater_than": ("gt", ">"),
    "less_than": ("lt", "<"),
}
_TAGS = {
    "'type'": "float, int or categorical",
    "'kind'": "manual, random_grid, full_grid or model",
}


class SpecError(ValueError):
    """A study that cannot be run; the message names file, line, key and constraint."""


class Problem(NamedTuple):
    """One thing wrong with a study.

    Attributes:
        path: Keys and list positions from the root of the study to the value at fault.
        message: The constraint, then the value.
    """

    path: Path
    message: str


class ProblemsError(ValueError):
    """Everything that one check found, each with its own place below the checked object."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(f"{dotted(path)}: {text}" for path, text in self.problems))


def raise_any(problems: Sequence[Problem]) -> None:
    """Does nothing when there is nothing to report.

    Raises:
        ProblemsError: At least one problem is given.
    """
    if problems:
        raise ProblemsError(problems)


def dotted(path: Path) -> str:
    """Writes a path as `--set` takes it: `stages.1.trials`."""
    return ".".join(map(str, path))


def suggestion(name: str, known: Iterable[str]) -> str:
    """Names the nearest of the known keys, or all of them when they are few."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=3)
    if near:
        return "; did you mean " + " or ".join(f"`{key}`" for key in near) + "?"
    return f"; known: {', '.join(names)}" if 0 < len(names) <= 12 else ""


def show(value: object) -> str:
    """Writes a value for a message, cut where it is long."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def spec_error(problems: Sequence[Problem], where: Callable[[Path], str]) -> SpecError:
    """Creates the one message for all problems, a line each."""
    lines = list(
        dict.fromkeys(
            ": ".join(part for part in (where(path), dotted(path), text) if part)
            for path, text in problems
        )
    )
    hidden = len(lines) - _MOST_SHOWN
    more = [f"... and {hidden} more"] if hidden > 0 else []
    return SpecError("\n".join(lines[:_MOST_SHOWN] + more))


def problems_of(
    error: ValidationError,
    data: Mapping[str, Any],
    known_keys: Callable[[Path], Iterable[str]],
    home_of: Callable[[str], str | None],
) -> list[Problem]:
    """Translates pydantic's errors into ours, with paths as the user wrote them.

    Args:
        error: What pydantic raised.
        data: The mapping it was given.
        known_keys: Names the keys allowed at a place, by pydantic's own location.
        home_of: Says where in a study a key belongs, if anywhere.
    """
    problems = []
    for details in error.errors(include_url=False):
        location = details["loc"]
        cause = details.get("ctx", {}).get("error")
        if isinstance(cause, ProblemsError):
            base = _resolved(data, location)
            for path, text in cause.problems:
                problems.append(Problem(_without_false_indices(data, base + path), text))
            continue
        keep_last = details["type"] == "missing"
        path = _resolved(data, location[:-1] if keep_last else location)
        hint = ""
        if details["type"] == "extra_forbidden":
            key = str(location[-1])
            hint = suggestion(key, known_keys(location[:-1]))
            if home := home_of(key):
                hint = f"; it is a key of {home}"
        elif keep_last:
            path += location[-1:]
        elif details["type"] == "union_tag_invalid":
            path += (_bare(details["ctx"]["discriminator"]),)
        problems.append(Problem(path, _message(details, path) + hint))
    return problems


def _resolved(data: Any, location: Path) -> Path:
    """Drops from pydantic's location the union tags and list positions nobody wrote."""
    path: list[str | int] = []
    for step in location:
        if _has(data, step):
            path.append(step)
            data = data[step]
    return tuple(path)


def _without_false_indices(data: Any, path: Path) -> Path:
    """Drops the position of a lone domain that was not written as a list."""
    kept: list[str | int] = []
    for step in path:
        found = _has(data, step)
        if found or isinstance(step, str):
            kept.append(step)
            data = data[step] if found else None
    return tuple(kept)


def _bare(discriminator: str) -> str:
    return discriminator.strip("'")  # pydantic quotes it


def _has(data: Any, step: str | int) -> bool:
    if isinstance(step, int):
        return isinstance(data, Sequence) and not isinstance(data, str) and step < len(data)
    return isinstance(data, Mapping) and step in data


def _message(details: ErrorDetails, path: Path) -> str:
    kind, context, value = details["type"], details.get("ctx", {}), details["input"]
    key = path[-1] if path else "the study"
    got = f"but got {show(value)}"
    if kind in _KINDS:
        return f"must be {_KINDS[kind]}, {got}"
    if kind in _SIGNS:
        name, sign = _SIGNS[kind]
        return f"`{key} {sign} {context[name]:g}` must hold, but got {key}={show(value)}"
    match kind:
        case "missing":
            return "this key is required, but it is missing"
        case "extra_forbidden":
            return "unknown key"
        case "literal_error":
            return f"must be {context['expected']}, {got}"
        case "union_tag_not_found":
            name = context["discriminator"]
            return f"`{_bare(name)}` is required: {_TAGS[name]}"
        case "union_tag_invalid":
            return f"must be {_TAGS[context['discriminator']]}, but got {context['tag']!r}"
        case "finite_number":
            return f"must be finite, {got}"
        case "string_pattern_mismatch":
            return f"must be made of letters, digits, `-`, `_` and `.`, {got}"
        case "string_too_short" | "too_short":
            return "must not be empty"
        case "value_error":
            return str(context["error"])
    return f"{details['msg']}, {got}"
