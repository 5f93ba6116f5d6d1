"""Draws the runs of a study from its ledger: the one place that says what MLflow shows."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from search.events import RunKey, SessionClosed, StudyOpened
from search.points import picture_folder
from search.run_picture import KIMG, Dataset, Point, RunPicture, Status
from search.run_state import RunState
from search.run_tags import config_tag, run_tags, text, trial_tags
from search.trial import Direction, TrialState, mean_curve, score

_TRIAL_STATUS: dict[str, Status] = {
    "COMPLETED": "FINISHED",
    "STOPPED": "FINISHED",
    "INFEASIBLE": "FAILED",
    "FAILED": "FAILED",
}
_STUDY_STATUS: dict[str, Status] = {
    "finished": "FINISHED",
    "time_budget": "FINISHED",
    "interrupted": "KILLED",
    "failed": "FAILED",
}


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The content of `summary.json`, and the winner's folder."""

    summary: Mapping[str, Any]
    best_dir: Path | None


@dataclass(frozen=True, kw_only=True)
class RunPainter:
    """Draws the runs of one study.

    Attributes:
        metric: The objective; its best value so far is shown as `objective`.
        flags: Names what to beware of in a trial; none means no tag.
        fixed_params: Settings that are not searched; a trial's own come on top.
        output: The study's folder.
    """

    study: StudyOpened
    dataset: Dataset
    metric: str
    direction: Direction
    flags: Callable[[TrialState], tuple[str, ...]]
    fixed_params: Mapping[str, object]
    output: Path

    def draw_study(self, closed: SessionClosed | None, outcome: Outcome | None) -> RunPicture:
        """Draws the parent run."""
        files = {"study.json": self.output / "study.json"}
        results: dict[str, float] = {}
        if outcome is not None:
            files["summary.json"] = self.output / "summary.json"
            results = _best(outcome) | _test(outcome) | _references(outcome)
            if outcome.best_dir is not None:
                files |= {f"best/{f.name}": f for f in sorted(outcome.best_dir.glob("*"))}
        return RunPicture(
            key=self.study.study_id,
            name=self.output.name,
            parent=None,
            status="RUNNING" if closed is None else _STUDY_STATUS[closed.reason],
            started=_milliseconds(self.study.at),
            ended=None if closed is None else _milliseconds(closed.at),
            tags={"study": self.study.study, **self._common_tags()},
            params={key: text(value) for key, value in self.fixed_params.items()},
            dataset=self.dataset,
            results=results,
            files=files,
        )

    def draw_trial(
        self,
        trial: TrialState,
        parent: str,
        closed: SessionClosed | None,
        outcome: Outcome | None,
    ) -> RunPicture:
        """Draws a trial's run; the winner's shows the test scores too.

        A trial of one run in the search is shown as that run. One of several shows their means.
        """
        several = len(trial.search_runs) > 1
        ended = trial.ended_at or (closed.at if closed else None)
        status = _TRIAL_STATUS.get(trial.state, "RUNNING" if closed is None else "KILLED")
        is_best = outcome is not None and _best_number(outcome) == trial.number
        config = {**self.fixed_params, **trial.params}
        seed = {} if several else {"seed": trial.seed}
        return RunPicture(
            key=f"{self.study.study_id}/{trial.number}" + ("" if several else "/0"),
            name=f"trial {trial.number:03d}",
            parent=parent,
            status=status,
            started=_milliseconds(trial.proposed_at),
            ended=None if ended is None else _milliseconds(ended),
            tags=self._common_tags()
            | trial_tags(trial, self.flags(trial))
            | config_tag({**config, **seed}),
            params={key: text(value) for key, value in config.items()},
            dataset=self.dataset,
            points=list(self._points(trial.search_runs)),
            results=_test(outcome) if outcome is not None and is_best else {},
            files={} if several else self._files(trial.first),
        )

    def draw_runs(
        self, trial: TrialState, parent: str, closed: SessionClosed | None
    ) -> Iterator[tuple[RunKey, RunPicture]]:
        """Draws the runs that are shown below their trial's."""
        config = {**self.fixed_params, **trial.params}
        for run in trial.runs.values():
            if run.purpose == "search" and len(trial.search_runs) == 1:
                continue
            ended = run.ended_at or (closed.at if closed else None)
            status = _TRIAL_STATUS.get(run.state, "RUNNING" if closed is None else "KILLED")
            yield (
                run.key,
                RunPicture(
                    key=f"{self.study.study_id}/{trial.number}/{run.replicate}",
                    name=f"trial {trial.number:03d} {run.purpose} {run.replicate}",
                    parent=parent,
                    status=status,
                    started=_milliseconds(run.claimed_at),
                    ended=None if ended is None else _milliseconds(ended),
                    tags=self._common_tags()
                    | run_tags(trial, run)
                    | config_tag({**config, "seed": run.seed}),
                    params={key: text(value) for key, value in config.items()},
                    dataset=self.dataset,
                    points=list(self._points([run])),
                    files=self._files(run),
                ),
            )

    def _points(self, runs: Sequence[RunState]) -> Iterator[Point]:
        """The means of what several runs measured, as far as all have come."""
        for kimg, course in mean_curve(runs).items():
            here = [m for run in runs for m in run.measurements if m.kimg == kimg]
            seconds = sum(m.elapsed_seconds for m in here)
            values = {KIMG: kimg, "elapsed_seconds": seconds, **course}
            if self.metric in course:
                values["objective"] = score(runs, self.metric, self.direction, kimg).value
            yield Point(
                step=int(kimg + 0.5),
                milliseconds=max(_milliseconds(m.at) for m in here),
                values=values,
            )

    def _files(self, run: RunState) -> dict[str, Path]:
        folder = self.output / "samples" / picture_folder(run.key)
        measured = {m.kimg for m in run.measurements}
        # A worker may be writing the next one, which no measurement has announced.
        files = {
            f"samples/{file.name}": file
            for file in sorted(folder.glob("*.png"))
            if _number(file.stem) in measured
        }
        if run.ended:
            name = f"{run.number}-{run.replicate}.parquet"
            files["points.parquet"] = self.output / "points" / name
        return files

    def _common_tags(self) -> dict[str, str]:
        study = self.study
        commit = study.versions.get("git_commit")
        return {
            "mlflow.source.name": "search.run",
            "mlflow.source.type": "LOCAL",
            **({"mlflow.source.git.commit": text(commit)} if commit else {}),
            "dataset": self.dataset.name,
            "dataset_digest": self.dataset.digest,
            "dataset_subset": text(self.dataset.subset),
            "protocol_digest": study.protocol_digest,
            "spec_digest": study.spec_digest,
            **{f"version.{k}": text(v) for k, v in study.versions.items() if k != "git_commit"},
            **{f"hardware.{k}": text(v) for k, v in study.hardware.items()},
        }


def _best_number(outcome: Outcome) -> int | None:
    best = outcome.summary.get("best")
    return None if best is None else int(best["number"])


def _best(outcome: Outcome) -> dict[str, float]:
    best = outcome.summary.get("best") or {}
    return _numbers("best", {k: best.get(k) for k in ("number", "objective", "standard_error")})


def _test(outcome: Outcome) -> dict[str, float]:
    return _numbers("test", outcome.summary.get("test"))


def _references(outcome: Outcome) -> dict[str, float]:
    return _numbers("reference", outcome.summary.get("references"))


def _numbers(name: str, value: object) -> dict[str, float]:
    """Flattens to `name_key_key: number`; whatever is no number is left out."""
    if isinstance(value, Mapping):
        flat = (_numbers(f"{name}_{key}", inner) for key, inner in value.items())
        return {key: number for part in flat for key, number in part.items()}
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return {name: float(value)} if is_number else {}  # type: ignore[arg-type]


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _milliseconds(at: datetime) -> int:
    return int(at.timestamp() * 1000)
