"""What the fields of events hold, and what every event has: the time at which it happened."""

import json
from datetime import UTC, datetime
from pathlib import PurePosixPath, PureWindowsPath
from typing import Annotated

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    StrictBool,
    StrictFloat,
    StrictStr,
)

Finite = Annotated[float, Field(allow_inf_nan=False)]
Int64 = Annotated[int, Field(strict=True, ge=-(2**63), lt=2**63)]
ParamValue = StrictBool | Int64 | Annotated[StrictFloat, Field(allow_inf_nan=False)] | StrictStr
Params = dict[str, ParamValue]


def _plain(value: dict[str, JsonValue]) -> dict[str, JsonValue]:
    json.dumps(value, allow_nan=False)  # raises ValueError: JSON has no NaN and would say null
    return value


PlainJson = Annotated[dict[str, JsonValue], AfterValidator(_plain)]


def _inside(path: str) -> str:
    for pure in (PurePosixPath(path), PureWindowsPath(path)):
        if not pure.parts or pure.anchor or ".." in pure.parts or "\0" in path:
            raise ValueError(
                "must be a path below the study's folder, relative and without `..`, but got "
                f"{path!r}"
            )
    return path


RelativePath = Annotated[str, AfterValidator(_inside)]  # seen from the study's folder
Count = Annotated[int, Field(ge=0)]
Kimg = Annotated[Finite, Field(ge=0.0)]
Seconds = Annotated[Finite, Field(ge=0.0)]


def _now() -> datetime:
    return datetime.now(UTC)


class Dated(BaseModel):
    """Frozen, and closed to keys that it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    at: Annotated[AwareDatetime, AfterValidator(lambda at: at.astimezone(UTC))] = Field(
        default_factory=_now
    )
    # By a clock that nobody sets, as `at` may be: since the session was opened. `History` says it.
    session_seconds: Seconds | None = None
