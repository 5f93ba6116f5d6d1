"""Trials of one device advanced together, as inference servers batch requests; no Ray here."""

import itertools
import threading
import time
from collections.abc import Callable, Hashable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from search.seat import open_run
from search.trial_run import CHUNK_STEPS, Lanes, Progress, Snapshot, TrialRun

LINGER_SECONDS = 0.005  # after idling: calls of several trials arrive together

T = TypeVar("T")


class EngineError(RuntimeError):
    """The engine cannot be used any more."""


class LaneLostError(RuntimeError):
    """The engine holds this trial no longer."""


class _FullError(Exception):
    """Every lane has a call in it: ask again after the next chunk."""


@dataclass(eq=False)
class _Lane:
    """A trial on the engine; `saved` is the state at its last answer once it has run ahead."""

    trial: tuple[int, int]  # number, replicate
    run: TrialRun
    asked: "Future[Progress] | None" = None
    since: float = 0.0  # when it last called
    until: float = 0.0  # when its call is answered at the latest
    saved: Snapshot | None = None


class Engine:
    """Hosts trials in lanes; one thread does everything that touches them.

    Calls come from any thread and are served between chunks of training. A trial that asks for
    nothing is trained on, from a snapshot, to its next measurement at most, for "go on" is the
    usual answer; that measurement is made when it is asked for, so nothing is ever written or
    recorded of a trial that was stopped in the meantime.

    Args:
        make: makes the lanes, in the engine's thread.
        capacity: trials at a time.
    """

    def __init__(self, make: Callable[[], Lanes[Any]], capacity: int) -> None:
        self._capacity = capacity
        self._lanes: dict[int, _Lane] = {}
        self._numbers = itertools.count()
        self._turns: dict[Hashable, int] = {}  # when runs of each signature were last advanced
        self._inbox: list[tuple[Callable[[], Any], Future[Any]]] = []
        self._changed = threading.Condition()
        self._fault: BaseException | None = None
        threading.Thread(target=self._main, args=(make,), name="engine", daemon=True).start()

    def device(self) -> str:
        """Tells where trials are trained."""
        return self._between_chunks(lambda: self._device.device)

    def streams(self) -> str:
        """Tells how chance is drawn."""
        return self._between_chunks(lambda: self._device.streams)

    def processor(self) -> str:
        """Tells what computes."""
        return self._between_chunks(lambda: self._device.processor)

    def open(self, trial: Mapping[str, Any], folder: Path | None) -> int:
        """Takes in a trial, from a checkpoint if one is given; returns its lane.

        A lane that the same trial had before is given up, and so is, where none is free, the one
        that has not called for longest: its owner is dead, for nobody places more trials here.
        """
        return self._between_chunks(lambda: self._open(trial, folder))

    def step(self, lane: int, seconds: float) -> Progress:
        """Trains until a measurement, an end, or until about `seconds` have passed.

        Raises:
            LaneLostError: if the lane was given up.
            EngineError: if the engine is broken.
            Exception: whatever the trial's training raised.
        """
        return self._between_chunks(lambda: self._ask(lane, seconds)).result()

    def save(self, lane: int, folder: Path) -> None:
        """Writes the state as it was when `step` last returned; training goes on meanwhile."""
        self._between_chunks(lambda: self._snapshot(lane)).save(folder)

    def close(self, lane: int) -> None:
        """Gives up a lane; a second time does nothing."""
        self._between_chunks(lambda: self._drop(lane))

    def _between_chunks(self, work: Callable[[], T]) -> T:
        reply: Future[T] = Future()
        with self._changed:
            if self._fault is not None:
                raise EngineError(f"the engine is broken ({self._fault!r})") from self._fault
            self._inbox.append((work, reply))
            self._changed.notify()
        return reply.result()

    # From here on in the engine's own thread.

    def _main(self, make: Callable[[], Lanes[Any]]) -> None:
        try:
            self._device = make()
            while True:
                self._serve()
                self._answer()
                self._advance()
        except BaseException as fault:  # else those who wait would wait for ever
            with self._changed:
                self._fault = fault
            broken = EngineError(f"the engine is broken ({fault!r})")
            for _, reply in self._inbox:
                reply.set_exception(broken)
            for lane in self._lanes.values():
                if lane.asked is not None:
                    lane.asked.set_exception(broken)

    def _serve(self) -> None:
        with self._changed:
            if not self._inbox and not self._has_work():
                self._changed.wait_for(lambda: self._inbox)
                self._changed.wait_for(self._all_here, LINGER_SECONDS)
            calls, self._inbox = self._inbox, []
        for work, reply in calls:
            try:
                reply.set_result(work())
            except _FullError:
                with self._changed:
                    self._inbox.append((work, reply))
            except Exception as error:
                reply.set_exception(error)

    def _has_work(self) -> bool:
        return any(lane.asked or lane.run.steps_left for lane in self._lanes.values())

    def _all_here(self) -> bool:
        return len(self._inbox) >= self._capacity

    def _answer(self) -> None:
        """Answers the calls of lanes that are due, ended, or out of time."""
        now = time.monotonic()
        for number, lane in list(self._lanes.items()):
            if lane.asked is None or (lane.run.steps_left and now < lane.until):
                continue
            asked, lane.asked = lane.asked, None
            try:
                progress = lane.run.progress() if lane.run.steps_left else lane.run.measure()
            except Exception as error:
                self._drop(number)
                asked.set_exception(error)
                continue
            asked.set_result(progress)

    def _advance(self) -> None:
        riders = self._riders()
        if not riders:
            return
        for lane in riders:
            if lane.asked is None and lane.saved is None:
                lane.saved = lane.run.snapshot()
        steps = min(CHUNK_STEPS, *(lane.run.steps_left for lane in riders))
        self._device.advance([lane.run for lane in riders], steps)

    def _riders(self) -> list[_Lane]:
        """The lanes of the next chunk: of the signature that has waited longest."""
        able = [lane for lane in self._lanes.values() if lane.run.steps_left]
        asked = [lane for lane in able if lane.asked]
        first = asked or able  # who asks for nothing must not hold up those who wait
        if not first:
            return []
        chosen = min((lane.run.signature for lane in first), key=lambda s: self._turns.get(s, -1))
        self._turns[chosen] = max(self._turns.values(), default=0) + 1
        riding = able if self._device.fused else first
        return [lane for lane in riding if lane.run.signature == chosen]

    def _open(self, trial: Mapping[str, Any], folder: Path | None) -> int:
        name = (int(trial["number"]), int(trial["replicate"]))
        for number, lane in list(self._lanes.items()):
            if lane.trial == name:
                self._drop(number)
        if len(self._lanes) >= self._capacity:
            silent = [number for number, lane in self._lanes.items() if lane.asked is None]
            if not silent:
                raise _FullError
            self._drop(min(silent, key=lambda number: self._lanes[number].since))
        number = next(self._numbers)
        run = open_run(self._device, trial, folder)
        self._lanes[number] = _Lane(name, run, since=time.monotonic())
        return number

    def _ask(self, number: int, seconds: float) -> "Future[Progress]":
        lane = self._held(number)
        if lane.asked is not None:
            raise RuntimeError(f"lane {number} is to be asked for one step at a time")
        lane.asked, lane.since = Future(), time.monotonic()
        lane.until = lane.since + seconds
        lane.saved = None
        return lane.asked

    def _snapshot(self, number: int) -> Snapshot:
        lane = self._held(number)
        return lane.saved or lane.run.snapshot()

    def _held(self, number: int) -> _Lane:
        if number not in self._lanes:
            raise LaneLostError(f"the engine does not hold lane {number} any more")
        return self._lanes[number]

    def _drop(self, number: int) -> None:
        lane = self._lanes.pop(number, None)
        if lane is None:
            return
        if lane.asked is not None:
            lane.asked.set_exception(LaneLostError(f"lane {number} was given up"))
        lane.run.close()
