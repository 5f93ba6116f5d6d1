"""A journal folded again, each proposal and decision asked for anew where it was made."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from search import confirming, racing
from search.early_stopping import EarlyStopping, early_stopping
from search.events import (
    ConfirmationOpened,
    Ended,
    Event,
    Measured,
    Paused,
    Promoted,
    Proposed,
    RaceOpened,
    Replicated,
    Retried,
    RunKey,
    SessionOpened,
)
from search.hyperband import Hyperband
from search.judgement import Judgement, Kind
from search.ledger import Ledger
from search.lines import Lines
from search.median import MedianStopping
from search.proposer import Proposer
from search.scheduling import Halving
from search.seen_trial import SeenTrial
from search.shadow import shadow_claims
from search.study import StudySpec
from search.waiting import Decision

# What was measured again, by run and kimg.
Remeasured = Mapping[tuple[RunKey, float], Mapping[str, float]]

_RULES = frozenset({Halving.name, Hyperband.name, MedianStopping.name})
_GO_ON, _PAUSE = "goes on", "pauses"
_NOBODY = "nobody promoted"
_PLACES = "waits or goes on"


@dataclass(frozen=True)
class _Ruling:
    """What may follow the measurement on a line: one thing, or several that places decide."""

    line: int
    allowed: tuple[str, ...]


class Refold:
    """Takes in the events of a study in their order and judges each on the ledger before it.

    Taken as given, and counted: what a driver that was killed or interrupted left undone, ends
    by the clock or on request, and whether a run waits for its siblings where that hung on who
    else wanted its place. Not counted: the order of events, faults of machines, and when a phase
    begins.

    Args:
        spec: The study's.
        folder: Where the points of rungs lie, for a paired rule.
        remeasured: Takes the place of recorded metrics where it has them.
        lines: The study's; without them its races and confirmations are taken as given.
        earlier: Trials that its models were told of beforehand.

    Attributes:
        judgements: Those so far; of decisions, once their consequence is on record.
        given: How often something was taken as given, by what it was.
    """

    def __init__(
        self,
        spec: StudySpec,
        folder: Path,
        remeasured: Remeasured,
        lines: Lines | None = None,
        earlier: Sequence[SeenTrial] = (),
    ) -> None:
        self.judgements: list[Judgement] = []
        self.given: Counter[str] = Counter()
        self._spec, self._lines = spec, lines
        self._proposer = Proposer(spec, earlier)
        self._rules = early_stopping(spec, folder) or EarlyStopping(rule=None)
        self._remeasured = remeasured
        self._ledger = Ledger()
        self._rulings: dict[RunKey, _Ruling] = {}
        self._promoted = False  # by the event before

    def take(self, line: int, event: Event) -> None:
        """Judges an event and takes it in.

        Raises:
            LedgerError: It cannot follow.
        """
        self._ledger.check(event)
        match event:
            case SessionOpened():
                self.given["interrupted"] += len(self._rulings)
                self._rulings.clear()
            case Proposed() if event.request is not None:
                self.given["requested"] += 1
            case Proposed(stage="exploit") | Promoted() | Ended(reason="pbt" | "pb2"):
                self._judge_decision(line, event)
            case Proposed():
                self._judge_proposal(line, event)
            case RaceOpened() | ConfirmationOpened() if self._lines:
                self._judge_opening(line, event, self._lines)
            case Replicated():
                self._judge_claim(line, event)
            case RaceOpened() | ConfirmationOpened():
                self.given[event.event] += 1
            case Measured() | Paused() | Retried() | Ended():
                self._judge_ruling(line, event)
        if isinstance(event, Measured):
            event = self._measured_again(event)
        self._ledger.apply(event)
        self._promoted = isinstance(event, Promoted)
        if isinstance(event, Measured):
            self._rule(line, event.run)

    def _judge_proposal(self, line: int, event: Proposed) -> None:
        # A place goes to a promoted trial first. Of one that has not left its place yet it
        # comes back, and then to a new trial without a second promotion.
        waiting = self._rules.waiting
        if waiting is not None and waiting.strict and not self._promoted:
            self._judge("decision", line, "the next place", _NOBODY, (self._decision(),))
        now = self._proposer.propose(self._ledger)
        told = "no proposal" if now is None else _configuration(now)
        self._judge("proposal", line, f"trial {event.number}", _configuration(event), (told,))

    def _judge_decision(self, line: int, event: Decision) -> None:
        now = self._decision(last=True)
        self._judge("decision", line, "the next place", _named(event), (now,))

    def _judge_opening(
        self, line: int, event: RaceOpened | ConfirmationOpened, lines: Lines
    ) -> None:
        now: RaceOpened | ConfirmationOpened | None
        if isinstance(event, RaceOpened):
            now = racing.opening(self._spec, self._ledger, lines)
        else:  # what the clock did is taken as given
            now = confirming.opening(
                self._spec, self._ledger, lines, out_of_time=event.out_of_time
            )
        self._judge("decision", line, "the next phase", _fields(event), (_fields(now),))

    def _judge_claim(self, line: int, event: Replicated) -> None:
        claims = {
            "race": racing.claims,
            "confirmation": confirming.claims,
            "shadow": shadow_claims,
        }
        now = next(iter(claims[event.purpose](self._spec, self._ledger)), None)
        subject = f"the next run of a {event.purpose}"
        self._judge("decision", line, subject, _fields(event), (_fields(now),))

    def _decision(self, *, last: bool = False) -> str:
        waiting = self._rules.waiting
        if waiting is None:
            return _NOBODY
        named = waiting.decision(self._ledger)
        return _named(named or (waiting.last_decision(self._ledger) if last else None))

    def _rule(self, line: int, key: RunKey) -> None:
        """Asks the rules about a run that was just measured, as `Referee` does."""
        run = self._ledger.run(key)
        if run.purpose != "search" or run.total_kimg >= self._spec.budget.kimg_per_trial:
            return  # nobody is asked
        reason = self._ledger.trials[key.number].stop_reason or self._falls_behind(key.number)
        waiting = self._rules.waiting
        if reason is None and waiting is None and self._rules.rule is None:
            return
        if reason is not None:
            allowed: tuple[str, ...] = (_stops(reason),)
        elif waiting is None or not waiting.waits(run, self._ledger):
            allowed = (_GO_ON,)
        elif waiting.strict or self._proposer.has_more(self._ledger):
            allowed = (_PAUSE,)
        else:
            allowed = (_PAUSE, _GO_ON)
        self._rulings[key] = _Ruling(line, allowed)

    def _falls_behind(self, number: int) -> str | None:
        rule = self._rules.rule
        if rule is None or rule.rung_to_stop_at(number, self._ledger.trials) is None:
            return None
        return rule.name

    def _judge_ruling(self, line: int, event: Measured | Paused | Retried | Ended) -> None:
        ruling = self._rulings.pop(event.run, None)
        if isinstance(event, Ended) and event.state == "STOPPED":
            self._judge_stop(line, event, ruling)
        elif ruling is not None:
            recorded = _PAUSE if isinstance(event, Paused) else _GO_ON
            self._judge("decision", ruling.line, self._place(event.run), recorded, ruling.allowed)

    def _judge_stop(self, line: int, event: Ended, ruling: _Ruling | None) -> None:
        reason = event.reason or "stopped"
        before = self._ledger.trials[event.number].stop_reason  # by another of its runs
        if reason == "time_budget" or (reason not in _RULES and reason != before):
            self.given[reason] += 1
            return
        if ruling is None or (before is not None and _stops(reason) not in ruling.allowed):
            now = _stops(before) if before is not None else self._without_a_turn(event.run)
            ruling = _Ruling(line, (now,))
        place = self._place(event.run)
        self._judge("decision", ruling.line, place, _stops(reason), ruling.allowed)

    def _without_a_turn(self, key: RunKey) -> str:
        """What becomes of a run when the search ends, or a driver takes over from a killed one."""
        behind = self._falls_behind(key.number)
        if behind is not None:
            return _stops(behind)
        waiting = self._rules.waiting
        if waiting is None or not waiting.strict:
            return _GO_ON
        waits = waiting.waits(self._ledger.run(key), self._ledger)
        over = waits and self._decision(last=True) == _NOBODY
        return _stops(Halving.name) if over else _GO_ON

    def _measured_again(self, event: Measured) -> Measured:
        again = self._remeasured.get((event.run, event.kimg), {})
        metrics = {name: again.get(name, value) for name, value in event.metrics.items()}
        return event.model_copy(update={"metrics": metrics})

    def _place(self, key: RunKey) -> str:
        which = f", replicate {key.replicate}," if key.replicate else ""
        return f"trial {key.number}{which} at {self._ledger.run(key).total_kimg:g} kimg"

    def _judge(
        self, kind: Kind, line: int, subject: str, recorded: str, allowed: tuple[str, ...]
    ) -> None:
        if len(allowed) > 1 and recorded in allowed:
            self.given[_PLACES] += 1
            return
        now = " or ".join(allowed)
        self.judgements.append(
            Judgement(kind=kind, line=line, subject=subject, recorded=recorded, now=now)
        )


def _stops(reason: str) -> str:
    return f"stops ({reason})"


def _named(decided: Decision | None) -> str:
    if decided is None:
        return _NOBODY
    if isinstance(decided, Proposed):
        return f"trial {decided.number}: {_configuration(decided)}"
    if isinstance(decided, Ended):
        return f"trial {decided.number} {_stops(decided.reason or 'stopped')}"
    return f"trial {decided.number} promoted from {decided.kimg:g} kimg"


def _fields(event: RaceOpened | ConfirmationOpened | Replicated | None) -> str:
    return "none" if event is None else event.model_dump_json(exclude={"at", "session_seconds"})


def _configuration(proposed: Proposed) -> str:
    """All of a proposal, to the last digit."""
    params = json.dumps(proposed.params, sort_keys=True)
    seeds = " ".join(map(str, (proposed.seed, *proposed.further_seeds)))
    folds = f", {proposed.folds} folds" if proposed.folds > 1 else ""
    donor = f", from {proposed.donor.model_dump_json()}" if proposed.donor else ""
    return f"{proposed.stage} (stage {proposed.stage_index}) {params}, seeds {seeds}{folds}{donor}"
