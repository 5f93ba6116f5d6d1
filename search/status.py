"""How a study stands, from its journal alone: as one object, and in words."""

from collections.abc import Mapping
from typing import Any

from search.estimate import duration
from search.recorded_study import RecordedStudy
from search.requests import RequestError, read_request, waiting
from search.run_state import RunState

HOUR = 3600.0


def status_of(study: RecordedStudy) -> dict[str, Any]:
    """Returns how a study stands; kimg and rates count what was measured."""
    ledger, budget = study.ledger, study.spec.budget
    counts = ledger.count_by_state()
    elapsed = ledger.spent_seconds
    kimg = sum(trial.total_kimg for trial in ledger.trials.values())
    ended = len(ledger.trials) - counts["RUNNING"]
    driver = study.driver
    left = None if budget.time is None else budget.time + ledger.extra_seconds - elapsed
    return {
        "study": study.spec.study,
        "folder": str(study.folder),
        "driver": driver,
        "closed": None if driver else study.closed or "killed",
        "planned": budget.trials + ledger.added_trials,
        "trials": {state.lower(): count for state, count in counts.items()},
        "stages": ledger.count_by_stage(),
        "unfinished": [_unfinished(run, study, driver) for run in ledger.unfinished()],
        "best": _best(study),
        "elapsed_seconds": elapsed,
        "time_left_seconds": None if left is None else max(0.0, left),
        "kimg_per_hour": HOUR * kimg / elapsed if elapsed else None,
        "trials_per_hour": HOUR * ended / elapsed if elapsed else None,
        "requests": _requests(study),
    }


def _unfinished(run: RunState, study: RecordedStudy, driver: str | None) -> dict[str, Any]:
    trial = study.ledger.trials[run.number]
    saved = run.checkpoint.kimg if run.checkpoint else 0.0
    return {
        "number": run.number,
        "replicate": run.replicate,
        "replicates": len(trial.runs),
        "purpose": run.purpose,
        "stage": trial.stage,
        "training": run.active and driver is not None,
        "kimg": max(saved, run.total_kimg),
        "device": run.device,
        "node": run.node,
        "stop_asked": trial.stop_asked,
    }


def _best(study: RecordedStudy) -> dict[str, Any] | None:
    aim = study.spec.objective
    trial = study.ledger.incumbent(aim.metric, aim.direction, constraints=aim.bounds)
    scored = None if trial is None else trial.objective(aim.metric, aim.direction)
    if trial is None or scored is None:
        return None
    return {
        "number": trial.number,
        "stage": trial.stage,
        "state": trial.state,
        "metric": aim.metric,
        "objective": scored.value,
        "standard_error": scored.standard_error,
        "kimg": scored.kimg,
        "params": trial.params,
    }


def _requests(study: RecordedStudy) -> list[dict[str, str]]:
    found = []
    for path in waiting(study.folder):
        if path.stem in study.ledger.answers.by_request:
            continue
        try:
            found.append({"id": path.stem, "asks": str(read_request(path))})
        except FileNotFoundError:
            continue  # it was answered just now
        except RequestError as error:
            found.append({"id": path.stem, "asks": str(error)})
    return found


def describe_status(status: Mapping[str, Any]) -> str:
    """Returns the same for a terminal."""
    by = f"running, {status['driver']}" if status["driver"] else f"not running: {status['closed']}"
    counts = [f"{n} {state}" for state, n in status["trials"].items() if n and state != "running"]
    stages = ", ".join(f"{n} {stage}" for stage, n in status["stages"].items() if n)
    shown = ", ".join(counts) or "none ended"
    lines = [
        f"study {status['study']} in {status['folder']} ({by})",
        f"trials    {shown}, of {status['planned']}" + (f" ({stages})" if stages else ""),
        *(f"{_kind(run):9s} {_where(run)}" for run in status["unfinished"]),
        f"best      {_shown_best(status['best'])}",
        f"rate      {_rate(status)}",
        *(f"asked     {request['asks']} (waits)" for request in status["requests"]),
    ]
    return "\n".join(lines)


def _kind(run: Mapping[str, Any]) -> str:
    return "training" if run["training"] else "waiting"


def _where(run: Mapping[str, Any]) -> str:
    name = f"{run['number']}.{run['replicate']}" if run["replicates"] > 1 else run["number"]
    why = run["stage"] if run["purpose"] == "search" else run["purpose"]
    place = f" on {run['device']} of {run['node']}" if run["training"] else ""
    stop = f", stops {run['stop_asked']}" if run["stop_asked"] else ""
    return f"trial {name} ({why}) at {run['kimg']:g} kimg{place}{stop}"


def _shown_best(best: Mapping[str, Any] | None) -> str:
    if best is None:
        return "no score yet"
    error = "" if best["standard_error"] is None else f" ± {best['standard_error']:.1f}"
    params = " ".join(
        f"{name}={value:.3g}" if isinstance(value, float) else f"{name}={value}"
        for name, value in best["params"].items()
    )
    return (
        f"{best['metric']} {best['objective']:.1f}{error} at {best['kimg']:g} kimg, "
        f"trial {best['number']} ({best['stage']}, {best['state']})   {params}"
    )


def _rate(status: Mapping[str, Any]) -> str:
    elapsed = duration(status["elapsed_seconds"])
    left = status["time_left_seconds"]
    limit = "" if left is None else f"; {duration(left)} of the time budget left"
    if status["kimg_per_hour"] is None:
        return f"nothing yet{limit}"
    kimg, trials = status["kimg_per_hour"], status["trials_per_hour"]
    return f"{kimg:.4g} kimg and {trials:.3g} trials an hour, over {elapsed}{limit}"
