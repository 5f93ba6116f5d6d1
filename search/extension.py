"""What more trials or more time cannot do for a study that has begun."""

from search.ledger import Ledger
from search.study import StudySpec


def refusal_of_trials(spec: StudySpec, trials: int) -> str | None:
    """Says why a study cannot be given so many trials more; None where it can.

    A population decides at each interval who is replaced, once and among all: who came later would
    train to the end beside it, compared with nobody.
    """
    if not trials or not spec.scheduler.population:
        return None
    whole = spec.budget.trials + trials
    return (
        f"--trials: a population keeps its size (`scheduler.kind: {spec.scheduler.kind}`), for it "
        f"is compared as a whole at each interval, but got +{trials}; begin another study with "
        f"`--trials {whole}`, or try single points by `search.steer OUTPUT enqueue`"
    )


def note_on_time(spec: StudySpec, ledger: Ledger) -> str | None:
    """Says which trials get nothing of more time; None where the clock has ended none."""
    ended = [
        trial.number
        for trial in ledger.trials.values()
        if (trial.state, trial.reason) == ("STOPPED", "time_budget")
    ]
    if not ended:
        return None
    listed = ", ".join(map(str, ended[:5])) + (", ..." if len(ended) > 5 else "")
    note = (
        f"the time budget has ended {len(ended)} trial{'s' if len(ended) > 1 else ''} ({listed}) "
        "for good; more time is for what has not begun"
    )
    if spec.scheduler.population:
        note += ", and a population is not gone on with: begin another study with a longer "
        note += "`budget.time`"
    return note
