"""A user's folder of pictures: a class a sub-folder, or with a table of conditions."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float64, Int64

from cgan_core.data.condition_table import ConditionTable, read_condition_table
from cgan_core.data.decoding import ENDINGS
from cgan_core.data.errors import DataError
from cgan_core.data.images import Conditions, DataSplits, LabeledImages
from cgan_core.data.partition import grouped_partition, stratified_partition
from cgan_core.data.picture_cache import Pictures, pictures_of
from cgan_core.data.split_checks import (
    check_split_sizes,
    check_training_conditions,
    check_whole_groups,
    split_codes,
)
from cgan_core.data.standardization import Standardization
from cgan_core.streams import stream

SHARES = (0.7, 0.2, 0.1)
NAMED = 5  # broken pictures in a message


@dataclass(frozen=True, eq=False)
class _Known:
    """What is known of the files of a folder before they are decoded, row by row."""

    files: tuple[str, ...]
    labels: Int64[np.ndarray, " images"] | None = None
    class_names: tuple[str, ...] | None = None
    table: ConditionTable | None = None
    unlisted: int = 0


def load_folder(
    folder: Path,
    conditions: Path | None = None,
    *,
    size: int | None = None,
    max_broken_share: float = 0.01,
    seed: int = 0,
) -> DataSplits:
    """Pictures of a folder, decoded once and then mapped from the user cache.

    Without a table each sub-folder is a class, in the order of their names; without sub-folders
    there are no conditions. A table's numeric columns are the conditions, standardised on the
    training split; its column `split` cuts the data, else they are cut 70/20/10, by class or by
    whole groups of its column `group`.

    Args:
        folder: Of the pictures, which may lie in folders below.
        conditions: A CSV or Parquet file, see `read_condition_table`; pictures that it does not
            name are left out.
        size: Cut to squares and shrink to it; None asks for pictures of one size.
        max_broken_share: Share of pictures that cannot be read, above which that is an error.
        seed: Decides the cut, and the order of the images in each split.

    Raises:
        DataError: If anything is not as it must be.
    """
    listed = _listed(folder)
    known = _by_folder(folder, listed) if conditions is None else _by_table(conditions, listed)
    pictures = pictures_of(folder, known.files, size)
    _check_broken(folder, pictures.broken, len(known.files), max_broken_share)
    rows = np.array([k for k, name in enumerate(known.files) if name not in pictures.broken])
    named = conditions or folder  # what a message is to name
    groups, codes = _cut(named, known, rows, stream(seed, "folder cut"))
    check_split_sizes(named, codes)
    members = [
        stream(seed, "folder order", code).permutation(np.flatnonzero(codes == code))
        for code in range(3)
    ]
    vectors, standard = _conditions(named, known, rows, members[0])
    train, validation, test = (
        _split(pictures, rows[part], _part(vectors, part), _part(groups, part)) for part in members
    )
    return DataSplits(
        train=train,
        validation=validation,
        test=test,
        name=folder.resolve().name,
        source=folder.resolve().name,
        subset=False,
        num_classes=None if known.class_names is None else len(known.class_names),
        notice=_notice(known, pictures.broken),
        class_names=known.class_names,
        condition_names=known.table.columns if known.table and known.table.columns else None,
        standardization=standard,
    )


def _listed(folder: Path) -> list[str]:
    """The pictures of a folder and of those below, by their endings, without hidden ones."""
    names = [
        path.relative_to(folder)
        for path in folder.rglob("*")
        if path.suffix.lower() in ENDINGS and path.is_file()
    ]
    listed = sorted(n.as_posix() for n in names if not any(p.startswith(".") for p in n.parts))
    if not listed:
        raise DataError(
            f"{folder}: must hold pictures ({', '.join(sorted(ENDINGS))}), but has none; "
            "correct data.path"
        )
    return listed


def _by_folder(folder: Path, listed: list[str]) -> _Known:
    deep = [name for name in listed if "/" in name]
    if not deep:
        return _Known(tuple(listed))
    if len(deep) < len(listed):
        beside = next(name for name in listed if "/" not in name)
        raise DataError(
            f"{folder}: pictures must all lie in sub-folders (their classes) or all beside each "
            f"other, but {beside} lies beside sub-folders; move it"
        )
    classes = [name.split("/")[0] for name in listed]
    class_names, labels = np.unique(classes, return_inverse=True)
    below = {p.name for p in folder.iterdir() if p.is_dir() and not p.name.startswith(".")}
    for empty in sorted(below.difference(classes)):
        raise DataError(f"{folder / empty}: a class must have pictures; add some or remove it")
    return _Known(tuple(listed), labels.astype(np.int64), tuple(map(str, class_names)))


def _by_table(path: Path, listed: list[str]) -> _Known:
    table = read_condition_table(path)
    there = set(listed)
    for row, name in enumerate(table.files, 1):
        if name not in there:
            raise DataError(
                f"{path}: every file must be a picture of the folder, but {name!r} in row {row} "
                "is none; write names relative to the folder, with /"
            )
    return _Known(table.files, table=table, unlisted=len(listed) - len(table.files))


def _cut(
    named: Path, known: _Known, rows: Int64[np.ndarray, " images"], generator: np.random.Generator
) -> tuple[Int64[np.ndarray, " images"] | None, Int64[np.ndarray, " images"]]:
    """The groups and the splits' codes of the pictures that can be read."""
    table, groups = known.table, None
    if table is not None and table.group is not None:
        names, groups = np.unique(table.group[rows], return_inverse=True)
        groups = groups.astype(np.int64)
    if table is not None and table.split is not None:
        codes = split_codes(named, table.split[rows])
        if groups is not None:
            check_whole_groups(named, groups, names, codes)
        return groups, codes
    if groups is not None:
        return groups, grouped_partition(groups, SHARES, generator)
    labels = np.zeros(len(rows), np.int64) if known.labels is None else known.labels[rows]
    return None, stratified_partition(labels, generator)


