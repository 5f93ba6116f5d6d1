"""docs/hyperparameters.md: what each field of each family reaches, as it is found by changing it.

`PYTHONPATH=.:tests python tests/test_docs_hyperparameters.py` writes it anew.
"""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import pytest
import test_cgan_core_config as of_mlp
import test_cgan_core_families as of_others
from torch import Tensor

from cgan_core.families import FAMILIES, config_of
from cgan_core.member import Member

DOC = Path(__file__).parents[1] / "docs" / "hyperparameters.md"
CHANGES = {"mlp": of_mlp.CHANGES, **of_others.CHANGES}
# Adam corrects its bias so that its first update depends on neither, but for rounding.
CANCELLED = ("adam_beta1", "adam_beta2")
TURNS = 3  # the longest that a field may take to show: its momentum, or its second epoch
PLAYERS = {"generator": "G", "discriminator": "D"}
SCOPES = {
    "step": "may differ between stacked members, and change while a population trains",
    "start": "may differ between stacked members",
    "shape": "sets members apart",
}


def member(family: str, **changes: Any) -> Member:
    config = config_of({"family": family, **of_others.TINY[family], **changes})
    return Member(config, of_others.EXAMPLES["labels"], seed=7)


def states(family: str, **changes: Any) -> Iterator[dict[str, Tensor]]:
    """The networks' values before the first turn and after each."""
    trained = member(family, **changes)
    for _ in range(TURNS + 1):
        yield {
            f"{player}.{name}": value.detach().clone()
            for player in PLAYERS
            for name, value in getattr(trained, player).state_dict().items()
        } | {f"scored.{k}": v.clone() for k, v in trained.scored_generator.state_dict().items()}
        trained.advance(1)


def players_of(names: set[str]) -> str:
    owners = {name.partition(".")[0] for name in names}
    found = [letter for player, letter in PLAYERS.items() if player in owners]
    return " and ".join(found) or "the generator that is scored"


def effect(family: str, field: str) -> str:
    """What another value of a field changes first, found by training with and without it."""
    value, beside = CHANGES[family][field]
    pairs = zip(states(family, **beside), states(family, **beside, **{field: value}), strict=True)
    for turn, (before, after) in enumerate(pairs):
        shaped = {
            name
            for name in before.keys() | after.keys()
            if name not in before or name not in after or before[name].shape != after[name].shape
        }
        if shaped:
            return f"the layers of {players_of(shaped)}"
        moved = {name for name in before if not before[name].equal(after[name])}
        if turn == 1 and field in CANCELLED:
            continue
        if moved and turn == 0:
            return f"the first weights of {players_of(moved)}"
        if moved:
            which = "" if turn == 1 else f", from turn {turn} on"
            return f"the updates of {players_of(moved)}{which}"
    raise AssertionError(f"`{family}.{field}` changes nothing in {TURNS} turns")


def values_of(hint: Any, facts: Mapping[str, Any]) -> str:
    """Choices, or type, interval and unit."""
    inner = get_args(hint)[0] if type(None) in get_args(hint) else hint
    if get_origin(inner) is Literal:
        return ", ".join(map(str, get_args(inner)))
    if "low" not in facts:
        return str(inner.__name__)
    left, right = "(" if facts["low_open"] else "[", ")" if facts["high_open"] else "]"
    high = "inf)" if math.isinf(facts["high"]) else f"{facts['high']:g}{right}"
    return f"{inner.__name__} in {left}{facts['low']:g}, {high}; {facts['unit']}"


def rows(family: str) -> Iterator[str]:
    hints = get_type_hints(FAMILIES[family].config)
    for name, spec in FAMILIES[family].fields.items():
        if name == "family":
            continue
        facts = spec.metadata
        default = FAMILIES[family].defaults.get(name, "none: must be given")
        values = values_of(hints[name], facts)
        scope = facts.get("scope", "shape")
        yield f"| `{name}` | {values} | {default} | {effect(family, name)} | {scope} |"


def table(family: str) -> list[str]:
    return [
        f"## `{family}`",
        "",
        "| field | values | default | reaches first | scope |",
        "|---|---|---|---|---|",
        *rows(family),
        "",
    ]


def document() -> str:
    scopes = [f"`{scope}`: {words}" for scope, words in SCOPES.items()]
    lines = [
        "# Hyperparameters",
        "",
        "Every field of every family, and what another value changes first: found by training",
        "tiny nets with and without it: no field is dead. Written by",
        "`PYTHONPATH=.:tests python tests/test_docs_hyperparameters.py`; a test holds it to that.",
        "",
        *(f"- {scope}" for scope in scopes),
        "",
    ]
    return "\n".join([*lines, *(line for family in FAMILIES for line in table(family))])


@pytest.mark.parametrize("family", list(FAMILIES))
def test_the_table_says_what_each_field_reaches(family: str) -> None:
    told = DOC.read_text().partition(f"## `{family}`\n")[2].partition("\n## ")[0]
    assert told.split("\n") == table(family)[1:]


if __name__ == "__main__":
    DOC.write_text(document())
