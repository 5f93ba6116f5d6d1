"""Where a study's data come from: the same on every machine, and again on resume."""

from dataclasses import dataclass, replace
from pathlib import Path

from cgan_core.data import DataSplits, load_data
from cgan_core.data.digits import load_digits


@dataclass(frozen=True)
class DataSource:
    """What is asked for, and, once that is settled, whether the bundled digits stand in.

    Hashable, so that a worker loads each source once.

    Args:
        name: a data set that the platform can fetch.
        path: a user's own file, in place of a name.
        require_full: refuse the bundled digits.
        seed: cuts and shuffles a user's own file.
        subset: None while open; True for the bundled digits, False for the whole data set.
    """

    name: str = "mnist"
    path: str | None = None
    require_full: bool = False
    seed: int = 0
    subset: bool | None = None

    def load(self) -> DataSplits:
        """Loads the data.

        A study that began on the bundled digits keeps to them, though the whole set may be had
        by now; one that began on the whole set refuses the digits.

        Raises:
            DataError: if they cannot be had.
        """
        if self.subset:
            return load_digits("this study began on them")
        return load_data(
            self.name,
            path=self.path,
            require_full=self.path is None and (self.require_full or self.subset is False),
            seed=self.seed,
        )

    def settled(self, splits: DataSplits) -> "DataSource":
        """Returns the source that gives these splits again, wherever a worker was started."""
        path = None if self.path is None else str(Path(self.path).expanduser().resolve())
        return replace(self, path=path, subset=splits.subset)
