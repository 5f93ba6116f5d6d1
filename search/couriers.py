"""Threads that take things in order, a few at once."""

import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Generic, TypeVar

_Item = TypeVar("_Item")


def deliver_in_order(
    items: Iterable[_Item], deliver: Callable[[_Item], None], at_once: int
) -> None:
    """Calls `deliver` with each item in order; after a fault nothing more is begun.

    This thread is one of them. The others do not keep the process from ending.

    Raises:
        BaseException: The first that a call raised, once all that was begun is over.
    """
    faults: list[BaseException] = []
    queue = _Queue(items)

    def work() -> None:
        for item in queue:
            if faults:
                return
            try:
                deliver(item)
            except BaseException as fault:
                faults.append(fault)

    others = [threading.Thread(target=work, daemon=True) for _ in range(at_once - 1)]
    for other in others:
        other.start()
    work()
    for other in others:
        other.join()
    if faults:
        raise faults[0]


class _Queue(Generic[_Item]):
    """Items that several threads take, each item once."""

    def __init__(self, items: Iterable[_Item]) -> None:
        self._items = iter(items)
        self._lock = threading.Lock()

    def __iter__(self) -> Iterator[_Item]:
        return self

    def __next__(self) -> _Item:
        with self._lock:
            return next(self._items)
