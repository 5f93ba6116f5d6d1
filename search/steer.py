"""Steers a running study from the command line: `python -m search.steer OUTPUT ...`."""

import argparse
import json
import math
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from search.answers import told
from search.command_line import DONE, INTERRUPTED, Parser, carry_out, extra_trials
from search.events import Answer, Proposed, RequestRefused, StopAsked
from search.extension import note_on_time
from search.journal import JournalError
from search.parquet import RecordError
from search.recorded_study import RecordedStudy
from search.requests import Enqueue, Extend, Request, RequestError, Stop, ask, waiting
from search.status import describe_status, status_of
from search.steering import answer_file, answer_to, checked_point
from search.study import SpecError, parse_duration
from search.trial import TrialState
from search.yaml_source import Source

WAIT_SECONDS = 10.0
LOOK_SECONDS = 0.2  # between looks at what became of a request


def parser() -> Parser:
    """Creates the parser of the command line."""
    p = Parser(
        prog="python -m search.steer",
        allow_abbrev=False,
        description="Ask something of a running study, or how it stands. What is asked is left "
        "in the study's folder: the driver takes it up within seconds, or the next --resume does.",
    )
    p.add_argument("output", type=Path, metavar="OUTPUT", help="the study's folder")
    actions = p.add_subparsers(dest="action", required=True, parser_class=Parser)
    enqueue = actions.add_parser("enqueue", help="try a point next, beyond the plan's trials")
    enqueue.add_argument("values", nargs="*", metavar="KEY=VALUE", help="a searched parameter")
    enqueue.add_argument("--point", metavar="YAML", help="the same as one mapping")
    enqueue.add_argument(
        "--like", type=int, metavar="NUMBER", help="take from a trial what is not given here"
    )
    stop = actions.add_parser("stop", help="end a trial at its next result")
    stop.add_argument("number", type=int, metavar="NUMBER", help="of the trial")
    stop.add_argument("--reason", metavar="TEXT", help="kept with the trial")
    extend = actions.add_parser("extend", help="add to the budget")
    extend.add_argument("--trials", metavar="+N", help="so many trials more")
    extend.add_argument("--time-budget", metavar="+T", help="so much time more, such as +1h")
    for asking in (enqueue, stop, extend):
        asking.add_argument(
            "--wait",
            type=_seconds,
            default=WAIT_SECONDS,
            metavar="S",
            help="seconds to wait for the answer (default: %(default)g)",
        )
    status = actions.add_parser("status", help="how the study stands, from its journal alone")
    status.add_argument("--json", action="store_true", help="one object on standard output")
    return p


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    return carry_out(_steer, parser(), arguments, (SpecError, RecordError, JournalError))


def _steer(options: argparse.Namespace) -> int:
    try:
        study = RecordedStudy.read(options.output)
        return _status(study, options) if options.action == "status" else _ask(study, options)
    except RequestError as error:
        raise RecordError(f"{options.output}: {error}") from None
    except KeyboardInterrupt:
        sys.stderr.write("interrupted: what was asked stands\n")
        return INTERRUPTED


def _status(study: RecordedStudy, options: argparse.Namespace) -> int:
    status = status_of(study)
    sys.stdout.write((json.dumps(status) if options.json else describe_status(status)) + "\n")
    return DONE


def _ask(study: RecordedStudy, options: argparse.Namespace) -> int:
    request = _request(options, study)
    spent = study.ledger.spent_seconds
    expected = _foreseen(request, study)
    deadline = time.monotonic() + options.wait
    path = ask(options.output, request)
    driver = study.driver
    if driver is None:
        _say(f"no driver runs this study, so this waits for the next --resume: {told(expected)}")
        _say(f"(in {path}; remove the file to take it back)")
        _say_of_time(request, study, spent)
        return DONE
    answer = _answer(path, options.output, deadline)
    if answer is None:
        _say(f"asked, and not answered yet: {driver} is busy, or ends; then --resume takes it up")
        _say(f"(in {path}; remove the file to take it back)")
        return DONE
    if isinstance(answer, RequestRefused):
        raise RequestError(answer.why)
    _say(told(answer))
    if isinstance(answer, StopAsked):
        _say_end(answer.number, options.output, deadline)
    return DONE


