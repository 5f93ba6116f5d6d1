"""YAML that remembers where each value was written, with overlays and `--set` on top."""

import copy
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path as FilePath
from typing import Any, Self

import yaml

from search.spec_errors import Path, SpecError, dotted, show, suggestion
from search.yaml_limits import MAX_BYTES, check_limits

_Origin = Callable[[int], str]
_NUMBER_TAGS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")
_TEXT_TAG = "tag:yaml.org,2002:str"
_MERGE_TAG = "tag:yaml.org,2002:merge"
_EXPONENT = re.compile(r"([-+]?)(\d+)(?:\.(\d*))?[eE]([-+]?)(\d+)")


@dataclass(frozen=True)
class Source:
    """A study as written, before any check of its meaning.

    Attributes:
        data: The plain mapping.
        origins: Where each value was written, such as `spaces/mnist.yaml:12`.
    """

    data: dict[str, Any]
    origins: dict[Path, str]

    @classmethod
    def read(cls, path: FilePath) -> Self:
        """Reads a YAML file.

        Raises:
            SpecError: It cannot be read, is not YAML, repeats a key or is not a mapping.
        """
        try:
            with path.open("rb") as file:
                text = file.read(MAX_BYTES + 1).decode()  # no more, be it without end
        except FileNotFoundError:
            raise SpecError(f"{path}: the file must exist, but there is none") from None
        except UnicodeDecodeError:
            raise SpecError(f"{path}: the file must be UTF-8 text, but it is not") from None
        except OSError as error:
            raise SpecError(f"{path}: the file cannot be read: {error.strerror}") from None
        origins: dict[Path, str] = {}
        data = _parse(text, str(path), lambda line: f"{path}:{line}", (), origins)
        if not isinstance(data, dict):
            raise SpecError(f"{path}: a study must be a mapping of keys, but got {show(data)}")
        return cls(data, {**origins, (): str(path)})

    @classmethod
    def of_mapping(cls, mapping: Mapping[str, Any]) -> Self:
        """Takes a mapping made in Python; messages about it name keys only."""
        return cls(copy.deepcopy(dict(mapping)), {(): ""})

    def where(self, path: Path) -> str:
        """Where the value at a path, or else the nearest mapping around it, was written."""
        while path not in self.origins:
            path = path[:-1]
        return self.origins[path]

    def sized(self, size: str | None) -> Self:
        """Lays the overlay of a size over the rest, and drops all overlays.

        An overlay follows JSON Merge Patch (RFC 7396): mappings merge deeply, everything else
        is replaced, null removes a key.

        Raises:
            SpecError: There is no such size.
        """
        data, origins = copy.deepcopy(self.data), dict(self.origins)
        sizes = data.pop("sizes", {})
        if not isinstance(sizes, dict):
            raise self._error(("sizes",), f"must be a mapping, but got {show(sizes)}")
        for name, overlay in sizes.items():
            if not isinstance(overlay, dict):
                message = f"must be a mapping, but got {show(overlay)}"
                raise self._error(("sizes", name), message)
        if size is None:
            return type(self)(data, origins)
        if size not in sizes:
            known = suggestion(size, sizes) if sizes else "; this study has no sizes"
            raise self._error(("sizes",) if sizes else (), f"there is no size {size!r}{known}")
        prefix = ("sizes", size)
        written = {p[2:]: o for p, o in origins.items() if p[:2] == prefix and p != prefix}
        _merge(data, sizes[size], (), origins, written)
        return type(self)(data, origins)

    def overridden(self, assignment: str, origin: str | None = None) -> Self:
        """Applies one `--set a.b=value`; the value is read as YAML and null removes the key.

        Args:
            assignment: What is set.
            origin: What messages name as its place; by default the `--set`.

        Raises:
            SpecError: It is not `key=value`, or no such place exists.
        """
        origin = origin or f"--set {assignment}"
        key, equals, text = assignment.partition("=")
        if not equals or not key.strip(". "):
            raise SpecError(f"{origin}: must look like `budget.trials=12`")
        data, origins = copy.deepcopy(self.data), dict(self.origins)
        parts = key.strip().split(".")
        if len(parts) > 1 and parts[0] not in data:
            data[parts[0]], origins[(parts[0],)] = {}, origin  # a section left to its defaults
        parent, path = _descend(data, parts, origin)
        step = _step(parent, parts[-1], path, origin)
        written: dict[Path, str] = {(*path, step): origin}
        value = _parse(text, origin, lambda line: origin, (*path, step), written)
        if isinstance(parent, list):
            parent[int(step)] = value
        elif value is None:
            if step not in parent:
                raise SpecError(f"{origin}: {_absent(step, path, parent)}")
            del parent[step]
        else:
            parent[step] = value
        _rewrite(origins, (*path, step), written)
        return type(self)(data, origins)

    def _error(self, path: Path, message: str) -> SpecError:
        return SpecError(": ".join(p for p in (self.where(path), dotted(path), message) if p))


