"""A recorded trial trained again in this process, without Ray, by the code of a trial."""

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cgan_core.evaluation import Protocol, version_for
from search.data_source import DataSource
from search.gan_run import GANRuns
from search.machine import SOURCE, versions
from search.recorded_trial import RecordedTrial
from search.run_state import THEN
from search.seat import OwnSeat, Place
from search.study import StudySpec
from search.study_file import StudyError

STEP_SECONDS = 2.0  # as a trial steps
# What numbers depend on, of the packages whose versions a study records.
_PACKAGES = ("numpy", "cgan-search", SOURCE)


@contextmanager
def repeating(trial: RecordedTrial, output: Path) -> Iterator[OwnSeat]:
    """Yields the seat on which the trial begins anew.

    Args:
        trial: the record.
        output: where its pictures and points go; not the study's folder.

    A trial that began from the state of another one does so again: its ancestors are trained
    first, each as far as it was copied.

    Raises:
        StudyError: The study's protocol is not that of this program, its trial was trained by
            two kinds of streams, or an ancestor comes to no state.
        DataError: The study's data cannot be had, or are others now.
        SpecError: The study's spec is not one of this program.
    """
    spec = StudySpec.from_mapping(trial.study["spec"])
    runs = GANRuns(
        data=_source(trial, spec),
        protocol=_protocol(trial),
        model=dict(spec.model),
        kimg_per_trial=spec.budget.kimg_per_trial,
        measure_kimg=spec.budget.measure_kimg,
        output=output,
        metric=spec.objective.metric,
        direction=spec.objective.direction,
        streams=_streams(trial),
    )
    state = _donated(trial, spec, runs)
    seat = _seat(trial, runs)
    seat.open(_config(trial, spec) | {"donor": str(state)}, state)
    try:
        yield seat
    finally:
        seat.close()


def check_repeatable(trial: RecordedTrial) -> None:
    """Checks what can be checked without the data.

    Raises:
        StudyError: As by `repeating`.
    """
    _protocol(trial)
    _streams(trial)


def _seat(trial: RecordedTrial, runs: GANRuns) -> OwnSeat:
    on_gpu = trial.device is not None and trial.device.startswith("cuda")
    return OwnSeat(runs, "cuda:0" if on_gpu else "cpu", trial.pack)


def _donated(trial: RecordedTrial, spec: StudySpec, runs: GANRuns) -> Path | None:
    """Trains the donor of a trial, and its donors, and saves the state that the trial took."""
    donor = trial.donor
    if donor is None:
        return None
    before, seat = _donated(donor, spec, runs), _seat(donor, runs)
    seat.open(_config(donor, spec) | {"donor": str(before)}, before)
    try:
        kimg = 0.0
        while kimg < trial.donor_kimg:
            progress = seat.step(STEP_SECONDS)
            if progress.infeasible:
                raise StudyError(
                    f"{trial.place}: begins from trial {donor.number} at {trial.donor_kimg:g} "
                    f"kimg, which does not come there again ({progress.infeasible})"
                )
            kimg = progress.kimg if progress.metrics is not None else kimg
        folder = runs.output / f"donor-{trial.number}"
        folder.mkdir()
        seat.save(folder)
    finally:
        seat.close()
    return folder


def differences_of_place(trial: RecordedTrial, here: Place) -> str | None:
    """Says in one line where versions or hardware are not those of the record."""
    then, now = trial.study["versions"], versions()
    pairs = [("torch", trial.torch or then.get("torch"), here.torch)]
    pairs += [(name, then.get(name), now[name]) for name in _PACKAGES]
    differing = [(name, old, new) for name, old, new in pairs if old not in (None, new)]
    processor = trial.processor or trial.study["hardware"].get("processor")
    elsewhere = processor != here.processor
    if not differing and not elsewhere:
        return None
    shown = differing or pairs[:1]
    recorded = ", ".join(f"{name} {old}" for name, old, _ in shown)
    found = ", ".join(f"{name} {new}" for name, _, new in shown)
    return (
        f"recorded with {recorded} on {processor}, here {found} on {here.processor}: "
        "expect differences by rounding at least, which training amplifies"
    )


def _config(trial: RecordedTrial, spec: StudySpec) -> dict[str, Any]:
    return {
        "number": trial.number,
        "replicate": trial.replicate,
        "seed": trial.seed,
        "fold": trial.fold,
        "noise_draw": trial.noise_draw,
        "threads": trial.threads or spec.resources.threads,
        "params": dict(trial.params),
    }


def _source(trial: RecordedTrial, spec: StudySpec) -> DataSource:
    return DataSource.of(spec.data, spec.seed, trial.study["dataset"])


def _protocol(trial: RecordedTrial) -> Protocol:
    recorded = trial.study["protocol"]
    version = recorded.get("version")
    ours = version_for(recorded.get("num_classes"))
    if version != ours or {*recorded, "folds"} != {  # there were none at first
        field.name for field in dataclasses.fields(Protocol)
    }:
        raise StudyError(
            f"{trial.place}: was scored under version {version} of the protocol "
            f"(docs/protocol.md), this program scores under version {ours}; install "
            f"cgan-search {trial.study['versions'].get('cgan-search')}, which recorded it"
        )
    protocol = Protocol(**recorded)
    if protocol.digest != trial.study["protocol_digest"]:
        raise StudyError(
            f"{trial.place}: its protocol is not the one that was recorded (digest "
            f"{trial.study['protocol_digest'][:12]}, now {protocol.digest[:12]}); bring the "
            "unchanged study.json back"
        )
    return protocol


def _streams(trial: RecordedTrial) -> str | None:
    if trial.streams is not None and THEN in trial.streams:
        raise StudyError(
            f"{trial.place}: was trained on {trial.streams} streams, as it was gone on with on "
            "another kind of device; no training in one piece gives the same numbers"
        )
    return trial.streams
