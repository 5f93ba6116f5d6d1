"""A study made ready in this process: its data, its protocol and what it will cost."""

import dataclasses
import uuid
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, cast

from cgan_core.data import DataSplits
from cgan_core.data.conditions import SamplerKind, settled_kind
from cgan_core.evaluation import Evaluator, Protocol, protocol_for
from cgan_core.families import family_of
from search.calibration import Calibration, calibrate
from search.data_source import DataSource
from search.earlier_study import check_comparable
from search.estimate import Estimate, estimate
from search.events import StudyOpened
from search.folds import refusal_of_folds
from search.gan_run import GANRuns
from search.ledger import Ledger
from search.lines import Lines
from search.machine import hardware, versions
from search.objective import NEED_CONDITION, NEED_LABELS
from search.proposer import Proposer
from search.record import write_json_atomic
from search.run_painter import RunPainter
from search.run_picture import Dataset
from search.seen_trial import SeenTrial
from search.study import StudySpec
from search.study_file import STUDY_NAME, StudyError, check_same_spec, read_study
from search.warm_start import WarmStart


class PreparedStudy:
    """One study with its data loaded and its protocol settled.

    Args:
        spec: what is searched.
        output: the study's folder.
        resume: whether the study in that folder is gone on with.
        say: prints one line to the user.

    Raises:
        DataError: if the data cannot be had.
        StudyError: if the folder holds another study than `spec`, or none to resume.
    """

    def __init__(
        self, spec: StudySpec, output: Path, *, resume: bool, say: Callable[[str], None]
    ) -> None:
        self.spec, self.output, self._say = spec, output, say
        self._recorded_lines: Mapping[str, Any] | None = None
        wanted = DataSource.of(spec.data, spec.seed)
        if resume:
            recorded = read_study(output)
            check_same_spec(spec, recorded["spec"], output)
            wanted = dataclasses.replace(wanted, subset=recorded["dataset"]["subset"])
            self._recorded_lines = recorded["validation_lines"]
        splits = wanted.load()
        if resume and splits.digest != recorded["dataset_digest"]:
            raise StudyError(
                f"{output}: this study began on data with digest "
                f"{recorded['dataset_digest'][:12]}, but {splits.source} now gives "
                f"{splits.digest[:12]}; bring the first ones back"
            )
        _check_labels(spec, splits)
        _check_sampler(spec, splits)
        if refusal := refusal_of_folds(spec.replication.folds, splits):
            raise StudyError(f"replication.folds: {refusal}")
        if splits.notice:
            say(f"NOTE: {splits.notice}")
        self.source = wanted.settled(splits)
        self.protocol: Protocol = protocol_for(splits, spec.seed, spec.replication.folds)
        self.evaluator = Evaluator(splits, self.protocol)
        if resume and spec.warm_start:
            self._warm_start = WarmStart.thaw(output, recorded["warm_start"]["digest"])
        else:
            self._warm_start = self._gathered(say)

    @property
    def earlier(self) -> tuple[SeenTrial, ...]:
        """The trials of earlier studies that models are told of."""
        return self._warm_start.seen(self.spec.objective)

    def _gathered(self, say: Callable[[str], None]) -> WarmStart:
        digests = {
            "dataset_digest": self.protocol.dataset_digest,
            "protocol_digest": self.protocol.digest,
        }
        folders = [Path(folder) for folder in self.spec.warm_start]
        for folder in folders:
            if not (folder / STUDY_NAME).exists():
                message = f"must be the folder of a study, but {folder} holds no {STUDY_NAME}"
                raise StudyError(f"warm_start: {message}")
            check_comparable(str(folder), read_study(folder), self.spec, digests)
        return WarmStart.gather(folders, self.spec.space, lambda line: say(f"NOTE: {line}"))

    def first_trial(self) -> dict[str, Any]:
        """Returns the study's first trial as `Lanes.open` takes it."""
        first = Proposer(self.spec, self.earlier).propose(Ledger())
        assert first is not None  # a spec has at least one trial
        threads = self.spec.resources.threads
        common = {"number": first.number, "replicate": 0, "seed": first.seed}
        fold = 0 if self.protocol.folds > 1 else None
        place = {"threads": threads, "fold": fold, "noise_draw": 0}
        return {**common, **place, "params": dict(first.params)}

    def estimate(self, concurrent: int, pack: int = 1) -> Estimate:
        """Measures this machine for a few seconds and adds up the plan."""
        return estimate(self.spec, self.calibrate(), concurrent, pack)

    def calibrate(self) -> Calibration:
        """Measures this machine for a few seconds."""
        trial = self.first_trial()
        config = self.spec.gan_config(trial["params"])
        return calibrate(config, self.evaluator, trial["threads"])

    def make_runs(self) -> GANRuns:
        """Returns what makes the trials' runs on the workers."""
        return GANRuns(
            data=self.source,
            protocol=self.protocol,
            model=dict(self.spec.model),
            kimg_per_trial=self.spec.budget.kimg_per_trial,
            measure_kimg=self.spec.budget.measure_kimg,
            output=self.output,
            metric=self.spec.objective.metric,
            direction=self.spec.objective.direction,
        )

    def opened(self) -> StudyOpened:
        """Returns the first event of the study."""
        return StudyOpened(
            study=self.spec.study,
            study_id=uuid.uuid4().hex,
            spec=self.spec.model_dump(mode="json"),
            spec_digest=self.spec.digest,
            dataset_digest=self.protocol.dataset_digest,
            protocol_digest=self.protocol.digest,
            versions=dict(versions()),
            hardware=dict(hardware()),
        )

    def lines(self) -> Lines:
        """Scores what every trial is held against, once a study."""
        if self._recorded_lines is not None:
            return Lines.from_mapping(self._recorded_lines)
        if self.protocol.folds > 1:
            self._say(f"scoring the reference lines of {self.protocol.folds} folds")
        return Lines.of(self.evaluator)

    def write_study(self, opened: StudyOpened, lines: Lines) -> None:
        """Writes `study.json`: enough to run the study again, with `warm_start/` if it has one."""
        content = opened.model_dump(mode="json", exclude={"event", "session_seconds"}) | {
            "protocol": dataclasses.asdict(self.protocol),
            "dataset": self.dataset,
            "validation_lines": dataclasses.asdict(lines),
        }
        if self.spec.warm_start:
            digest = self._warm_start.freeze(self.output)
            content["warm_start"] = {"digest": digest, "trials": len(self._warm_start.trials)}
        write_json_atomic(self.output / STUDY_NAME, content)

    @property
    def dataset(self) -> dict[str, Any]:
        """What is said of the data in `study.json`."""
        splits = self.evaluator.splits
        return {
            "name": splits.name,
            "digest": splits.digest,
            "subset": splits.subset,
            "source": splits.source,
            "path": self.source.path,
            "conditions": self.source.conditions,
            "num_classes": splits.num_classes,
            "class_names": splits.class_names and list(splits.class_names),
            "condition_names": splits.condition_names and list(splits.condition_names),
            "images_digest": splits.images_digest,
            "image_shape": list(splits.image_shape),
        }


