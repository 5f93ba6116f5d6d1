"""What came otherwise than was asked for at the end of a study, in words for its user."""

from search.confirming import confirmed
from search.ledger import Ledger
from search.study import StudySpec
from search.trial import TrialState


def notices_of(
    spec: StudySpec, ledger: Ledger, winner: TrialState | None, *, scored: bool
) -> list[str]:
    """Says where a winner is not the confirmed best of the search, and where it was not scored.

    Args:
        spec: the study.
        ledger: its record.
        winner: as `search.outcome.winner_of` has it.
        scored: whether there are test scores of it.
    """
    found = [_unbegun(ledger)]
    if ledger.confirmation is not None and spec.confirm.seeds:
        found.append(_confirmation(spec, ledger, winner))
    if winner is not None and not scored:
        found.append(_refused_look(ledger.looks[-1].number, winner.number))
    return [notice for notice in found if notice is not None]


def _unbegun(ledger: Ledger) -> str | None:
    waiting = [str(t.number) for t in ledger.trials.values() if t.state == "RUNNING"]
    if not waiting:
        return None
    which, them = ("trials", "them") if len(waiting) > 1 else ("trial", "it")
    return (
        f"the time budget ended before {which} {', '.join(waiting)} could be begun; `--resume "
        f"--time-budget +T` runs {them} first"
    )


def _confirmation(spec: StudySpec, ledger: Ledger, winner: TrialState | None) -> str | None:
    numbers = () if ledger.confirmation is None else ledger.confirmation.numbers
    broken = [number for number in numbers if ledger.trials[number].refuted]
    listed = ", ".join(map(str, broken))
    if winner is None:
        which = f"trial {listed}" if len(broken) == 1 else f"each of trials {listed}"
        return f"{which}, all that might win, diverged on a fresh seed" if broken else None
    place = f"trial {winner.number}"
    if broken:
        trials = f"trial{'s' if len(broken) > 1 else ''} {listed}"
        place = f"{trials} diverged on a fresh seed and cannot win; {place}, the next in rank,"
    confirmation = confirmed(spec, ledger)
    first = None if confirmation is None else confirmation.winner
    if first is None or first.number != winner.number:
        return (
            f"{place} is not confirmed, for too few of its fresh seeds came to their end "
            "(where the clock did that, `--resume --time-budget +T` makes up for them)"
        )
    return f"{place} was confirmed in its place" if len(numbers) > spec.confirm.top else None


def _refused_look(before: int, now: int) -> str:
    return (
        f"the test set was looked at already, for trial {before}: trial {now}, the winner now, is "
        "not scored on it. `--resume --look-again` does so, and the record will say that it was "
        "looked at more than once"
    )
