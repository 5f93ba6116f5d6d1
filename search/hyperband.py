"""Hyperband: successive halving in brackets that differ in how early they begin to stop."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from search.scheduling import Course, PairedError, course, decide, rung_levels
from search.trial import Direction, TrialState


@dataclass(frozen=True, kw_only=True)
class Bracket:
    """A share of the trials, halved among themselves.

    Attributes:
        size: How many trials in a row belong to it.
        rungs: Levels in kimg, ascending; none where every trial trains in full.
    """

    size: int
    rungs: tuple[float, ...]


def bracket_table(
    largest_resource: float, reduction_factor: int
) -> tuple[tuple[tuple[int, float], ...], ...]:
    """Pairs of n_i trials and the resource r_i that each is given, for each bracket of Hyperband.

    Table 1 of Li et al. (2018, "Hyperband: A Novel Bandit-Based Approach to Hyperparameter
    Optimization", JMLR 18), brackets s = s_max, ..., 0: with R the largest resource,
    s_max = floor(log_eta R), n = floor((s_max + 1) / (s + 1)) eta^s and r = R eta^-s, then
    n_i = floor(n eta^-i) and r_i = r eta^i. (Their Algorithm 1 rounds n up and only at the end,
    which for R = 81 gives 34, 15 and 8 where their table has 27, 9 and 6.)

    Raises:
        ValueError: The resource is below one unit, or the factor below two.
    """
    if not largest_resource >= 1:
        raise ValueError(f"`largest_resource >= 1` must hold, but got {largest_resource}")
    if not reduction_factor >= 2:
        raise ValueError(f"`reduction_factor >= 2` must hold, but got {reduction_factor}")
    most = _halvings(largest_resource, reduction_factor)
    table = []
    for halvings in range(most, -1, -1):
        count = (most + 1) // (halvings + 1) * reduction_factor**halvings
        rounds = [
            (count // reduction_factor**i, largest_resource / reduction_factor ** (halvings - i))
            for i in range(halvings + 1)
        ]
        table.append(tuple(rounds))
    return tuple(table)


def make_brackets(
    grace_kimg: float, kimg_per_trial: float, reduction_factor: int, measure_kimg: float
) -> tuple[Bracket, ...]:
    """The brackets of a study, whose unit of resource is `grace_kimg`.

    Bracket s has the sizes of `bracket_table` and s rungs, the first at
    grace x factor^(s_max - s); what the table gives R is trained in full.
    """
    table = bracket_table(kimg_per_trial / grace_kimg, reduction_factor)
    brackets = []
    for skipped, rounds in enumerate(table):
        first = grace_kimg * reduction_factor**skipped
        levels = rung_levels(first, kimg_per_trial, reduction_factor, measure_kimg)
        brackets.append(Bracket(size=rounds[0][0], rungs=levels[: len(rounds) - 1]))
    return tuple(brackets)


def bracket_of(number: int, brackets: Sequence[Bracket]) -> int:
    """The bracket of a trial by its number: they are filled in turn, then from the first again."""
    place = number % sum(bracket.size for bracket in brackets)
    for index, bracket in enumerate(brackets):
        if place < bracket.size:
            return index
        place -= bracket.size
    raise AssertionError("a remainder lies below the sum")


def decide_in_bracket(
    number: int,
    courses: Mapping[int, Course],
    brackets: Sequence[Bracket],
    reduction_factor: int,
    paired_error: PairedError | None = None,
) -> float | None:
    """The rung at which a trial must stop by `decide` among its bracket; None where it goes on.

    The paper halves a bracket when all its trials have come to a rung; here, as in the
    asynchronous form of Li et al. (2020), nobody waits.
    """
    mine = bracket_of(number, brackets)
    beside = {n: one for n, one in courses.items() if bracket_of(n, brackets) == mine}
    return decide(number, beside, brackets[mine].rungs, reduction_factor, paired_error)


@dataclass(frozen=True, kw_only=True)
class Hyperband:
    """The brackets of a study, applied to its ledger alone: a resumed study decides the same."""

    metric: str
    direction: Direction
    brackets: tuple[Bracket, ...]
    reduction_factor: int
    paired_error: PairedError | None = None
    name: ClassVar[str] = "hyperband"

    def levels(self, number: int) -> tuple[float, ...]:
        """Where the runs of trial `number` are judged together, in kimg."""
        return self.brackets[bracket_of(number, self.brackets)].rungs

    def rung_to_stop_at(self, number: int, trials: Mapping[int, TrialState]) -> float | None:
        """The rung at which trial `number` falls below its bracket's cut, else None."""
        courses = {n: course(t, self.metric, self.direction) for n, t in trials.items()}
        return decide_in_bracket(
            number, courses, self.brackets, self.reduction_factor, self.paired_error
        )


def _halvings(largest_resource: float, reduction_factor: int) -> int:
    # By powers: log(243) / log(3) is a hair below 5.
    most = 0
    while reduction_factor ** (most + 1) <= largest_resource * (1 + 1e-9):
        most += 1
    return most