def _foreseen(request: Request, study: RecordedStudy) -> Answer | Proposed:
    """Returns what a request comes to after what waits before it; the ledger takes all in.

    Raises:
        RequestError: Nothing can come of it.
    """
    ledger = study.ledger
    for path in waiting(study.folder):
        if path.stem not in ledger.answers.by_request:
            with suppress(FileNotFoundError):  # it was answered just now
                ledger.apply(answer_file(path, study.spec, ledger))
    expected = answer_to(request, "foreseen", study.spec, ledger)
    ledger.apply(expected)
    return expected


def _say_of_time(request: Request, study: RecordedStudy, spent_seconds: float) -> None:
    """Says where a --resume would find no time left, all that waits counted in, or no use."""
    limit = study.spec.budget.time
    beyond = 0.0 if limit is None else spent_seconds - limit - study.ledger.extra_seconds
    if beyond > 0:
        _say(f"NOTE: by then no time is left; extend --time-budget by more than {beyond:.0f} s")
    note = note_on_time(study.spec, study.ledger)
    if note is not None and isinstance(request, Extend) and request.seconds:
        _say(f"NOTE: {note}")


def _answer(path: Path, folder: Path, deadline: float) -> Answer | Proposed | None:
    """Waits until a request was taken up; None where it was not in time."""
    while path.exists() and time.monotonic() < deadline:
        time.sleep(LOOK_SECONDS)
    return RecordedStudy.read(folder).ledger.answers.by_request.get(path.stem)


def _say_end(number: int, folder: Path, deadline: float) -> None:
    """Waits for the end of a trial that was asked to stop, and tells it."""
    while True:
        trial = RecordedStudy.read(folder).ledger.trials[number]
        if trial.state != "RUNNING":
            why = f" ({trial.reason})" if trial.reason else ""
            _say(f"trial {number} ended {trial.state}{why} after {trial.total_kimg:g} kimg")
            return
        if time.monotonic() >= deadline:
            return
        time.sleep(LOOK_SECONDS)


def _request(options: argparse.Namespace, study: RecordedStudy) -> Request:
    """Returns what was asked for.

    Raises:
        RequestError: The point is none of the study's space.
        SpecError: The words are not as they should be.
    """
    match options.action:
        case "enqueue":
            point = _point(options, study.ledger.trials)
            return Enqueue(params=checked_point(point, study.spec))
        case "stop":
            if options.number < 0:
                raise SpecError(f"NUMBER: must be that of a trial, but got {options.number}")
            return Stop(number=options.number, reason=options.reason)
        case _:
            return _extension(options)


def _point(options: argparse.Namespace, trials: Mapping[int, TrialState]) -> dict[str, Any]:
    """Returns the parameters as given, over those of `--like`; null takes one of these away."""
    if options.like is not None and options.like not in trials:
        held = f"0 to {len(trials) - 1}" if trials else "none"
        raise SpecError(f"--like: there is no trial {options.like}; known: {held}")
    source = Source.of_mapping({} if options.like is None else trials[options.like].params)
    if options.point is not None:
        origin = f"--point {options.point}"
        point = Source.of_mapping({}).overridden(f"point={options.point}", origin).data
        if options.values or not isinstance(point.get("point"), dict):
            raise SpecError("--point: must be one mapping, given without KEY=VALUE beside it")
        changed = {**source.data, **point["point"]}
        return {name: value for name, value in changed.items() if value is not None}
    given: set[str] = set()
    for value in options.values:
        name, equals, _ = value.partition("=")
        if not equals or not name.strip(". "):
            raise SpecError(f"{value}: must look like learning_rate=0.1")
        if name.strip() in given:
            raise SpecError(f"{value}: `{name.strip()}` must be given once")
        given.add(name.strip())
        source = source.overridden(value, value)
    return source.data


def _extension(options: argparse.Namespace) -> Extend:
    trials, seconds = 0, 0.0
    try:
        flag = "--trials"
        if options.trials is not None:
            trials = extra_trials(options.trials)
        flag = "--time-budget"
        if options.time_budget is not None:
            if not options.time_budget.startswith("+"):
                raise ValueError(
                    f"is added to the budget, so write +1h for an hour more, not "
                    f"{options.time_budget!r}"
                )
            seconds = parse_duration(options.time_budget[1:])
    except ValueError as error:
        raise SpecError(f"{flag}: {error}") from None
    return Extend(trials=trials, seconds=seconds)


def _seconds(text: str) -> float:
    value = float(text)
    if not (math.isfinite(value) and value >= 0):
        raise argparse.ArgumentTypeError(f"must be seconds, none or more, but got {text}")
    return value


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
