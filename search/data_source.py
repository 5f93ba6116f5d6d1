"""Where a study's data come from: the same on every machine, and again on resume."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cgan_core.data import DataSplits, load_data
from cgan_core.data.digits import load_digits
from cgan_core.data.load import conditioned
from cgan_core.data_choices import ConditionChoice, MaskBox, MaskName
from search.data_section import DataSection, Rectangle


@dataclass(frozen=True)
class DataSource:
    """What is asked for, and, once that is settled, whether the bundled digits stand in.

    Hashable, so that a worker loads each source once.

    Args:
        name: a data set that the platform knows.
        path: a user's own file or folder, in place of a name.
        conditions: a table of a folder's pictures.
        size: of pictures.
        max_broken_share: of a folder's pictures.
        condition: what there is to condition on.
        mask: what `masked_image` hides.
        require_full: refuse the bundled digits.
        seed: cuts and shuffles a user's own data.
        subset: None while open; True for the bundled digits, False for the whole data set.
    """

    name: str = "mnist"
    path: str | None = None
    conditions: str | None = None
    size: int | None = None
    max_broken_share: float = 0.01
    condition: ConditionChoice = "given"
    mask: MaskName | MaskBox | None = None
    require_full: bool = False
    seed: int = 0
    subset: bool | None = None

    @classmethod
    def of(
        cls, section: DataSection, seed: int, recorded: Mapping[str, Any] | None = None
    ) -> "DataSource":
        """Returns what a study asks for.

        Args:
            section: of the study.
            seed: of the study.
            recorded: `dataset` of its `study.json`, once it has begun: where it found the data.
        """
        found = recorded or {}
        return cls(
            name=section.name or "mnist",
            path=found.get("path") or section.path,
            conditions=found.get("conditions") or section.conditions,
            size=section.size,
            max_broken_share=section.max_broken_share,
            condition=section.condition,
            mask=section.mask.box if isinstance(section.mask, Rectangle) else section.mask,
            require_full=section.require_full,
            seed=seed,
            subset=found.get("subset"),
        )

    def load(self) -> DataSplits:
        """Loads the data.

        A study that began on the bundled digits keeps to them, though the whole set may be had
        by now; one that began on the whole set refuses the digits.

        Raises:
            DataError: if they cannot be had.
        """
        if self.subset:
            digits = load_digits("this study began on them")
            return conditioned(digits, self.condition, self.mask)
        return load_data(
            self.name,
            path=self.path,
            conditions=self.conditions,
            size=self.size,
            max_broken_share=self.max_broken_share,
            condition=self.condition,
            mask=self.mask,
            require_full=self.path is None and (self.require_full or self.subset is False),
            seed=self.seed,
        )

    def settled(self, splits: DataSplits) -> "DataSource":
        """Returns the source that gives these splits again, wherever a worker was started."""
        path, conditions = _resolved(self.path), _resolved(self.conditions)
        return replace(self, path=path, conditions=conditions, subset=splits.subset)


def _resolved(path: str | None) -> str | None:
    return None if path is None else str(Path(path).expanduser().resolve())
