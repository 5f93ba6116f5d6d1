"""Faults done to studies at random: nothing may be lost, doubled, changed, or told otherwise.

python -m benchmarks.faults [--kills 100] [--seed 0] [--kinds driver,actor] [--json] [--keep DIR]

Short studies of trainings by a formula, each killed several times and gone on with to its end,
are held against the same study undisturbed: journal, Parquet and MLflow.
"""

import argparse
import json
import shutil
import signal
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from benchmarks.fault_checks import Findings, findings
from benchmarks.fault_room import Room, can_have_disks, room
from benchmarks.fault_session import Drivers, has_faketime
from benchmarks.fault_study import KINDS, Done, FaultyStudy, Kind, StuckError
from benchmarks.fault_tracking import Services, services, tracked_runs
from cgan_core.streams import derive_seed
from search.events import Event, Retried, StudyOpened
from search.record import read_measurements, read_runs

SERVICES: tuple[Kind, ...] = ("mlflow", "postgres")
# What a study can be gone through with only where it is of that shape.
SHAPES: tuple[tuple[Kind, ...], ...] = (("actor",), ("engine",), ("actor", "clock"))
PACK = 2


@dataclass
class Tally:
    """What was done in all, and what came of it."""

    done: list[Done] = field(default_factory=list)
    studies: int = 0
    sessions: int = 0
    retries: Counter[str] = field(default_factory=Counter)
    wrong: dict[str, list[str]] = field(
        default_factory=lambda: {
            name: [] for name, _ in [*Findings(), ("stuck", []), ("unexpected", [])]
        }
    )

    def take(self, name: str, study: FaultyStudy, events: Sequence[Event]) -> None:
        """Adds a study."""
        self.studies += 1
        self.sessions += study.drivers.sessions
        self.done += study.done
        self.retries.update(str(e.kind) for e in events if isinstance(e, Retried))
        self.add("unexpected", name, study.unexpected)

    def add(self, what: str, name: str, problems: Sequence[str]) -> None:
        """Notes what is wrong with a study."""
        self.wrong[what] += [f"{name}: {problem}" for problem in problems]

    def report(self) -> dict[str, Any]:
        """What `--json` prints."""
        kinds = {kind: [one for one in self.done if one.kind == kind] for kind in KINDS}
        return {
            "kills": len(self.done),
            **{what: len(problems) for what, problems in self.wrong.items()},
            "studies": self.studies,
            "sessions": self.sessions,
            "retries": dict(self.retries),
            "kinds": {
                kind: {
                    "kills": len(done),
                    "sessions": sum(one.sessions for one in done),
                    "median_seconds": statistics.median(one.seconds for one in done),
                    "most_seconds": max(one.seconds for one in done),
                }
                for kind, done in kinds.items()
                if done
            },
            "findings": {what: problems for what, problems in self.wrong.items() if problems},
        }


