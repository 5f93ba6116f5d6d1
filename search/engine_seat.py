"""Engines in Ray: an actor a device, shared by the trials that Ray places there."""

import asyncio
import functools
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import OutOfMemoryError, RayActorError, RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from search.engine import Engine
from search.pack import best_pack
from search.seat import Place, RunFaultError, Seat, place_here, told_in_words
from search.trial_run import MakeLanes, Progress


class EngineLostError(RuntimeError):
    """The engine of a trial died; the trial goes on from its checkpoint on another."""


@contextmanager
def engines(make: MakeLanes, capacity: int) -> Iterator[Callable[[], Seat]]:
    """Yields what makes the seats of trials on engines of this driver, which end with it."""
    # In a list Ray hands the reference on and not the object, so that only engines import what
    # it needs: neither broker nor trials have torch in memory, or a device open.
    handed = [ray.put(make)]  # kept here, for a broker that is restarted needs it again
    # Beside the driver: another machine may be taken away, and all engines with it.
    lasting = ray.remote(
        num_cpus=0,
        max_restarts=-1,
        max_task_retries=-1,
        scheduling_strategy=NodeAffinitySchedulingStrategy(
            ray.get_runtime_context().get_node_id(), soft=False
        ),
    )
    broker = lasting(Broker).remote(handed, capacity)
    try:
        yield functools.partial(EngineSeat, broker)
    finally:
        ray.kill(broker)  # and with their owner, engines


def probed_pack(make: MakeLanes, trial: Mapping[str, Any], room: int) -> int:
    """Finds the best pack on a GPU of the cluster, as soon as one is free."""
    probe = ray.remote(num_cpus=0, num_gpus=1)(best_pack)
    pack: int = ray.get(probe.remote(make, "cuda:0", dict(trial), room))
    return pack


class Broker:
    """Makes the engine of a device when it is first asked for, or when the last one is dead.

    Its engines are its own: they outlive trials, but not the driver that owns the broker.
    """

    def __init__(self, make: list[Any], capacity: int) -> None:
        self._make, self._capacity = make, capacity
        self._engines: dict[tuple[str, str | None], Any] = {}
        self._locks: defaultdict[tuple[str, str | None], asyncio.Lock] = defaultdict(asyncio.Lock)

    async def engine(self, node: str, gpu: str | None) -> Any:
        """Returns the engine of a node's GPU, or of its processors, that answers or is new."""
        key = (node, gpu)
        async with self._locks[key]:
            if key not in self._engines or not await self._answers(self._engines[key]):
                self._engines[key] = self._begin(node, gpu)
            return self._engines[key]

    async def _answers(self, engine: Any) -> bool:
        try:
            await engine.place.remote()
        except RayActorError:
            return False
        except RayError:  # it lives, but its thread has ended
            ray.kill(engine)
            return False
        return True

    def _begin(self, node: str, gpu: str | None) -> Any:
        # It holds nothing of what Ray counts: its trials do.
        visible = {"CUDA_VISIBLE_DEVICES": gpu, "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
        actor = ray.remote(
            num_cpus=0,
            num_gpus=0,
            max_concurrency=4 * self._capacity + 8,  # calls of trials that died end by themselves
            scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False),
            runtime_env={} if gpu is None else {"env_vars": visible},
        )(EngineActor)
        return actor.remote(self._make, gpu, self._capacity)


class EngineActor:
    """The process of an engine."""

    def __init__(self, make: list[Any], gpu: str | None, capacity: int) -> None:
        make_lanes: MakeLanes = ray.get(make[0])
        device = "cpu" if gpu is None else "cuda:0"  # the only one that it sees
        self._gpu = gpu
        self._engine = Engine(lambda: make_lanes(device, capacity), capacity)

    def place(self) -> Place:
        """Tells where it is, and by which name this machine knows its GPU."""
        device = self._engine.device()
        if device == "cuda:0":
            device = f"cuda:{self._gpu}"
        return place_here(device, self._engine.streams(), self._engine.processor())

    def call(self, name: str, *arguments: Any) -> Any:
        """Calls the engine; what it raises is told in words, for a trial has not its classes."""
        with told_in_words():
            return getattr(self._engine, name)(*arguments)


class EngineSeat:
    """A trial on the engine of the device that Ray has set aside for it: `search.seat.Seat`.

    Args:
        broker: knows the engines.
    """

    def __init__(self, broker: Any) -> None:
        self._broker = broker
        self._engine: Any = None
        self._lane: int | None = None

    def place(self) -> Place:
        """Tells where the engine is."""
        # An open trial stays with its engine: to another, its lane would be somebody else's.
        engine = self._find() if self._lane is None else self._engine
        place: Place = ray.get(engine.place.remote())
        return place

    def open(self, trial: Mapping[str, Any], folder: Path | None) -> None:
        """Begins a trial, or goes on with what was saved in `folder`."""
        self._engine = self._find()
        self._lane = self._call("open", dict(trial), folder)

    def step(self, seconds: float) -> Progress:
        """Trains until a measurement is made or about `seconds` have passed.

        Raises:
            EngineLostError: if the engine died.
            RunFaultError: if training raised.
        """
        progress: Progress = self._call("step", self._lane, seconds)
        return progress

    def save(self, folder: Path) -> None:
        """Has the engine write the state, on this very machine."""
        self._call("save", self._lane, folder)

    def close(self) -> None:
        """Releases the trial, if one is open and its engine lives."""
        lane, self._lane = self._lane, None
        if lane is not None:
            with suppress(EngineLostError, RunFaultError):
                self._call("close", lane)

    def _find(self) -> Any:
        """The engine of this actor's device, as the broker knows it now."""
        context = ray.get_runtime_context()
        gpu = next(iter(context.get_accelerator_ids()["GPU"]), None)
        try:
            return ray.get(self._broker.engine.remote(context.get_node_id(), gpu))
        except (RayActorError, OutOfMemoryError):
            raise EngineLostError("the broker of its engine died") from None

    def _call(self, name: str, *arguments: Any) -> Any:
        try:
            return ray.get(self._engine.call.remote(name, *arguments))
        except RayTaskError as error:
            raise RunFaultError(str(error.cause)) from error
        except RayActorError:
            self._lane = None
            raise EngineLostError("its engine died") from None
        except OutOfMemoryError:
            self._lane = None
            raise EngineLostError("its engine died, for its node ran low on memory") from None
