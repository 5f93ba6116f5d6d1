"""A study in virtual time: thousands of workers replay learning curves in seconds."""

import heapq
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

from search.domains import Params
from search.learning_curves import LearningCurve, LearningCurves
from search.pruners import Pruner

SimulatedState = Literal["RUNNING", "PAUSED", "COMPLETED", "STOPPED", "INFEASIBLE"]

SECONDS_PER_HOUR = 3600.0
BEST_SHARE = 0.01
"""To stop a trial of the best so many, by truth, is a false kill."""


class Sampler(Protocol):
    """Proposes the configurations of a simulated study."""

    def propose(self, number: int, trials: Mapping[int, "SimulatedTrial"]) -> Params:
        """Returns the parameters of a trial, from all trials before it."""
        ...


@dataclass(kw_only=True, slots=True)
class SimulatedTrial:
    """One trial in virtual time; `curve` is let go at its end.

    Attributes:
        params: Its parameters.
        truth: What they are worth in full, without noise if known.
        curve: What it would measure.
        state: Where it stands.
        measured: How many points of the curve are known.
        best: The best of them.
        kimg: Training so far.
        seconds: Its device's time so far.
    """

    params: Params
    truth: float
    curve: LearningCurve | None
    state: SimulatedState = "RUNNING"
    measured: int = 0
    best: float = -math.inf
    kimg: float = 0.0
    seconds: float = 0.0


@dataclass(kw_only=True)
class Outcome:
    """What a simulated study came to.

    Attributes:
        trials: All of them, by number.
        optimum: The best truth that there is.
        seconds: Virtual time from the first start to the last measurement.
        measurements: How many there were.
        incumbents: Pairs of virtual seconds and the regret in nats of the trial that had the
            best measured value from then on.
        cut_short: Whether the time was over before the trials were.
    """

    trials: dict[int, SimulatedTrial]
    optimum: float
    seconds: float = 0.0
    measurements: int = 0
    incumbents: list[tuple[float, float]] = field(default_factory=list)
    cut_short: bool = False

    @property
    def regret(self) -> float:
        """How much worse than the optimum the winner truly is, in nats."""
        return self.incumbents[-1][1] if self.incumbents else math.inf

    @property
    def device_hours(self) -> float:
        """Time of all devices that trained."""
        return math.fsum(t.seconds for t in self.trials.values()) / SECONDS_PER_HOUR

    @property
    def false_kills(self) -> tuple[int, int]:
        """How many of the best trials by truth did not reach their end, and how many those are."""
        ranked = sorted((t.truth for t in self.trials.values()), reverse=True)
        least = ranked[max(1, round(BEST_SHARE * len(ranked))) - 1]
        best = [t for t in self.trials.values() if t.truth >= least]
        return sum(t.state in ("STOPPED", "PAUSED") for t in best), len(best)

    def count(self, state: SimulatedState) -> int:
        """How many trials are in a state."""
        return sum(trial.state == state for trial in self.trials.values())

    def regret_at(self, seconds: float) -> float:
        """The regret of who led at a virtual time, infinite before the first measurement."""
        regret = math.inf
        for at, value in self.incumbents:
            if at > seconds:
                break
            regret = value
        return regret

    @property
    def mean_regret(self) -> float:
        """Anytime regret: the mean over virtual time from the first measurement on, in nats."""
        if not self.incumbents or self.incumbents[0][0] >= self.seconds:
            return self.regret
        ends = [at for at, _ in self.incumbents[1:]] + [self.seconds]
        area = math.fsum(
            (end - at) * regret for (at, regret), end in zip(self.incumbents, ends, strict=True)
        )
        return area / (self.seconds - self.incumbents[0][0])


