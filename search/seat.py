"""What the actor of a trial trains on: its own process, or an engine that it shares."""

import os
import platform
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from search.machine import version
from search.secrets import redacted
from search.trial_run import CHUNK_STEPS, Lanes, MakeLanes, Progress, TrialRun


class RunFaultError(RuntimeError):
    """What the training of a trial raised in another process, in words and in one line."""


@contextmanager
def told_in_words() -> Iterator[None]:
    """Raises in words, without secrets, what is raised in a trial's process.

    Its class and its attributes stay here: whoever hears of it unpickles neither.

    Raises:
        RunFaultError: With the traceback as a note.
    """
    try:
        yield
    except Exception as error:
        words = str(error) if isinstance(error, RunFaultError) else _words(error)
        told = RunFaultError(redacted(words))
        told.add_note(redacted("".join(traceback.format_exception(error))))
        raise told from None


def _words(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split()).removesuffix(":")


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a trial is trained, by which process, and what its numbers depend on there.

    Attributes:
        node: Name of the machine.
        device: Where it is trained, such as `cpu`.
        pid: The process.
        streams: How chance is drawn (`Lanes.streams`); None where nobody could be asked.
        torch: Version of PyTorch.
        processor: Model of what computes (`Lanes.processor`).
    """

    node: str
    device: str
    pid: int
    streams: str | None = None
    torch: str | None = None
    processor: str | None = None


def place_here(device: str, streams: str, processor: str) -> Place:
    """Returns this process as the place where lanes of these attributes are trained."""
    return Place(
        node=platform.node(),
        device=device,
        pid=os.getpid(),
        streams=streams,
        torch=version("torch"),
        processor=processor,
    )


class Seat(Protocol):
    """Trains one trial after another."""

    def place(self) -> Place:
        """Tells where."""
        ...

    def open(self, trial: Mapping[str, Any], folder: Path | None) -> None:
        """Begins a trial, or goes on with what was saved in `folder`."""
        ...

    def step(self, seconds: float) -> Progress:
        """Trains until a measurement is made or about `seconds` have passed."""
        ...

    def save(self, folder: Path) -> None:
        """Writes the state as it was when `step` last returned."""
        ...

    def close(self) -> None:
        """Releases the trial, if one is open."""
        ...


class OwnSeat:
    """A trial in the process of its own actor: `Seat`.

    Args:
        make: makes lanes.
        device: what Ray has set aside, such as `cpu`.
        capacity: lanes; of more than one the others stay empty.
    """

    def __init__(self, make: MakeLanes, device: str = "cpu", capacity: int = 1) -> None:
        self._lanes: Lanes[Any] = make(device, capacity)
        self._run: TrialRun | None = None

    def place(self) -> Place:
        """Tells where this process is."""
        lanes = self._lanes
        return place_here(lanes.device, lanes.streams, lanes.processor)

    def open(self, trial: Mapping[str, Any], folder: Path | None) -> None:
        """Begins a trial, or goes on with what was saved in `folder`."""
        self._run = open_run(self._lanes, trial, folder)

    def step(self, seconds: float) -> Progress:
        """Trains until a measurement is made or about `seconds` have passed."""
        assert self._run is not None
        until = time.monotonic() + seconds
        while (left := self._run.steps_left) and time.monotonic() < until:
            self._lanes.advance([self._run], min(left, CHUNK_STEPS))
        return self._run.progress() if left else self._run.measure()

    def save(self, folder: Path) -> None:
        """Writes the state."""
        assert self._run is not None
        self._run.snapshot().save(folder)

    def close(self) -> None:
        """Releases the trial, if one is open."""
        run, self._run = self._run, None
        if run is not None:
            run.close()


def open_run(lanes: Lanes[Any], trial: Mapping[str, Any], folder: Path | None) -> TrialRun:
    """Begins a trial in a lane, or goes on with what was saved in `folder`."""
    run: TrialRun = lanes.open(trial)
    if folder is not None:
        try:
            if str(folder) == trial.get("donor"):
                run.inherit(folder)
            else:
                run.load(folder)
        except BaseException:
            run.close()  # its lane
            raise
    return run
