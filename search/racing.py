"""Racing: further seeds only where the best trials cannot be told apart."""

from collections.abc import Mapping, Sequence
from statistics import fmean, variance

from scipy import stats

from search.events import Replicated
from search.ledger import Ledger
from search.lines import Lines
from search.proposer import trial_seed
from search.study import StudySpec

ONE_SIDED = 0.95


def undecided(values: Mapping[int, Sequence[float]]) -> set[int]:
    """The trials that may yet be the best, the present best among them; none where it is sure.

    A race in the manner of Maron & Moore (1994, "Hoeffding Races") with Student's t for the
    bound, as in F-Race's post tests (Birattari et al. 2002): a trial is out once its mean lies
    more than t_0.95 s sqrt(1 / n_c + 1 / n_best) behind the best one's, s^2 pooled over all trials
    with several runs. Where none has two, the two best are in: somebody must show what chance is.

    Args:
        values: Of each trial the scores of its runs, larger is better.
    """
    if len(values) < 2:
        return set()
    order = sorted(values, key=lambda number: (-fmean(values[number]), number))
    several = [own for own in values.values() if len(own) > 1]
    if not several:
        return set(order[:2])
    freedom = sum(len(own) - 1 for own in several)
    pooled = sum((len(own) - 1) * variance(own) for own in several) / freedom
    best = order[0]
    bound = float(stats.t.ppf(ONE_SIDED, freedom)) * pooled**0.5
    found = {
        number
        for number in order[1:]
        if fmean(values[best]) - fmean(values[number])
        <= bound * (1 / len(values[best]) + 1 / len(values[number])) ** 0.5
    }
    return found | {best} if found else set()


def race_claims(spec: StudySpec, ledger: Ledger, lines: Lines) -> list[Replicated]:
    """The runs that tell the best trials apart next: one more seed, in every fold, of each."""
    replication, objective = spec.replication, spec.objective
    if not replication.adaptive:
        return []
    sign = 1.0 if objective.direction == "maximize" else -1.0
    values: dict[int, list[float]] = {}
    for trial in ledger.ranking(
        objective.metric, objective.direction, lines.untrained, objective.bounds
    ):
        if trial.state == "COMPLETED":
            whole = [run for run in trial.runs.values() if run.state == "COMPLETED"]
            scored = [run for run in whole if run.purpose in ("search", "race")]
            bests = (run.best(objective.metric, objective.direction) for run in scored)
            values[trial.number] = [sign * b.metrics[objective.metric] for b in bests if b]
    most = replication.seeds * replication.folds
    claims = []
    for number in sorted(undecided(values)):
        runs = ledger.trials[number].runs
        spent = sum(run.purpose in ("search", "race") for run in runs.values())
        if spent + replication.folds <= most:
            claims += [
                Replicated(
                    number=number,
                    replicate=len(runs) + fold,
                    purpose="race",
                    seed=trial_seed(spec.seed, number, len(runs) + fold),
                    fold=fold if replication.folds > 1 else None,
                )
                for fold in range(replication.folds)
            ]
    return claims