class Simulation:
    """Runs a study of a number of trials on a number of workers, one event after the other.

    A worker that is free takes a paused trial that the pruner wants further, else a new one. All
    that is random lies in the curves and the sampler. Of events at one time the one of the
    lowest trial is first.

    Args:
        curves: What each trial would measure.
        sampler: What is tried.
        pruner: Who goes on.
        workers: How many trials train at a time.
        num_trials: How many there are in all.
        limit_seconds: Virtual time after which everything ends; None is none.
    """

    def __init__(
        self,
        curves: LearningCurves,
        sampler: Sampler,
        pruner: Pruner,
        *,
        workers: int,
        num_trials: int,
        limit_seconds: float | None = None,
    ) -> None:
        self._curves, self._sampler, self._pruner = curves, sampler, pruner
        self._workers, self._num_trials = workers, num_trials
        self._limit = math.inf if limit_seconds is None else limit_seconds
        self._events: list[tuple[float, int]] = []
        self._leader: int | None = None
        self._outcome = Outcome(trials={}, optimum=curves.optimum)

    def run(self) -> Outcome:
        """Runs it to its end."""
        outcome = self._outcome
        self._employ(0.0)
        while self._events and self._events[0][0] <= self._limit:
            now, number = heapq.heappop(self._events)
            outcome.seconds = now
            self._advance(now, number, outcome.trials[number])
            if len(self._events) < self._workers:
                self._employ(now)
        outcome.cut_short = bool(self._events)
        for trial in outcome.trials.values():
            if trial.state == "RUNNING":  # the time is over
                trial.state, trial.curve = "STOPPED", None
        return outcome

    def _employ(self, now: float) -> None:
        """Gives free workers something to do, as far as there is."""
        trials = self._outcome.trials
        while len(self._events) < self._workers:
            number = self._pruner.resumed()
            if number is None and self._last_promotion_is_due():
                number = self._pruner.resumed(last=True)
            if number is not None:
                trials[number].state = "RUNNING"
            elif len(trials) < self._num_trials:
                number = len(trials)
                params = self._sampler.propose(number, trials)
                curve = self._curves.curve(number, params)
                trials[number] = SimulatedTrial(params=params, truth=curve.truth, curve=curve)
            else:
                return
            self._schedule(now, number, trials[number])

    def _last_promotion_is_due(self) -> bool:
        """Whether all is over but for the one trial in full that the real search sees to."""
        outcome = self._outcome
        ended = not self._events and len(outcome.trials) == self._num_trials
        return ended and not outcome.count("COMPLETED")

    def _schedule(self, now: float, number: int, trial: SimulatedTrial) -> None:
        curve = trial.curve
        assert curve is not None
        # A curve that breaks off does so where it was measured last.
        left = trial.measured < len(curve.seconds)
        until = curve.seconds[trial.measured] if left else trial.seconds
        heapq.heappush(self._events, (now + (until - trial.seconds), number))

    def _advance(self, now: float, number: int, trial: SimulatedTrial) -> None:
        curve, place = trial.curve, trial.measured
        assert curve is not None
        if place == len(curve.values):
            self._end(now, number, trial, "INFEASIBLE")
            return
        value = curve.values[place]
        trial.kimg, trial.seconds, trial.measured = (
            curve.kimg[place],
            curve.seconds[place],
            place + 1,
        )
        self._outcome.measurements += 1
        if value > trial.best:
            trial.best = value
            self._lead(now, number, trial)
        verdict = self._pruner.measured(number, trial.kimg, value)
        if trial.measured == len(curve.values) and not curve.infeasible:
            self._end(now, number, trial, "COMPLETED")
        elif verdict == "stop":
            self._end(now, number, trial, "STOPPED")
        elif verdict == "pause":
            trial.state = "PAUSED"
        else:
            self._schedule(now, number, trial)

    def _lead(self, now: float, number: int, trial: SimulatedTrial) -> None:
        leader = self._leader
        if leader is None or self._rank(number) > self._rank(leader):
            self._crown(now, number)

    def _rank(self, number: int) -> tuple[float, int]:
        return self._outcome.trials[number].best, -number  # of equals the lowest, as in the ledger

    def _crown(self, now: float, number: int | None) -> None:
        self._leader = number
        truth = -math.inf if number is None else self._outcome.trials[number].truth
        regret = self._outcome.optimum - truth
        if not self._outcome.incumbents or self._outcome.incumbents[-1][1] != regret:
            self._outcome.incumbents.append((now, regret))

    def _end(self, now: float, number: int, trial: SimulatedTrial, state: SimulatedState) -> None:
        trial.state, trial.curve = state, None
        if state != "INFEASIBLE":
            return
        self._pruner.broke(number)
        if number == self._leader:
            trials = self._outcome.trials.items()
            left = [n for n, t in trials if t.state != "INFEASIBLE" and t.measured]
            self._crown(now, max(left, key=self._rank, default=None))
