"""What a YAML text may be before it is taken in: bounded, and without tags that make objects."""

from collections.abc import Callable
from typing import Any

import yaml

from search.spec_errors import SpecError

MAX_BYTES = 2**20
MAX_DEPTH = 50
MAX_VALUES = 30_000  # keys and values, with each alias written out
_CORE = "tag:yaml.org,2002:"
_PLAIN_TAGS = {_CORE + name for name in ("str", "int", "float", "bool", "null", "seq", "map")}
# By events, which neither recurse nor write out aliases; libyaml's parser is twenty times faster.
_PARSER: Any = getattr(yaml, "CParser", yaml.SafeLoader)


def check_limits(text: str, origin: Callable[[int], str]) -> None:
    """Refuses a text that would take long, or much memory, to read.

    Args:
        text: One YAML document.
        origin: Names the place of a line, counted from 1.

    Raises:
        SpecError: It is too long, too deep, holds too many values once its aliases are written
            out, or has tags that are not plain YAML's.
        yaml.YAMLError: It is no YAML.
    """
    if len(text.encode(errors="replace")) > MAX_BYTES:
        raise SpecError(f"{origin(1)}: a study must have at most {MAX_BYTES} bytes")
    sizes: dict[str | None, int] = {}  # of what each anchor names, aliases written out
    open_: list[tuple[str | None, int]] = []  # anchor of each open collection, values before it
    values = 0
    for event in yaml.parse(text, Loader=_PARSER):
        place = origin(event.start_mark.line + 1) if event.start_mark else origin(1)
        if isinstance(event, yaml.CollectionEndEvent):
            anchor, before = open_.pop()
            if anchor is not None:
                sizes[anchor] = values - before
        elif isinstance(event, yaml.NodeEvent):
            values += sizes.get(event.anchor, 1) if isinstance(event, yaml.AliasEvent) else 1
            _check_tag(getattr(event, "tag", None), place)
        if isinstance(event, yaml.CollectionStartEvent):
            open_.append((event.anchor, values - 1))
        if len(open_) > MAX_DEPTH:
            raise SpecError(f"{place}: values must be nested at most {MAX_DEPTH} deep")
        if values > MAX_VALUES:
            raise SpecError(
                f"{place}: a study must have at most {MAX_VALUES} values, with each alias "
                "(`*name`) written out"
            )


def _check_tag(tag: str | None, place: str) -> None:
    if tag not in (None, "!", *_PLAIN_TAGS):
        shown = str(tag).replace(_CORE, "!!")
        raise SpecError(
            f"{place}: the tag {shown} is not read, for it would make an object; leave it out and "
            "write plain numbers, text, lists and mappings"
        )
