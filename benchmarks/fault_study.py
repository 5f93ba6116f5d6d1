"""One study taken through faults, one after another, to its end."""

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from threading import Thread
from typing import Literal, get_args

from benchmarks.fault_session import Drivers, kill, set_clock
from benchmarks.fault_tracking import Services
from search.events import Retried, RunKey
from search.lost_attempt import MAX_FRUITLESS

Kind = Literal["driver", "actor", "engine", "raylet", "gcs", "mlflow", "postgres", "disk", "clock"]
KINDS: tuple[Kind, ...] = get_args(Kind)
# How often each is done: a Ray that dies takes its driver half a minute to notice.
WEIGHTS: dict[Kind, float] = {kind: 1.0 for kind in KINDS} | {"raylet": 0.5, "gcs": 0.5}
FATAL: tuple[Kind, ...] = ("driver", "raylet", "gcs", "disk")  # no driver outlives it
PATIENCE_SECONDS = 180.0
LOOK_SECONDS = 0.05
AWAY_SECONDS = 4.0  # at most, before a service is begun again
JUMPS_SECONDS = (-86400, -3600, -30, 0, 30, 3600, 86400)
MOST_SESSIONS = 60


class StuckError(RuntimeError):
    """A study did not go on after a fault."""


@dataclass
class Done:
    """One fault: what it was, and what came of it."""

    kind: Kind
    seconds: float  # until something was measured again
    sessions: int  # further drivers that it took