def painter(
    spec: StudySpec, output: Path, opened: StudyOpened, dataset: Mapping[str, Any], lines: Lines
) -> RunPainter:
    """Returns what draws the study's MLflow runs; `dataset` as `study.json` holds it."""
    return RunPainter(
        study=opened,
        dataset=Dataset(**{key: dataset[key] for key in ("name", "digest", "source", "subset")}),
        metric=spec.objective.metric,
        direction=spec.objective.direction,
        fixed_params=family_of(spec.model).defaults | spec.model,
        flags=partial(lines.flags_of, spec),
        output=output,
    )


def _check_sampler(spec: StudySpec, splits: DataSplits) -> None:
    """Refuses a way to draw conditions that these data have not, before a trial asks for it."""
    if splits.train.conditions is None or spec.model.get("condition") == "none":
        return
    wanted = [spec.model.get("condition_sampler")]
    for domain in spec.space.get("condition_sampler", ()):
        wanted += getattr(domain, "choices", ())
    for kind in wanted:
        settled_kind(cast(SamplerKind | None, kind), splits)


def _check_labels(spec: StudySpec, splits: DataSplits) -> None:
    if splits.num_classes is None:
        _check_metrics(spec, NEED_LABELS, f"needs data with labels, but {splits.source} has none")
    elif spec.model.get("condition") == "none":
        lacking = "needs a model with a condition, but `model.condition` is none"
        _check_metrics(spec, NEED_CONDITION, lacking)


def _check_metrics(spec: StudySpec, absent: frozenset[str], lacking: str) -> None:
    if spec.objective.metric in absent:
        raise StudyError(
            f"objective.metric: {spec.objective.metric} {lacking}; "
            "use `--set objective.metric=validation_log_likelihood`"
        )
    for position, aim in enumerate(spec.objective.also):
        if aim.metric in absent:
            raise StudyError(
                f"objective.also.{position}.metric: {aim.metric} {lacking}; name another metric"
            )
    for position, bound in enumerate(spec.objective.bounds):
        if bound.metric in absent:
            raise StudyError(
                f"objective.constraints.{position}: {bound.metric} {lacking}; leave it out"
            )
