"""The sections of a study other than its space and its stages."""

import re
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from search.domains import StrictModel
from search.spec_errors import Problem, ProblemsError, show

_DURATION = re.compile(r"(?=\d)(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+(?:\.\d+)?)s)?")
_SECONDS = (86_400, 3_600, 60, 1)

MAX_PACK = 64

Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=0)]


def parse_duration(text: str) -> float:
    """Returns the seconds of a duration such as `90s`, `15m`, `12h`, `1h30m` or `2d`.

    Raises:
        ValueError: The text is no duration above zero.
    """
    match = _DURATION.fullmatch(text.strip())
    parts = match.groups() if match else ()
    seconds = sum(float(part) * unit for part, unit in zip(parts, _SECONDS, strict=False) if part)
    if not seconds:
        raise ValueError(f"must be a duration such as 15m, 12h or 1h30m, but got {show(text)}")
    return seconds


def _as_seconds(value: Any) -> Any:
    return parse_duration(value) if isinstance(value, str) else value


def _checked_pack(value: Any) -> Any:
    whole = isinstance(value, int) and not isinstance(value, bool)
    if value != "auto" and not (whole and 1 <= value <= MAX_PACK):
        raise ValueError(f"must be auto or a number from 1 to {MAX_PACK}, but got {show(value)}")
    return value


class ReplicationSection(StrictModel):
    """How often each configuration is trained.

    Attributes:
        seeds: Runs of each fold, or of the whole training set, with seeds of their own.
        folds: Parts of the training set of which each run leaves out one and is scored on it; 1
            for none.
        adaptive: Whether a trial begins with one seed, and gets more, up to `seeds`, only where
            the best cannot be told apart.
    """

    seeds: Annotated[int, Field(ge=1)] = 1
    folds: Annotated[int, Field(ge=1)] = 1
    adaptive: bool = False

    @property
    def replicates(self) -> int:
        """Runs of a trial while it is searched."""
        return self.folds * (1 if self.adaptive else self.seeds)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.adaptive and self.seeds == 1:
            message = "`adaptive` needs `seeds` above 1, up to which it may go, but got seeds=1"
            raise ProblemsError([Problem(("adaptive",), message)])
        return self


class SchedulerSection(StrictModel):
    """When a trial is stopped early.

    Attributes:
        kind: `asha`, asynchronous successive halving; `hyperband`, the same in brackets; `median`
            stops who is worse than half of the others; `pbt`, population based training; `pb2`,
            the same with numbers chosen by a bandit; or `none`.
        grace_kimg: The first rung in thousands of real images; none is stopped before it.
        reduction_factor: Each rung is so many times the one before, and keeps one in so many;
            `median` has none.
        mode: `stopping` ends who falls behind at a rung; with `promotion` (`asha`) all pause at
            each rung, and the best are taken further.
        paired: Whether a rung stops only who is clearly behind, point by point (`asha` and
            `hyperband`).
        interval_kimg: With `pbt` or `pb2` the population is compared every so often.
        quantile: With `pbt` or `pb2` so many of the worst are replaced, by copies of as many of
            the best.
        shadow: Share of the stopped trials that is trained on to the full budget after the
            search, to report how many were stopped wrongly.
    """

    kind: Literal["asha", "hyperband", "median", "pbt", "pb2", "none"] = "asha"
    grace_kimg: Positive | None = None
    reduction_factor: Annotated[int, Field(ge=2)] = 3
    mode: Literal["stopping", "promotion"] = "stopping"
    paired: bool = False
    interval_kimg: Positive | None = None
    quantile: Annotated[float, Field(gt=0, le=0.5)] = 0.25
    shadow: Annotated[float, Field(ge=0, le=1)] = 0.0

    @property
    def population(self) -> bool:
        """Whether the trials are a population, in which the worst become copies of the best."""
        return self.kind in ("pbt", "pb2")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.kind == "none" and self.shadow:
            message = f"`shadow` needs a `kind` that stops trials, but got shadow={self.shadow}"
            raise ProblemsError([Problem(("shadow",), message)])
        wanted = "interval_kimg" if self.population else "grace_kimg"
        if self.kind != "none" and getattr(self, wanted) is None:
            message = f"`{wanted}` must be given where `kind` is {self.kind}, but it is missing"
            raise ProblemsError([Problem((), message)])
        if not self.population and self.interval_kimg is not None:
            message = f"`interval_kimg` needs `kind: pbt` or `pb2`, but got kind={self.kind}"
            raise ProblemsError([Problem(("interval_kimg",), message)])
        if self.paired and self.kind not in ("asha", "hyperband"):
            message = f"`paired` needs `kind: asha` or `hyperband`, but got kind={self.kind}"
            raise ProblemsError([Problem(("paired",), message)])
        if self.mode == "promotion" and (self.kind != "asha" or self.paired):
            got = f"kind={self.kind}, paired={self.paired}"
            message = f"`mode: promotion` needs `kind: asha` and not `paired`, but got {got}"
            raise ProblemsError([Problem(("mode",), message)])
        return self


