"""What a user asks of a running study: a file each in `requests/`, until the driver answers it."""

import os
import time
import uuid
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from search.event_fields import Count, Params, Seconds

REQUESTS_FOLDER = "requests"
MAX_BYTES = 2**16


class RequestError(ValueError):
    """What was asked cannot be done; the message says why."""


class _Asked(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Enqueue(_Asked):
    """Try this point next."""

    request: Literal["enqueue"] = "enqueue"
    params: Params

    def __str__(self) -> str:
        values = (f"{name}={_short(value)}" for name, value in self.params.items())
        return f"enqueue {' '.join(values)}"


class Stop(_Asked):
    """End a trial early."""

    request: Literal["stop"] = "stop"
    number: Count
    reason: str | None = None

    def __str__(self) -> str:
        return f"stop {self.number}" + (f": {self.reason}" if self.reason else "")


class Extend(_Asked):
    """Add trials, or seconds, to the budget."""

    request: Literal["extend"] = "extend"
    trials: Count = 0
    seconds: Seconds = 0.0

    def __str__(self) -> str:
        trials = f" --trials +{self.trials}" if self.trials else ""
        return f"extend{trials}" + (f" --time-budget +{self.seconds:g}s" if self.seconds else "")


Request = Enqueue | Stop | Extend
_REQUEST: TypeAdapter[Any] = TypeAdapter(Annotated[Request, Field(discriminator="request")])


def ask(folder: Path, request: Request, request_id: str | None = None) -> Path:
    """Leaves a request in a study's folder.

    Args:
        folder: The study's.
        request: What is asked.
        request_id: What tells it from others where it may be asked again; a new one by default.

    Returns:
        Its file, whose stem is its id; it is gone once the driver has answered.

    Raises:
        RequestError: The folder cannot be written.
    """
    request_id = request_id or f"{time.time_ns()}-{uuid.uuid4().hex[:8]}"
    path = folder / REQUESTS_FOLDER / f"{request_id}.json"
    temporary = path.with_name(f"{request_id}.tmp")
    try:
        path.parent.mkdir(exist_ok=True)
        try:
            with temporary.open("x") as file:
                file.write(request.model_dump_json() + "\n")
                file.flush()
                os.fsync(file.fileno())
            temporary.rename(path)  # a driver sees the whole of it or nothing
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise RequestError(f"{path}: must be writable, but: {error.strerror}") from error
    return path


def waiting(folder: Path) -> list[Path]:
    """Returns the requests of a study that still lie in its folder, the oldest first."""
    return sorted((folder / REQUESTS_FOLDER).glob("*.json"))


def read_request(path: Path) -> Request:
    """Reads a request.

    Raises:
        RequestError: It is not one.
        FileNotFoundError: It was answered, or taken back by the user.
    """
    try:
        request: Request = _REQUEST.validate_json(_content(path))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        fault = f"{where}: {first['msg']}" if where else first["msg"]
        raise RequestError(f"{path}: must hold one request, but: {fault}") from None
    except FileNotFoundError:
        raise
    except OSError as error:
        raise RequestError(f"{path}: must be readable, but: {error.strerror}") from None
    return request


def _content(path: Path) -> bytes:
    """Reads a request; whoever may leave one here may not have us read what lies elsewhere."""
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as file:
        content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise RequestError(f"{path}: must have at most {MAX_BYTES} bytes")
    return content


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
