"""The section of a study that says which images are learnt, and what they are conditioned on."""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Self

from pydantic import Discriminator, Field, Tag, model_validator

from cgan_core.data_choices import ConditionChoice, DataName, MaskBox, MaskName
from search.domains import StrictModel
from search.spec_errors import Problem, raise_any

Text = Annotated[str, Field(min_length=1)]
Whole = Annotated[int, Field(ge=0)]


class Rectangle(StrictModel):
    """A rectangle of pixels that is hidden.

    Attributes:
        top: Its first row.
        left: Its first column.
        height: Rows.
        width: Columns.
    """

    top: Whole
    left: Whole
    height: Annotated[int, Field(ge=1)]
    width: Annotated[int, Field(ge=1)]

    @property
    def box(self) -> MaskBox:
        """The same as a tuple."""
        return self.top, self.left, self.height, self.width


def _written_as(mask: Any) -> str:
    return "box" if isinstance(mask, Mapping | Rectangle) else "name"


# Tagged, so that a mistake is told by what was meant.
Hidden = Annotated[
    Annotated[MaskName, Tag("name")] | Annotated[Rectangle, Tag("box")], Discriminator(_written_as)
]


class DataSection(StrictModel):
    """Which images are learnt (docs/data.md).

    Attributes:
        name: A data set that the platform knows.
        path: An `.npz` of the user's own or a folder of pictures, relative to where the search is
            started.
        conditions: A CSV or Parquet file of what is known of a folder's pictures; the same.
        size: Height and width of pictures; of `lfwcrop`, `lfw_people` and folders only.
        max_broken_share: Share of a folder's pictures that may be unreadable.
        condition: `given` with the data, or `masked_image`: what `mask` leaves visible.
        mask: What is hidden of each picture.
        require_full: Whether to refuse the bundled digits where full MNIST is not at hand.
    """

    name: DataName | None = None
    path: Text | None = None
    conditions: Text | None = None
    size: Annotated[int, Field(ge=1)] | None = None
    max_broken_share: Annotated[float, Field(ge=0, lt=1)] = 0.01
    condition: ConditionChoice = "given"
    mask: Hidden | None = None
    require_full: bool = False

    @model_validator(mode="after")
    def _check(self) -> Self:
        raise_any([*self._misplaced(), *self._unmasked()])
        return self

    def _misplaced(self) -> Iterator[Problem]:
        if (self.name is None) == (self.path is None):
            got = "both" if self.name else "neither"
            yield Problem((), f"one of `name` and `path` must be given, but got {got}")
        if self.path is not None and self.require_full:
            message = "`require_full` must be left out where `path` is given: a file is whole"
            yield Problem(("require_full",), message)
        if self.name is not None and self.conditions is not None:
            message = "`conditions` needs `path`, the folder of the pictures, but got name"
            yield Problem(("conditions",), message)
        if self.name == "mnist" and self.size is not None:
            message = f"`size` must be left out for mnist, but got size={self.size}"
            yield Problem(("size",), message)

    def _unmasked(self) -> Iterator[Problem]:
        if self.condition == "masked_image" and self.mask is None:
            message = "`mask` must be given where `condition` is masked_image, but it is missing"
            yield Problem(("condition",), message)
        if self.condition != "masked_image" and self.mask is not None:
            message = f"`mask` needs `condition: masked_image`, but got {self.condition}"
            yield Problem(("mask",), message)
