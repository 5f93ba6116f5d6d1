"""Steers a running study: takes up what was asked of it, each request exactly once."""

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from search.answers import refusal_to_stop
from search.cell import cell_key
from search.domains import Params
from search.events import Answer, Extended, Proposed, RequestRefused, StopAsked
from search.extension import refusal_of_trials
from search.history import History
from search.ledger import Ledger
from search.proposer import claim
from search.requests import Enqueue, Extend, Request, RequestError, Stop, read_request, waiting
from search.space import canonical_point
from search.space_checks import config_problems
from search.spec_errors import Problem, ProblemsError, dotted, raise_any
from search.stop_request import StopRequest
from search.study import StudySpec

LOOK_SECONDS = 0.5  # between two looks into the folder of requests
BY_REQUEST = "by request"


class Steering:
    """The driver's side of requests.

    A request's id goes into the event that answers it, and its file is removed after that. So one
    whose file outlives a kill is known to be answered, and is only removed.

    Args:
        spec: the study.
        history: its record, written by this thread.
        stop: whose clock is moved by an extension; once a stop is wanted, nothing is taken up.
        end_stopped: ends at once what waits of the trials that were asked to stop.
    """

    def __init__(
        self,
        spec: StudySpec,
        history: History,
        stop: StopRequest,
        end_stopped: Callable[[], None],
    ) -> None:
        self._spec, self._history, self._stop = spec, history, stop
        self._end_stopped = end_stopped
        self._next_look = 0.0

    def turn(self) -> None:
        """Takes up all that was asked since the last look, at most every half second.

        Raises:
            JournalError: An answer cannot be written.
        """
        if time.monotonic() < self._next_look or self._stop.reason is not None:
            return
        self._next_look = time.monotonic() + LOOK_SECONDS
        for path in waiting(self._history.folder):
            answer = _take_up(path, self._spec, self._history)
            if isinstance(answer, Extended):
                self._stop.extend(answer.seconds)
            elif isinstance(answer, StopAsked):
                self._end_stopped()


def take_up_extensions(spec: StudySpec, history: History) -> list[Answer | Proposed]:
    """Takes up what waits to extend a study before its clock is set, which may be at its end.

    What else waits has its turn once trials run: a point would be used up where no time is left.

    Raises:
        JournalError: An answer cannot be written.
    """
    answers = []
    for path in waiting(history.folder):
        with suppress(RequestError, FileNotFoundError):
            if isinstance(read_request(path), Extend):
                answers.append(_take_up(path, spec, history))
    return [answer for answer in answers if answer is not None]


def _take_up(path: Path, spec: StudySpec, history: History) -> Answer | Proposed | None:
    """Answers the request in a file and removes it; None where there is nothing to answer."""
    answer = None
    if path.stem not in history.ledger.answers.by_request:
        try:
            answer = answer_file(path, spec, history.ledger)
        except FileNotFoundError:  # taken back by the user
            return None
        history.append(answer)
    with suppress(OSError):  # it is answered, and will not be again
        path.unlink()
    return answer


def answer_file(path: Path, spec: StudySpec, ledger: Ledger) -> Answer | Proposed:
    """Returns the event that answers the request in a file, a refusal where it cannot be done.

    Raises:
        FileNotFoundError: The file is gone.
    """
    try:
        return answer_to(read_request(path), path.stem, spec, ledger)
    except RequestError as error:
        return RequestRefused(request=path.stem, why=str(error))


def answer_to(
    request: Request, request_id: str, spec: StudySpec, ledger: Ledger
) -> Answer | Proposed:
    """Returns the event by which a request is carried out; it is not recorded yet.

    Raises:
        RequestError: It cannot be, as things stand; the message says why.
    """
    match request:
        case Enqueue():
            return _proposed(request, request_id, spec, ledger)
        case Stop():
            refusal = refusal_to_stop(request.number, ledger.trials)
            if refusal is not None:
                raise RequestError(refusal)
            reason = f"{BY_REQUEST}: {request.reason}" if request.reason else BY_REQUEST
            return StopAsked(number=request.number, reason=reason, request=request_id)
        case Extend():
            if refusal := refusal_of_trials(spec, request.trials):
                raise RequestError(refusal)
            _check_extension(request, spec)
            return Extended(trials=request.trials, seconds=request.seconds, request=request_id)


def _proposed(request: Enqueue, request_id: str, spec: StudySpec, ledger: Ledger) -> Proposed:
    params = checked_point(request.params, spec)
    cell, number = cell_key(params), ledger.next_number()
    if cell in ledger.cells:
        trial = ledger.trials[ledger.cells[cell]]
        raise RequestError(
            f"no configuration is tried twice, and this one is trial {trial.number} already "
            f"({trial.stage}, {trial.state})"
        )
    beyond = len(spec.stages)  # not one of the plan's, so it takes nothing from their shares
    return claim(spec, params, number, stage="enqueued", index=beyond, request=request_id)


def checked_point(point: Mapping[str, object], spec: StudySpec) -> Params:
    """Returns a point of the study's space with plain values.

    Raises:
        RequestError: It is none; a line names each parameter at fault.
    """
    try:
        params = canonical_point(spec.space, point)
        problems = config_problems(spec.space, spec.model, params)
        raise_any([Problem(place[1:2], text) for place, text in problems])
    except ProblemsError as error:
        lines = [f"{dotted(place)}: {text}" for place, text in error.problems]
        raise RequestError("\n".join(lines)) from None
    return params


def _check_extension(request: Extend, spec: StudySpec) -> None:
    if not request.trials and not request.seconds:
        raise RequestError("give --trials +N, --time-budget +T or both")
    if request.seconds and spec.budget.time is None:
        raise RequestError("--time-budget: this study has no limit of time to extend")
