"""One driver's turn at a study: from the plan on screen to its summary."""

import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Self

from cgan_core.model import BEST_FOLDER
from search.answers import told
from search.confirming import kept_back_at_pace, kept_back_seconds
from search.engine_seat import probed_pack
from search.estimate import Estimate
from search.events import (
    CloseReason,
    Event,
    Extended,
    Purpose,
    SessionClosed,
    SessionOpened,
)
from search.extension import note_on_time
from search.history import History
from search.journal import JournalError
from search.ledger import Ledger
from search.outcome import Closing, trial_flags
from search.pace import Pace
from search.pack import settled_pack
from search.parquet import RecordError
from search.phases import Phases
from search.plan import describe, describe_rest
from search.prepared import PreparedStudy, painter
from search.record import write_record
from search.room import TrialResources, fit_resources, packed, room_for_trials
from search.screen import Screen
from search.steering import take_up_extensions
from search.stop_request import StopRequest, StudyInterrupted
from search.time_left import TimeLeft
from search.tracking import Tracker
from search.tuner import run_trials

RECORD_SECONDS = 30.0
DELIVERY_SECONDS = 30.0  # patience with a tracking server at the end; --resume delivers the rest


@dataclass(frozen=True)
class Place:
    """What there is to run on: what a trial gets, and how many trials fit.

    Attributes:
        resources: Of one trial.
        concurrent: Trials at a time when the study began.
        most: The user's limit to that; None for none.
    """

    resources: TrialResources
    concurrent: int
    most: int | None = None

    def room(self) -> int:
        """How many trials fit now that machines may have joined or left."""
        return min(self.most or sys.maxsize, room_for_trials(self.resources))

    @classmethod
    def found(
        cls, prepared: PreparedStudy, ledger: Ledger, screen: Screen, max_concurrent: int | None
    ) -> Self:
        """Looks at the cluster, and says what is missing.

        Raises:
            ClusterError: if not even one trial fits, or a pack fits nowhere.
        """
        wanted = prepared.spec.resources
        resources, notice = fit_resources(
            TrialResources(wanted.cpus_per_trial, wanted.gpus_per_trial)
        )
        if notice:
            screen.say(f"NOTE: {notice}")
        pack = settled_pack(
            wanted.pack,
            resources.gpus,
            ledger.pack,
            lambda room: _probed_pack(prepared, room, screen),
        )
        resources = packed(resources, pack)
        room = room_for_trials(resources)
        if max_concurrent is not None and max_concurrent > room:
            screen.say(f"NOTE: only {room} trials fit at a time, not {max_concurrent}")
        return cls(resources, min(max_concurrent or room, room), max_concurrent)


def _probed_pack(prepared: PreparedStudy, room: int, screen: Screen) -> int:
    screen.say("trying how many trials a GPU trains best at a time, as soon as one is there")
    return probed_pack(prepared.make_runs(), prepared.first_trial(), room)


