"""Racing: further seeds only where the best trials cannot be told apart."""

from collections.abc import Mapping, Sequence

from scipy import stats

from search.events import RaceOpened, Replicated
from search.fold_effects import FoldScore, fit
from search.ledger import Ledger
from search.lines import Lines
from search.proposer import trial_seed
from search.run_state import RunState
from search.study import StudySpec
from search.trial import TrialState

ONE_SIDED = 0.95


def undecided(values: Mapping[int, Sequence[FoldScore]]) -> set[int]:
    """The trials that may yet be the best, the present best among them; none where it is sure.

    A race in the manner of Maron & Moore (1994, "Hoeffding Races") with Student's t for the
    bound, as in F-Race's post tests (Birattari et al. 2002): a trial is out once it lies more than
    t_0.95 standard errors behind the best one, both of the additive fit by trial and fold
    (`search.fold_effects`): what a fold is worth to all alike is no chance. Where that leaves no
    degree of freedom, the two best are in: somebody must show what chance is.

    Args:
        values: Of each trial its runs' scores with their folds, larger is better.
    """
    if len(values) < 2:
        return set()
    effects = fit(values)
    best, *others = sorted(values, key=lambda number: (-effects.means[number], number))
    if not effects.degrees_of_freedom:
        return {best, others[0]}
    bound = float(stats.t.ppf(ONE_SIDED, effects.degrees_of_freedom))
    found = set()
    for number in others:
        behind, error = effects.difference(best, number)
        if behind <= bound * error:
            found.add(number)
    return found | {best} if found else set()


def opening(spec: StudySpec, ledger: Ledger, lines: Lines) -> RaceOpened | None:
    """What begins the next round among the best trials; None where no seed is left or needed."""
    replication, objective = spec.replication, spec.objective
    if not replication.adaptive:
        return None
    sign = 1.0 if objective.direction == "maximize" else -1.0
    values: dict[int, list[FoldScore]] = {}
    for trial in ledger.ranking(
        objective.metric, objective.direction, lines.untrained, objective.bounds
    ):
        if trial.state == "COMPLETED":
            whole = [run for run in _runs(trial) if run.state == "COMPLETED"]
            bests = [(r.fold or 0, r.best(objective.metric, objective.direction)) for r in whole]
            scored = [(fold, sign * b.metrics[objective.metric]) for fold, b in bests if b]
            values[trial.number] = scored
    most = (replication.seeds - 1) * replication.folds
    numbers = [n for n in sorted(undecided(values)) if len(_runs(ledger.trials[n])) <= most]
    return RaceOpened(numbers=tuple(numbers)) if numbers else None


def claims(spec: StudySpec, ledger: Ledger) -> list[Replicated]:
    """The runs that the round lacks which was opened last; one that the clock cut is made anew."""
    count = spec.replication.folds
    folds: Sequence[int | None] = range(count) if count > 1 else (None,)
    lacking = []
    for number in () if ledger.race is None else ledger.race.numbers:
        runs = ledger.trials[number].runs
        own = [runs[key.replicate] for key in ledger.raced if key.number == number]
        had = {run.fold for run in own if not run.cut_off}
        missing = [fold for fold in folds if fold not in had]
        lacking += [
            Replicated(
                number=number,
                replicate=replicate,
                purpose="race",
                seed=trial_seed(spec.seed, number, replicate),
                fold=fold,
            )
            for replicate, fold in enumerate(missing, start=len(runs))
        ]
    return lacking


def _runs(trial: TrialState) -> list[RunState]:
    """Those that count: of a race none that the clock cut, for another is made in its place."""
    return [
        run
        for run in trial.runs.values()
        if run.purpose == "search" or (run.purpose == "race" and not run.cut_off)
    ]