class BudgetSection(StrictModel):
    """How much is spent.

    Attributes:
        kimg_per_trial: Thousands of real images a full trial is trained on.
        measure_kimg: Thousands of real images between two measurements; the last comes at the
            end of the trial.
        trials: Most trials over all stages.
        time: Seconds, written as a duration such as 12h; null means no limit.
    """

    kimg_per_trial: Positive
    measure_kimg: Positive
    trials: Annotated[int, Field(ge=1)]
    time: Annotated[Positive | None, BeforeValidator(_as_seconds)] = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.measure_kimg > self.kimg_per_trial:
            got = f"measure_kimg={self.measure_kimg}, kimg_per_trial={self.kimg_per_trial}"
            message = f"`measure_kimg <= kimg_per_trial` must hold, but got {got}"
            raise ProblemsError([Problem(("measure_kimg",), message)])
        return self


class ResourcesSection(StrictModel):
    """What one trial holds while it runs.

    Attributes:
        gpus_per_trial: Share of a GPU, or whole GPUs.
        cpus_per_trial: Processor cores; a trial has so many threads, at least one.
        pack: Trials that share one engine on one device. `auto` lets a probe choose on a GPU, up
            to what `gpus_per_trial` leaves room for, and is 1 elsewhere: a process each.
    """

    gpus_per_trial: Annotated[float, Field(ge=0)] = 0.0
    cpus_per_trial: Positive = 1.0
    pack: Annotated[int | Literal["auto"], BeforeValidator(_checked_pack)] = "auto"

    @property
    def threads(self) -> int:
        """Threads of one trial: with as many processes as cores, more would only collide."""
        return max(1, int(self.cpus_per_trial))

    @model_validator(mode="after")
    def _check(self) -> Self:
        gpus, pack = self.gpus_per_trial, self.pack
        if gpus > 1 and not gpus.is_integer():  # Ray's rule
            message = f"`gpus_per_trial` must be at most 1 or whole, but got gpus_per_trial={gpus}"
            raise ProblemsError([Problem(("gpus_per_trial",), message)])
        if pack != "auto" and pack > 1 and pack * gpus > 1 + 1e-9:
            message = (
                "`pack * gpus_per_trial <= 1` must hold, for a pack shares one GPU, "
                f"but got pack={pack}, gpus_per_trial={gpus}"
            )
            raise ProblemsError([Problem(("pack",), message)])
        return self


class ConfirmSection(StrictModel):
    """How the best configurations are tried again.

    Attributes:
        top: How many of them.
        seeds: Full trainings of each, with seeds and evaluation noise that the search has not
            seen; 0 for no confirmation.
    """

    top: Annotated[int, Field(ge=1)] = 1
    seeds: Count = 0

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.top > 1 and self.seeds == 1:
            message = (
                "`seeds >= 2` must hold where `top > 1`, for one seed cannot tell a difference "
                f"from chance, but got seeds=1, top={self.top}"
            )
            raise ProblemsError([Problem(("seeds",), message)])
        return self