class Session:
    """One driver's turn at a study.

    Args:
        prepared: the study with its data.
        history: its record; this process writes it.
        tracker: not opened yet.
        screen: where progress is told.
        place: what there is to run on.
        look_again: whether the winner is scored on the test set though one was before.
    """

    def __init__(
        self,
        prepared: PreparedStudy,
        history: History,
        tracker: Tracker,
        screen: Screen,
        place: Place,
        *,
        look_again: bool = False,
    ) -> None:
        self._look_again = look_again
        self._prepared, self._history, self._tracker = prepared, history, tracker
        self._screen, self._place, self._spec = screen, place, prepared.spec
        self._recorded = time.monotonic()
        self._begun = False
        self._pace = Pace()

    def run(self, extension: SessionOpened) -> dict[str, Any]:
        """Runs what is left of the study, and returns its summary.

        Raises:
            StudyInterrupted: at SIGINT or SIGTERM.
        """
        place = self._place
        concurrent = min(place.concurrent, self._spec.budget.trials)
        cost = self._prepared.estimate(concurrent, place.resources.pack)
        if not self._history.ledger.sessions:
            for line in describe(self._spec, cost, on_gpus=place.resources.gpus > 0):
                self._screen.say(line)
        self._lines = self._prepared.lines()
        try:
            self._open(extension, cost)
            return self._run_and_close(cost)
        except BaseException as error:
            self._put_down("interrupted" if isinstance(error, KeyboardInterrupt) else "failed")
            raise
        finally:
            try:
                if self._begun:
                    self._write_record()
            finally:
                self._tracker.close(DELIVERY_SECONDS)

    def _put_down(self, reason: CloseReason) -> None:
        if self._begun and self._history.ledger.session_open:
            # A journal that failed, or was interrupted in a write, takes no more; what stopped
            # the study is the news, not that.
            with suppress(JournalError, RecordError):
                self._history.append(SessionClosed(reason=reason))

    def _open(self, extension: SessionOpened, cost: Estimate) -> None:
        history = self._history
        if history.ledger.study is None:
            opened = self._prepared.opened()
            self._prepared.write_study(opened, self._lines)
            history.append(opened)
        assert history.ledger.study is not None
        resumed = bool(history.ledger.sessions)
        history.append(extension)
        self._begun = True
        answers = take_up_extensions(self._spec, history)
        for answer in answers:
            self._screen.say(told(answer))
        longer = any(isinstance(answer, Extended) and answer.seconds for answer in answers)
        if (longer or extension.extra_seconds) and (
            note := note_on_time(self._spec, history.ledger)
        ):
            self._screen.say(f"NOTE: {note}")
        left = TimeLeft(self._spec, history.ledger, cost, self._seconds_left())
        if resumed:
            seconds = left.seconds(0.0, {})
            self._screen.say(describe_rest(self._spec, history.ledger, cost.concurrent, seconds))
        flags = partial(self._lines.flags_of, self._spec)
        self._screen.watch(self._spec, history.ledger, left, flags)
        for listener in (
            self._pace.take,
            self._tracker.handle,
            self._screen.event,
            self._record_now_and_then,
        ):
            history.listen(listener)
        drawn = painter(
            self._spec,
            history.folder,
            history.ledger.study,
            self._prepared.dataset,
            self._lines,
        )
        self._tracker.open(history.ledger, drawn)

    def _run_and_close(self, cost: Estimate) -> dict[str, Any]:
        history, prepared = self._history, self._prepared
        phases = Phases(
            self._spec,
            history,
            self._lines,
            self._run_phase,
            seconds_left=self._seconds_left,
            kept_back=partial(self._kept_back, cost),
            say=self._screen.say,
        )
        try:
            cut = phases.run()
        except StudyInterrupted:
            self._screen.status()
            raise
        self._tracker.flush(DELIVERY_SECONDS)  # so that the summary has every run's ID
        closing = Closing(self._spec, history, prepared.evaluator, self._lines, self._screen.say)
        summary = closing.write(
            self._tracker.run_ids, self._tracker.uri, look_again=self._look_again
        )
        best = prepared.output / BEST_FOLDER if summary["best"] else None
        self._tracker.log_outcome(summary, best)
        history.append(SessionClosed(reason="time_budget" if cut else "finished"))
        return summary

    def _run_phase(self, stop: StopRequest, purpose: Purpose) -> None:
        run_trials(
            self._spec,
            self._history,
            self._prepared.make_runs(),
            self._prepared.output,
            max_concurrent=self._place.room,
            stop=stop,
            resources=self._place.resources,
            on_progress=self._screen.progress,
            on_turn=self._screen.waiting,
            purpose=purpose,
            earlier=self._prepared.earlier,
        )

    def _seconds_left(self) -> float | None:
        limit = self._spec.budget.time
        if limit is None:
            return None
        ledger = self._history.ledger
        return max(0.0, limit + ledger.extra_seconds - ledger.spent_seconds)

    def _kept_back(self, cost: Estimate) -> float:
        pace = self._pace.seconds_per_kimg
        if pace is None:
            return kept_back_seconds(self._spec, cost)
        return kept_back_at_pace(self._spec, pace, self._place.room())

    def _record_now_and_then(self, event: Event) -> None:
        if time.monotonic() - self._recorded >= RECORD_SECONDS:
            self._write_record()

    def _write_record(self) -> None:
        self._recorded = time.monotonic()
        ledger, protocol = self._history.ledger, self._prepared.protocol
        write_record(
            ledger,
            self._prepared.output,
            protocol.dataset_digest,
            protocol.digest,
            self._tracker.run_ids,
            metric=self._spec.objective.metric,
            direction=self._spec.objective.direction,
            flags=trial_flags(self._spec, ledger, self._lines),
        )