def _conditions(
    named: Path,
    known: _Known,
    rows: Int64[np.ndarray, " images"],
    training: Int64[np.ndarray, " train"],
) -> tuple[Conditions | None, Standardization | None]:
    if known.labels is not None and known.class_names is not None:
        labels = known.labels[rows]
        check_training_conditions(named, labels, len(known.class_names), training)
        return labels, None
    if known.table is None or not known.table.columns:
        return None, None
    raw: Float64[np.ndarray, "images columns"] = known.table.vectors[rows]
    check_training_conditions(named, raw.astype(np.float32), None, training)
    standard = Standardization.fit(raw[training])
    return standard.apply(raw), standard


def _split(
    pictures: Pictures,
    rows: Int64[np.ndarray, " images"],
    conditions: Conditions | None,
    groups: Int64[np.ndarray, " images"] | None,
) -> LabeledImages:
    return LabeledImages(pictures.rows(rows), conditions, groups=groups)


def _part(values: np.ndarray | None, rows: np.ndarray) -> np.ndarray | None:
    return None if values is None else values[rows]


def _check_broken(folder: Path, broken: Mapping[str, str], total: int, most: float) -> None:
    if len(broken) > most * total:
        raise DataError(
            f"{folder}: `broken pictures <= {most:g} * {total}` must hold, but got "
            f"{len(broken)}: {_first(broken)}; mend or remove them, or raise "
            "data.max_broken_share"
        )


def _notice(known: _Known, broken: Mapping[str, str]) -> str | None:
    total, parts = len(known.files), []
    if broken:
        parts.append(
            f"{len(broken)} of {total:,} pictures cannot be read and are left out: "
            f"{_first(broken)}."
        )
    if known.unlisted:
        parts.append(f"{known.unlisted:,} pictures that the table does not name are left out.")
    return " ".join(parts) or None


def _first(broken: Mapping[str, str]) -> str:
    listed = [f"{name} ({reason})" for name, reason in list(broken.items())[:NAMED]]
    more = len(broken) - len(listed)
    return ", ".join([*listed, *([f"and {more} more"] if more else [])])
