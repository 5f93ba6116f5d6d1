"""One way in: a data set by its name, its file or its folder."""

from dataclasses import replace
from pathlib import Path
from typing import get_args

from cgan_core.data.digits import load_digits
from cgan_core.data.errors import DataError, MnistNotFoundError
from cgan_core.data.folder import load_folder
from cgan_core.data.images import DataSplits
from cgan_core.data.lfw_people import load_lfw_people
from cgan_core.data.lfwcrop import load_lfwcrop
from cgan_core.data.masks import Mask
from cgan_core.data.mnist import load_mnist
from cgan_core.data.own import load_own
from cgan_core.data.standardization import Standardization
from cgan_core.data_choices import ConditionChoice, DataName, MaskBox, MaskName


def load_data(
    name: str = "mnist",
    *,
    path: str | Path | None = None,
    conditions: str | Path | None = None,
    size: int | None = None,
    max_broken_share: float = 0.01,
    condition: ConditionChoice = "given",
    mask: MaskName | MaskBox | None = None,
    require_full: bool = False,
    seed: int = 0,
    allow_download: bool = True,
) -> DataSplits:
    """Loads a data set (docs/data.md); a `notice` in what it returns must be shown to the user.

    Args:
        name: `mnist`, resolved as `CGAN_DATA_DIR`, user cache, download, bundled digits;
            `lfwcrop` or `lfw_people`. Not used with `path`.
        path: A user's own npz file (see `load_own`) or folder of pictures (see `load_folder`).
        conditions: A table of the conditions of a folder's pictures.
        size: Of a picture of faces (64 where it is not given), or of a folder's.
        max_broken_share: Of a folder's pictures, above which broken ones are an error.
        condition: What there is to condition networks on: what is `given` with the data (for some
            nothing), or `masked_image`, the part of each picture that `mask` leaves visible.
        mask: What is hidden; needed by `masked_image` and by nothing else.
        require_full: Refuse the bundled digits.
        seed: Cuts and shuffles a user's own file or folder.
        allow_download: Whether the network may be asked.

    Raises:
        DataError: If the data cannot be had or are not as they must be.
    """
    if path is not None:
        place = Path(path).expanduser()
        table = None if conditions is None else Path(conditions).expanduser()
        splits = _of_path(place, table, size, max_broken_share, seed)
    else:
        if conditions is not None:
            raise DataError("conditions needs a path, the folder of the pictures; give it")
        splits = _of_name(name, size, require_full, allow_download)
    return conditioned(splits, condition, mask)


def conditioned(
    splits: DataSplits, condition: ConditionChoice, mask: MaskName | MaskBox | None = None
) -> DataSplits:
    """The same pictures under another condition; see `load_data`.

    Raises:
        DataError: If the choice is unknown, or the mask is missing or needless.
    """
    if condition not in get_args(ConditionChoice):
        known = ", ".join(get_args(ConditionChoice))
        raise DataError(f"condition must be of {known}, but got {condition!r}")
    if (mask is not None) != (condition == "masked_image"):
        fault = "needs `mask`" if mask is None else "has no use for `mask`"
        raise DataError(f"data.condition: {condition} {fault}; correct one of the two")
    if mask is None:
        return splits
    placed = Mask.of(mask, splits.image_shape)
    standard = Standardization.fit(placed.visible(splits.train.images))
    train, validation, test = (
        replace(part, conditions=standard.apply(placed.visible(part.images)))
        for part in (splits.train, splits.validation, splits.test)
    )
    return replace(
        splits,
        train=train,
        validation=validation,
        test=test,
        num_classes=None,
        class_names=None,
        condition_names=None,
        standardization=standard,
        mask=placed,
    )


def _of_path(
    path: Path, conditions: Path | None, size: int | None, max_broken_share: float, seed: int
) -> DataSplits:
    if path.is_dir():
        return load_folder(
            path, conditions, size=size, max_broken_share=max_broken_share, seed=seed
        )
    for key, value in (("conditions", conditions), ("size", size)):
        if value is not None:
            raise DataError(f"{path}: data.{key} needs a folder of pictures, and this is none")
    return load_own(path, seed=seed)


def _of_name(name: str, size: int | None, require_full: bool, allow_download: bool) -> DataSplits:
    if name == "lfwcrop":
        return load_lfwcrop(size or 64)
    if name == "lfw_people":
        return load_lfw_people(size or 64, allow_download=allow_download)
    if name != "mnist":
        known = ", ".join(get_args(DataName))
        raise DataError(f"name must be of {known}, but got {name!r}; give other data by its path")
    if size is not None:
        raise DataError("data.size: the pictures of mnist keep their size; leave it out")
    try:
        return load_mnist(allow_download=allow_download)
    except MnistNotFoundError as error:
        if require_full:
            raise
        return load_digits(error.reason)