@dataclass(frozen=True)
class Campaign:
    """What all studies of a campaign share."""

    folder: Path
    kinds: tuple[Kind, ...]
    services: Services | None
    seconds: float
    keep: Path | None

    @property
    def uri(self) -> str | None:
        """Where the studies are tracked; None for the services."""
        return None if self.services else f"sqlite:///{self.folder}/mlflow.db"

    def undisturbed(self) -> list[Event]:
        """Runs a study to its end, and returns its journal."""
        with self._drivers("undisturbed", 1, clock=False) as drivers:
            study = FaultyStudy(drivers, None, (), Random(0), Counter(), 0, _say)
            study.run()
            return drivers.events()

    def disturb(
        self, index: int, most: int, random: Random, undisturbed: Sequence[Event], tally: Tally
    ) -> None:
        """Takes one study through faults, and looks what came of it."""
        shape = SHAPES[index % len(SHAPES)]
        special = {kind for kinds in SHAPES for kind in kinds} - {*shape}
        kinds = tuple(kind for kind in self.kinds if kind not in special)
        pack, name = (PACK if "engine" in shape else 1), f"study-{index:03d}"
        so_far = Counter(one.kind for one in tally.done)
        with self._drivers(name, pack, clock="clock" in kinds) as drivers:
            study = FaultyStudy(drivers, self.services, kinds, random, so_far, most, _say)
            try:
                study.run()
                for what, problems in self._findings(drivers, undisturbed):
                    tally.add(what, name, problems)
            except StuckError as stuck:
                tally.add("stuck", name, [str(stuck)])
            finally:
                tally.take(name, study, drivers.events())
                if self.keep is not None:
                    self._keep_study(name, drivers.room)

    def _findings(self, drivers: Drivers, undisturbed: Sequence[Event]) -> Findings:
        events, folder = drivers.events(), drivers.room.seen
        opened = next(event for event in events if isinstance(event, StudyOpened))
        tracked = tracked_runs(self.uri, opened.study_id)
        records = read_runs(folder), read_measurements(folder)
        return findings(events, undisturbed, *records, tracked)

    @contextmanager
    def _drivers(self, name: str, pack: int, *, clock: bool) -> Iterator[Drivers]:
        with room(self.folder / name, disk="disk" in self.kinds) as where:
            yield Drivers(
                where,
                pack=pack,
                clock=self.folder / f"{name}.clock" if clock else None,
                log=self.folder / f"{name}.log",
                temporary=self.folder / "r",
                uri=self.uri,
                seconds=self.seconds,
            )

    def _keep_study(self, name: str, where: Room) -> None:
        assert self.keep is not None
        unwanted = shutil.ignore_patterns("tune")
        shutil.copytree(where.seen, self.keep / name, ignore=unwanted, dirs_exist_ok=True)
        shutil.copy(self.folder / f"{name}.log", self.keep)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the campaign; returns 1 where anything was wrong."""
    options = _options(arguments)
    began, tally = time.monotonic(), Tally()
    random = Random(derive_seed("faults", options.seed))
    with ExitStack() as stack:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # what is below is cleaned up
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="cgan-faults-")))
        (folder / "r").mkdir()
        served = {*options.kinds} & {*SERVICES}
        pair = stack.enter_context(services() if served else nullcontext())
        campaign = Campaign(folder, options.kinds, pair, options.seconds, options.keep)
        undisturbed = campaign.undisturbed()
        index = 0
        while len(tally.done) < options.kills and not tally.wrong["stuck"]:
            left = options.kills - len(tally.done)
            campaign.disturb(index, left, random, undisturbed, tally)
            index += 1
            _say(f"{len(tally.done)} faults in {tally.studies} studies")
    found = {**tally.report(), "seed": options.seed, "seconds": time.monotonic() - began}
    print(json.dumps(found) if options.json else table(found))
    return 1 if found["findings"] else 0


def _say(line: str) -> None:
    sys.stderr.write(line + "\n")


def table(found: dict[str, Any]) -> str:
    """What `main` prints without `--json`."""
    lines = [f"{'kind':10s} {'faults':>6s} {'drivers':>8s} {'median s':>9s} {'most s':>7s}"]
    for kind, row in found["kinds"].items():
        numbers = f"{row['median_seconds']:9.1f} {row['most_seconds']:7.1f}"
        lines.append(f"{kind:10s} {row['kills']:6d} {row['sessions']:8d} {numbers}")
    lines.append(
        f"{found['kills']} faults in {found['studies']} studies of {found['sessions']} drivers, "
        f"{found['seconds']:.0f} s; retries: {found['retries'] or 'none'}"
    )
    lines.append(", ".join(f"{found[what]} {what}" for what in (*vars(Findings()), "stuck")))
    for what, problems in found["findings"].items():
        lines += [f"{what}: {problem}" for problem in problems]
    return "\n".join(lines)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", default=",".join(KINDS), help="some of %(default)s")
    parser.add_argument("--seconds", type=float, default=0.5, help="between measurements")
    parser.add_argument("--keep", type=Path, help="where journals and logs are left")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    options.kinds = tuple(options.kinds.split(","))
    if unknown := {*options.kinds} - {*KINDS}:
        parser.error(f"--kinds: must be some of {', '.join(KINDS)}, but got {', '.join(unknown)}")
    if "disk" in options.kinds and not can_have_disks():
        parser.error("--kinds: disk needs root, unshare and nsenter; leave it out")
    if "clock" in options.kinds and not has_faketime():
        parser.error("--kinds: clock needs Debian's package libfaketime; leave it out")
    if options.keep is not None:
        options.keep.mkdir(parents=True, exist_ok=True)
    return options


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
