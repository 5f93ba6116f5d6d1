"""What tracking costs a driver, with MLflow on PostgreSQL behind basic authentication.

`python -m benchmarks.platform_tracking --trials 5000 --json`: the events of a study pass through
the real journal and tracker, at the pace of `--results` a second. All of it runs on this machine:
driver, MLflow's server and PostgreSQL.
"""

import argparse
import base64
import heapq
import itertools
import json
import os
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import psutil

from benchmarks.overhead import sleeping_painter
from benchmarks.sleeping import METRICS, curve, sleeping_study
from benchmarks.tracking_server import tracking_server
from search.cell import cell_key
from search.events import (
    Checkpointed,
    Ended,
    Event,
    Measured,
    Proposed,
    SessionClosed,
    SessionOpened,
    Started,
    StudyOpened,
)
from search.history import History
from search.services_file import Services
from search.tracking import Tracker

_MEGABYTE = 1e6
_PATIENCE_SECONDS = 60.0  # without a run that arrives


class MemoryWatch(threading.Thread):
    """Notes the most memory that this process holds; MB."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self._process = psutil.Process()
        self._over = threading.Event()
        self.before = self.most = self._read()

    def run(self) -> None:
        """Looks twice a second."""
        while not self._over.wait(0.5):
            self.most = max(self.most, self._read())

    def growth(self) -> float:
        """Ends the watch."""
        self._over.set()
        return self.most - self.before

    def _read(self) -> float:
        return float(self._process.memory_info().rss) / _MEGABYTE


class TimedTracker:
    """A tracker's `handle`, timed."""

    def __init__(self, tracker: Tracker) -> None:
        self._tracker = tracker
        self.seconds = self.longest = 0.0

    def handle(self, event: Event) -> None:
        """Hands an event on."""
        began = time.perf_counter()
        self._tracker.handle(event)
        taken = time.perf_counter() - began
        self.seconds += taken
        self.longest = max(self.longest, taken)


def events(options: argparse.Namespace) -> Iterator[Event]:
    """Yields what a driver records: trials side by side, each measurement with a checkpoint."""
    numbers = iter(range(options.trials))
    running: list[tuple[int, int]] = []  # the next measurement of each, and its number
    for number in itertools.islice(numbers, options.concurrent):
        yield from _begin(number, running)
    while running:
        measurement, number = heapq.heappop(running)
        kimg = float(measurement)
        values = dict(zip(METRICS, (curve(_level(number), kimg), 1.0), strict=True))
        yield Measured(number=number, kimg=kimg, elapsed_seconds=kimg, metrics=values)
        yield Checkpointed(number=number, kimg=kimg, path=f"tune/{number}/{measurement}")
        if measurement < options.measurements:
            heapq.heappush(running, (measurement + 1, number))
            continue
        yield Ended(number=number, state="COMPLETED")
        for following in itertools.islice(numbers, 1):
            yield from _begin(following, running)


def _begin(number: int, running: list[tuple[int, int]]) -> Iterator[Event]:
    params = {"learning_rate": _level(number), "d_dropout": 0.25}
    cell = cell_key(params)
    yield Proposed(
        number=number, stage="model", stage_index=0, params=params, cell=cell, seed=number
    )
    yield Started(number=number, attempt=0, from_kimg=0.0, node="n", device="cpu", pid=1)
    heapq.heappush(running, (1, number))


def _level(number: int) -> float:
    return 1.0 / (1.0 + number)


