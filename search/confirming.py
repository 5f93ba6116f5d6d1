"""The confirmation of a study: which trials, trained how, and what came of it."""

import math
from typing import Any

from search.confirmation import Confirmation, confirm
from search.estimate import Estimate
from search.events import ConfirmationOpened, Replicated
from search.ledger import Ledger
from search.lines import Lines
from search.proposer import trial_seed
from search.redraw import REDRAWS
from search.run_state import RunState
from search.study import StudySpec
from search.winners_curse import upper_spread, winners_curse

MOST_KEPT_BACK = 0.5  # of the time budget


def opening(
    spec: StudySpec, ledger: Ledger, lines: Lines, *, out_of_time: bool = False
) -> ConfirmationOpened | None:
    """What ends the search and begins the confirmation of the best trials.

    None where that was done and nothing has been added since, or nobody is to be confirmed. Where
    all of the best diverged on a fresh seed, it begins again with the next in rank beside them,
    until one is whole. So it does after an extension, for others may be the best then; trials that
    were confirmed before keep what they have.

    Args:
        spec: the study.
        ledger: all that happened.
        lines: validation lines.
        out_of_time: whether the time budget ended the search.
    """
    objective = spec.objective
    ranking = ledger.ranking(
        objective.metric, objective.direction, lines.untrained, objective.bounds
    )
    ended = [trial for trial in ranking if trial.state != "RUNNING"]
    whole = (place for place, trial in enumerate(ended, start=1) if not trial.refuted)
    count = max(spec.confirm.top, next(whole, len(ended)))
    best = tuple(trial.number for trial in ended[:count])
    if not best or not spec.confirm.seeds:
        return None
    if ledger.search_over and ledger.confirmation and ledger.confirmation.numbers == best:
        return None
    return ConfirmationOpened(numbers=best, seeds=spec.confirm.seeds, out_of_time=out_of_time)


def claims(spec: StudySpec, ledger: Ledger) -> list[Replicated]:
    """The runs that a confirmation still lacks; one that the clock cut off is made anew.

    The seed with index j of each trial is evaluated with one and the same noise, which the search
    has not used: differences between trials are paired, and no generator was chosen by it.
    """
    if ledger.confirmation is None:
        return []
    lacking = []
    for number in ledger.confirmation.numbers:
        trial = ledger.trials[number]
        had = {run.noise_draw for run in trial.confirmations if not run.cut_off}
        draws = [draw for draw in range(1, ledger.confirmation.seeds + 1) if draw not in had]
        lacking += [
            Replicated(
                number=number,
                replicate=replicate,
                purpose="confirmation",
                seed=trial_seed(spec.seed, number, replicate),
                noise_draw=draw,
            )
            for replicate, draw in enumerate(draws, start=len(trial.runs))
        ]
    return lacking


def confirmed(spec: StudySpec, ledger: Ledger) -> Confirmation | None:
    """What the confirmation says of the trials of which a run came to its end; None before any.

    A run is at its best where its own course says; its score there is that of a second set of
    samples, by which that place was not chosen (`search.redraw`). One that diverged counts as
    minus infinity; one that was cut off by the clock or by a machine says nothing.
    """
    if ledger.confirmation is None:
        return None
    sign = 1.0 if spec.objective.direction == "maximize" else -1.0
    scores = {}
    for number in ledger.confirmation.numbers:
        ended = {
            run.noise_draw: score
            for run in ledger.trials[number].confirmations
            if (score := _score(run, spec)) is not None
        }
        if ended:
            scores[number] = {draw: sign * score for draw, score in ended.items()}
    if not scores:
        return None
    try:
        return confirm(scores)
    except ValueError:  # the clock left too few seeds to compare by
        return None


def kept_back_seconds(spec: StudySpec, cost: Estimate) -> float:
    """How much of the time budget the search leaves to the confirmation, at most half of it."""
    return _kept_back(spec, cost.processes, cost.trial_seconds)


def kept_back_at_pace(spec: StudySpec, seconds_per_kimg: float, room: int) -> float:
    """The same once it is known how fast runs train, of which so many have room at a time."""
    return _kept_back(spec, room, spec.budget.kimg_per_trial * seconds_per_kimg)


def _kept_back(spec: StudySpec, at_a_time: int, trial_seconds: float) -> float:
    rounds = math.ceil(spec.confirm.top * spec.confirm.seeds / at_a_time)
    wanted = rounds * trial_seconds
    return wanted if spec.budget.time is None else min(wanted, MOST_KEPT_BACK * spec.budget.time)


def expected_curse(spec: StudySpec, ledger: Ledger, confirmation: Confirmation) -> float | None:
    """How much the best score of the search is expected to promise too much, in its units.

    The noise of a search score is that of a training, as the fresh seeds show it, over the root of
    the runs that were averaged. Who was stopped took no part in the final. None where one trial
    alone was confirmed, so that nothing tells the noise.
    """
    metric, direction = spec.objective.metric, spec.objective.direction
    sign = 1.0 if direction == "maximize" else -1.0
    whole = [
        scored
        for trial in ledger.trials.values()
        if trial.state == "COMPLETED" and (scored := trial.objective(metric, direction))
    ]
    if confirmation.noise is None or not whole:
        return None
    noise = confirmation.noise / whole[0].replicates ** 0.5
    spread = upper_spread([sign * scored.value for scored in whole])
    return winners_curse(len(whole), noise, spread)


def confirmed_entry(spec: StudySpec, ledger: Ledger) -> dict[str, Any] | None:
    """Returns what `summary.json` says of the confirmation; None where there was none."""
    confirmation = confirmed(spec, ledger)
    if confirmation is None:
        return None
    sign = 1.0 if spec.objective.direction == "maximize" else -1.0
    ranking = [
        {
            "number": one.number,
            "mean": None if one.diverged else sign * one.mean,
            "standard_error": one.standard_error,
            "seeds": one.seeds,
            "diverged": one.diverged,
            "behind": None if one.diverged else one.behind,
            "interval": None if one.interval is None else list(one.interval),
            "probability_best": one.probability_best,
        }
        for one in confirmation.standings
    ]
    told = ("mean", "standard_error", "seeds", "probability_best")
    nobody = {**dict.fromkeys(told), "seeds": 0}
    return {
        **({key: ranking[0][key] for key in told} if confirmation.winner else nobody),
        "winners_curse": expected_curse(spec, ledger, confirmation),
        "ranking": ranking,
    }


def _score(run: RunState, spec: StudySpec) -> float | None:
    metric, direction = spec.objective.metric, spec.objective.direction
    if run.state == "INFEASIBLE":
        return -math.inf if direction == "maximize" else math.inf
    best = run.best(metric, direction)
    if run.state != "COMPLETED" or best is None:
        return None
    return best.metrics.get(REDRAWS.get(metric, ""), best.metrics[metric])
