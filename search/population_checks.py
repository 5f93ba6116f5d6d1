"""What population based training asks of a study."""

from collections.abc import Iterator
from decimal import Decimal
from typing import TYPE_CHECKING

from search.domains import CategoricalDomain, Domain
from search.spec_errors import Problem

if TYPE_CHECKING:
    from search.study import StudySpec


def check_population(spec: "StudySpec") -> Iterator[Problem]:
    """Finds what keeps `scheduler.kind: pbt` or `pb2` from being run."""
    scheduler, budget = spec.scheduler, spec.budget
    interval, kind = scheduler.interval_kimg, scheduler.kind
    if not scheduler.population or interval is None:
        return
    from search.explore import changeable  # late: it takes SciPy, and few studies are populations

    path = ("scheduler", "interval_kimg")
    if interval >= budget.kimg_per_trial:
        got = f"interval_kimg={interval}, kimg_per_trial={budget.kimg_per_trial}"
        yield Problem(path, f"`interval_kimg < kimg_per_trial` must hold, but got {got}")
    if Decimal(repr(interval)) % Decimal(repr(budget.measure_kimg)):
        got = f"interval_kimg={interval}, measure_kimg={budget.measure_kimg}"
        yield Problem(path, f"`interval_kimg` must be a multiple of `measure_kimg`, but got {got}")
    wanted = "parameter" if kind == "pbt" else "number"
    if not any(kind == "pbt" or _is_number(spec.space[name]) for name in changeable(spec.space)):
        message = (
            f"`kind: {kind}` needs a searched {wanted} that may change in training, and that no "
            "`when` asks for, such as learning_rate, momentum or d_dropout, but got "
            f"{', '.join(sorted(spec.space))}"
        )
        yield Problem(("scheduler", "kind"), message)
    replication = spec.replication
    if (replication.seeds, replication.folds) != (1, 1):
        got = f"seeds={replication.seeds}, folds={replication.folds}"
        message = f"`kind: {kind}` needs `seeds: 1` and `folds: 1`, but got {got}"
        yield Problem(("replication",), message)
    if spec.confirm.seeds:
        message = (
            f"`seeds: 0` must hold with `kind: {kind}`, whose winner is a lineage and no "
            f"configuration that could be trained anew, but got seeds={spec.confirm.seeds}"
        )
        yield Problem(("confirm", "seeds"), message)


def _is_number(branches: tuple[Domain, ...]) -> bool:
    return any(not isinstance(domain, CategoricalDomain) for domain in branches)