def run_study(options: argparse.Namespace, folder: Path, uri: str | None) -> dict[str, Any]:
    """Records a study at the given pace, and delivers it where there is somewhere to."""
    spec = sleeping_study(options.trials, options.measurements)
    problems: list[str] = []
    watch = MemoryWatch()
    watch.start()
    with History.create(folder) as history:
        opened = StudyOpened(
            study=spec.study,
            study_id=os.urandom(16).hex(),
            spec=spec.model_dump(mode="json"),
            spec_digest=spec.digest,
            dataset_digest="none",
            protocol_digest="none",
        )
        history.append(opened)
        history.append(SessionOpened(pid=os.getpid()))
        tracker = Tracker(uri, on_problem=problems.append) if uri else None
        timed = None
        if tracker:
            timed = TimedTracker(tracker)
            history.listen(timed.handle)
            tracker.open(history.ledger, sleeping_painter(opened, folder))
        began = time.perf_counter()
        appending = _record_at_pace(options, history)
        study_seconds = time.perf_counter() - began
        waiting = len(tracker.left) if tracker else 0
        history.append(SessionClosed(reason="finished"))
        if tracker is None or timed is None:
            return {
                "study_seconds": study_seconds,
                "append_seconds": appending,
                "memory_growth_mb": watch.growth(),
            }
        with suppress(KeyboardInterrupt):  # what was measured so far is told
            tracker.flush_patiently(_PATIENCE_SECONDS)
        left = tracker.close(0.0 if tracker.left else _PATIENCE_SECONDS)
        return {
            "study_seconds": study_seconds,
            "append_seconds": appending,
            "waiting_at_the_end": waiting,
            "delivered_after_seconds": time.perf_counter() - began,
            "blocked_seconds": timed.seconds,
            "blocked_share": timed.seconds / study_seconds,
            "longest_block_seconds": timed.longest,
            "memory_growth_mb": watch.growth(),
            "left": len(left),
            "errors": problems,
        }


def _record_at_pace(options: argparse.Namespace, history: History) -> float:
    """Returns the seconds in which the driver recorded; the rest it waited for the next result."""
    began, results, appending = time.perf_counter(), 0, 0.0
    for event in events(options):
        before = time.perf_counter()
        history.append(event)
        appending += time.perf_counter() - before
        if isinstance(event, Measured) and options.results:
            results += 1
            due = began + results / options.results
            time.sleep(max(0.0, due - time.perf_counter()))
    return appending


def search_seconds(services: Services) -> dict[str, float]:
    """Times what MLflow's page of runs asks for: 100 runs in two orders, the slowest of three."""
    found = {}
    experiment = _ask(services, "experiments/get-by-name?experiment_name=sleeping")
    wanted = {
        "experiment_ids": [experiment["experiment"]["experiment_id"]],
        "run_view_type": "ACTIVE_ONLY",
        "max_results": 100,
    }
    for order in ("attributes.start_time DESC", "metrics.`objective` DESC"):
        seconds = []
        for _ in range(3):
            began = time.perf_counter()
            runs = _ask(services, "runs/search", {**wanted, "order_by": [order]})["runs"]
            seconds.append(time.perf_counter() - began)
        found[order] = max(seconds)
    found["runs"] = len(runs)
    return found


def _ask(services: Services, path: str, body: object = None) -> Any:
    word = f"{services.username}:{services.password()}"
    request = Request(
        f"{services.tracking_uri}/ajax-api/2.0/mlflow/{path}",
        data=None if body is None else json.dumps(body).encode(),
        headers={
            "Authorization": "Basic " + base64.b64encode(word.encode()).decode(),
            "Content-Type": "application/json",
        },
    )
    with urlopen(request, timeout=60) as answer:
        return json.load(answer)


def main() -> int:
    """Prints what was measured; returns 1 where something was not delivered."""
    p = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    p.add_argument("--trials", type=int, default=5000)
    p.add_argument("--measurements", type=int, default=20, help="of each trial")
    p.add_argument("--concurrent", type=int, default=8, help="trials at a time")
    p.add_argument(
        "--results", type=float, default=200.0, help="measurements a second; 0: as fast as it goes"
    )
    p.add_argument("--alone", action="store_true", help="the same without tracking first")
    p.add_argument("--json", action="store_true", help="one object on standard output")
    options = p.parse_args()
    result: dict[str, Any] = {**vars(options)}
    with tempfile.TemporaryDirectory(prefix="tracking-") as name:
        if options.alone:
            result["without_tracking"] = run_study(options, Path(name, "alone"), None)
        with tracking_server() as services:
            result |= run_study(options, Path(name, "study"), services.tracking_uri)
            result["page_seconds"] = search_seconds(services)
    if options.json:
        print(json.dumps(result))
    else:
        for key, value in result.items():
            print(f"{key:26s} {value}")
    return 1 if result["left"] or result["errors"] else 0


if __name__ == "__main__":
    sys.exit(main())
