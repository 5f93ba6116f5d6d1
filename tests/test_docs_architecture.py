"""The documents: every module is named where the architecture lists them."""

import re
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ROWS = re.compile(r"`([\w/]+\.py)`")


def listed(package: str) -> Counter[str]:
    """How often the first column of a package's module table names each file."""
    text = (ROOT / "docs/architecture.md").read_text()
    table = text.split(f"\n`{package}`: ")[1].split("\n\n")[1]
    rows = [row.split("|")[1] for row in table.splitlines()[2:]]
    names: list[str] = []
    for row in rows:
        folder = ""
        for name in ROWS.findall(row):
            folder = name.rpartition("/")[0] or folder  # `data/archive.py`, `idx.py`
            names.append(f"{folder}/{name.rpartition('/')[2]}".lstrip("/"))
    return Counter(names)


@pytest.mark.parametrize("package", ["cgan_core", "search"])
def test_the_table_of_modules_names_each_once(package: str) -> None:
    found = {
        file.relative_to(ROOT / package).as_posix()
        for file in (ROOT / package).rglob("*.py")
        if file.name != "__init__.py"
    }
    names = listed(package)
    assert sorted(found - names.keys()) == [], "no row names these"
    assert sorted(names.keys() - found) == [], "these are no more"
    assert [name for name, count in names.items() if count > 1] == []