@dataclass
class FaultyStudy:
    """A study and what is done to it.

    Args:
        drivers: Of the study.
        services: That may be killed.
        kinds: What may be done to it.
        random: Where chance comes from.
        so_far: How often each kind was done in the whole campaign.
        most: Faults that are still wanted.
        say: Hears of each.
    """

    drivers: Drivers
    services: Services | None
    kinds: tuple[Kind, ...]
    random: Random
    so_far: Counter[Kind]
    most: int
    say: Callable[[str], None]
    done: list[Done] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    _reviving: Thread | None = None

    def run(self) -> None:
        """Runs the study to its end.

        Raises:
            StuckError: It does not go on.
        """
        self.drivers.begin()
        try:
            while not self._has_ended():
                self._wait_for_moment()
                if not self._has_ended() and len(self.done) < self.most:
                    self._do(self._next_kind())
            self._settle()
        finally:
            self.drivers.end()
            if self._reviving is not None:
                self._reviving.join()

    def _has_ended(self) -> bool:
        return self.drivers.code() == 0

    def _wait_for_moment(self) -> None:
        """Lets a few measurements be made, and a little more time pass."""
        aim = self.drivers.measured() + self.random.randint(1, 6)
        since = time.monotonic()
        while self.drivers.measured() < aim and not self._has_ended():
            self._go_on_if_dead("while nothing was done to it")
            self._check_patience(since, "by itself")
            time.sleep(LOOK_SECONDS)
            if len(self.done) >= self.most:
                aim, since = 10**9, since if self.drivers.measured() else time.monotonic()
        time.sleep(self.random.uniform(0.0, 0.3))

    def _next_kind(self) -> Kind:
        """Which is furthest behind what it is to be done."""
        kinds = self.random.sample(self.kinds, len(self.kinds))
        return min(kinds, key=lambda kind: self.so_far[kind] / WEIGHTS[kind])

    def _do(self, kind: Kind) -> None:
        deeds: dict[Kind, Callable[[], bool]] = {
            "driver": lambda: self._kill([self.drivers.pid]),
            "actor": self._kill_trainer,
            "engine": self._kill_trainer,
            "raylet": lambda: self._kill(self.drivers.named("raylet")),
            "gcs": lambda: self._kill(self.drivers.named("gcs_server")),
            "mlflow": lambda: self._kill_service("mlflow"),
            "postgres": lambda: self._kill_service("postgres"),
            "disk": self._fill_disk,
            "clock": self._jump,
        }
        before, sessions, began = (
            self.drivers.measured(),
            self.drivers.sessions,
            time.monotonic(),
        )
        if not deeds[kind]():
            return
        self.so_far[kind] += 1
        self._wait_for(kind, before)
        seconds = time.monotonic() - began
        self.done.append(Done(kind, seconds, self.drivers.sessions - sessions))
        self.say(f"{kind}: {seconds:.1f} s, {self.drivers.sessions - sessions} further drivers")

    def _wait_for(self, kind: Kind, measured: int) -> None:
        since, sessions = time.monotonic(), self.drivers.sessions
        if kind in FATAL:  # what was on its way to the driver may still be recorded
            while not self._has_ended() and self.drivers.sessions == sessions:
                self._go_on_if_dead(None)
                self._check_patience(since, f"after {kind}, and its driver did not end")
                time.sleep(LOOK_SECONDS)
            measured = self.drivers.measured()
        while self.drivers.measured() <= measured and not self._has_ended():
            self._go_on_if_dead(None)
            self._check_patience(since, f"after {kind}")
            time.sleep(LOOK_SECONDS)

    def _go_on_if_dead(self, when: str | None) -> None:
        code = self.drivers.code()
        if code in (None, 0):
            return
        if when is not None:
            self.unexpected.append(f"a driver ended with {code} {when}: {self._last_words()}")
        if self.drivers.sessions >= MOST_SESSIONS:
            raise StuckError(f"it took more than {MOST_SESSIONS} drivers")
        self.drivers.begin()

    def _check_patience(self, since: float, when: str) -> None:
        if time.monotonic() - since > PATIENCE_SECONDS:
            raise StuckError(f"nothing was measured for {PATIENCE_SECONDS:g} s {when}")

    def _last_words(self) -> str:
        lines = self.drivers.log.read_text(errors="replace").strip().splitlines()
        return lines[-1][:300] if lines else ""

    def _kill(self, pids: list[int]) -> bool:
        for pid in pids:
            kill(pid)
        return bool(pids)

    def _kill_trainer(self) -> bool:
        """Of an actor or an engine; none whose trial would be given up by its own rule."""
        lost = Counter(event.run for event in self._since_progress())
        able = [
            pid
            for pid, runs in self.drivers.trainers().items()
            if all(lost[started.run] < MAX_FRUITLESS for started in runs)
        ]
        return self._kill([self.random.choice(able)]) if able else False

    def _since_progress(self) -> list[Retried]:
        found: dict[RunKey, list[Retried]] = {}
        for event in self.drivers.events():
            if isinstance(event, Retried):
                found.setdefault(event.run, []).append(event)
            elif event.event == "checkpointed":
                found.pop(event.run, None)
        return [event for lost in found.values() for event in lost]

    def _kill_service(self, which: str) -> bool:
        if self.services is None:
            return False
        if self._reviving is not None:
            self._reviving.join()
        services, away = self.services, self.random.uniform(0.0, AWAY_SECONDS)
        services.kill(which)

        def come_back() -> None:
            time.sleep(away)
            services.revive()

        self._reviving = Thread(target=come_back)
        self._reviving.start()
        return True

    def _fill_disk(self) -> bool:
        self.drivers.room.fill()
        since = time.monotonic()
        try:
            while self.drivers.code() is None:
                self._check_patience(since, "without room on its disk, and it did not stop")
                time.sleep(LOOK_SECONDS)
        finally:
            self.drivers.room.clear()
        if not self._has_ended() and "space" not in self.drivers.log.read_text(errors="replace"):
            self.unexpected.append(f"a full disk was not named: {self._last_words()}")
        return True

    def _jump(self) -> bool:
        clock = self.drivers.clock
        assert clock is not None
        now = int(clock.read_text())
        set_clock(clock, self.random.choice([j for j in JUMPS_SECONDS if j != now]))
        return True

    def _settle(self) -> None:
        """Delivers what MLflow did not take while it was away."""
        if self._reviving is not None:
            self._reviving.join()
        said = self.drivers.log.read_text(errors="replace").rpartition("--- session")[2]
        if "did not take" in said and (code := self.drivers.sync()):
            raise StuckError(f"search.sync ended with {code}: {self._last_words()}")