def _merge(
    base: dict[str, Any],
    overlay: dict[str, Any],
    path: Path,
    origins: dict[Path, str],
    written: dict[Path, str],
) -> None:
    for key, value in overlay.items():
        here = (*path, key)
        if value is None:
            base.pop(key, None)
        elif isinstance(value, dict) and isinstance(base.get(key), dict):
            _merge(base[key], value, here, origins, written)
        else:
            base[key] = _without_nulls(value)
            _rewrite(origins, here, written)


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    return value


def _rewrite(origins: dict[Path, str], path: Path, written: dict[Path, str]) -> None:
    """Forgets where a replaced value was written and records where the new one is."""
    for old in [known for known in origins if known[: len(path)] == path]:
        del origins[old]
    origins.update({p: origin for p, origin in written.items() if p[: len(path)] == path})


def _descend(data: Any, parts: list[str], origin: str) -> tuple[Any, Path]:
    path: Path = ()
    for part in parts[:-1]:
        step = _step(data, part, path, origin)
        if isinstance(data, dict) and step not in data:
            raise SpecError(f"{origin}: {_absent(part, path, data)}")
        data, path = data[step], (*path, step)
    return data, path


def _absent(part: str | int, path: Path, data: Mapping[str, Any]) -> str:
    place = f"in `{dotted(path)}`" if path else "in this study"
    return f"there is no `{part}` {place}{suggestion(str(part), data)}"


def _step(data: Any, part: str, path: Path, origin: str) -> str | int:
    if isinstance(data, dict):
        return part
    if not isinstance(data, list):
        raise SpecError(f"{origin}: {dotted(path)} is {show(data)}, which has no `{part}`")
    if not part.isdecimal() or int(part) >= len(data):
        message = f"`0 <= position < {len(data)}` must hold in {dotted(path)}, but got {part}"
        raise SpecError(f"{origin}: {message}")
    return int(part)


def _parse(text: str, label: str, origin: _Origin, path: Path, origins: dict[Path, str]) -> Any:
    try:
        check_limits(text, origin)
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        _walk(node, path, origin, origins, ())
        return loader.construct_document(node)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = origin(mark.line + 1) if mark else label
        raise SpecError(f"{place}: must be YAML, but: {error.problem}") from None
    except SpecError:
        raise
    except (yaml.YAMLError, ValueError) as error:
        raise SpecError(f"{label}: must be YAML, but: {str(error).splitlines()[0]}") from None


def _walk(
    node: yaml.Node,
    path: Path,
    origin: _Origin,
    origins: dict[Path, str],
    above: tuple[yaml.Node, ...],
) -> None:
    """Records the line of every value, and refuses what YAML reads in a surprising way."""
    place = origin(node.start_mark.line + 1)
    if any(node is other for other in above):
        raise SpecError(f"{place}: {dotted(path)}: a value may not contain itself")
    above = (*above, node)
    origins.setdefault(path, place)
    if isinstance(node, yaml.ScalarNode):
        _refuse_surprise(node, f"{place}: {dotted(path)}" if path else place)
    elif isinstance(node, yaml.SequenceNode):
        for position, item in enumerate(node.value):
            _walk(item, (*path, position), origin, origins, above)
    elif isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            place = origin(key.start_mark.line + 1)
            if key.tag == _MERGE_TAG:
                continue  # values merged from an anchor keep the line of the mapping itself
            if key.tag != _TEXT_TAG:
                message = f"a key must be text, but got {show(key.value)}"
                raise SpecError(": ".join(p for p in (place, dotted(path), message) if p))
            if key.value in seen:
                message = f"`{key.value}` must be given once, but it is here again"
                raise SpecError(": ".join(p for p in (place, dotted(path), message) if p))
            seen.add(key.value)
            origins[(*path, key.value)] = place
            _walk(value, (*path, key.value), origin, origins, above)


def _refuse_surprise(node: yaml.ScalarNode, place: str) -> None:
    if node.style is not None:
        return
    if node.tag in _NUMBER_TAGS and ":" in node.value:
        raise SpecError(f"{place}: YAML reads {node.value} as a number in base 60; quote it")
    number = _EXPONENT.fullmatch(node.value) if node.tag == _TEXT_TAG else None
    if number:
        sign, whole, fraction, exponent_sign, exponent = number.groups()
        better = f"{sign}{whole}.{fraction or 0}e{exponent_sign or '+'}{exponent}"
        raise SpecError(f"{place}: YAML reads {node.value} as text, not a number; write {better}")
