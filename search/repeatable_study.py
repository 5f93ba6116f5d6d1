"""A whole study as its journal has it: the events, and each run that can be trained again."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from search.events import Event, Measured, RunKey, StudyOpened
from search.history import JOURNAL_NAME
from search.journal import Journal
from search.ledger import Ledger, LedgerError
from search.lines import Lines
from search.parquet import RecordError
from search.recorded_trial import RecordedTrial
from search.run_state import RunState
from search.seen_trial import SeenTrial
from search.study import SpecError, StudySpec
from search.study_file import STUDY_NAME, read_study
from search.warm_start import WarmStart

_AS_IN_THE_RUN = (
    *("number", "replicate", "purpose", "fold", "noise_draw", "state", "reason", "seed"),
    *("device", "threads", "streams", "torch", "processor"),
)


@dataclass(frozen=True, kw_only=True)
class RepeatableStudy:
    """A study on record; it may still be running.

    Attributes:
        folder: Where it lies.
        opened: Its first event.
        spec: What was searched.
        events: All of them; event i is line i + 1 of the journal.
        ledger: The state that they lead to.
    """

    folder: Path
    opened: StudyOpened
    spec: StudySpec
    events: Sequence[Event]
    ledger: Ledger

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Reads the journal; nothing else is needed.

        Raises:
            JournalError: It has a broken line, or one of another version.
            RecordError: It is missing, its events contradict each other, there is no trial yet,
                or the study's spec is not one of this program.
        """
        path = folder / JOURNAL_NAME
        if not path.is_file():
            raise RecordError(f"{path}: is missing; is this the folder of a study?")
        events, ledger = Journal.read(path), Ledger()
        for line, event in enumerate(events, start=1):
            try:
                ledger.apply(event)
            except LedgerError as error:
                raise RecordError(
                    f"{path}:{line}: must hold events as they were written, but {error}; bring "
                    "the unchanged file back"
                ) from None
        if ledger.study is None or not ledger.trials:
            raise RecordError(f"{path}: holds no trial yet, so there is nothing to replay")
        opened = ledger.study
        try:
            spec = StudySpec.from_mapping(opened.spec)
        except SpecError as error:
            reasons = "; ".join(str(error).splitlines())
            raise RecordError(
                f"{path}:1: `spec` must be one of this program, but: {reasons}; install "
                f"cgan-search {opened.versions.get('cgan-search')}, which recorded it"
            ) from None
        return cls(folder=folder, opened=opened, spec=spec, events=events, ledger=ledger)

    def lines(self) -> Lines | None:
        """What its trials were held against; None where there is no `study.json` to say it.

        Raises:
            StudyError, RecordError: As by `runs`, if there is one.
        """
        if not (self.folder / STUDY_NAME).exists():
            return None
        recorded = self._study().get("validation_lines")
        return None if recorded is None else Lines.from_mapping(recorded)

    def earlier(self) -> tuple[SeenTrial, ...]:
        """The trials of earlier studies that its models were told of.

        Raises:
            RecordError: They are not as they were.
        """
        if not self.spec.warm_start:
            return ()
        frozen = WarmStart.thaw(self.folder, self._study()["warm_start"]["digest"])
        return frozen.seen(self.spec.objective)

    def _study(self) -> Mapping[str, Any]:
        study = read_study(self.folder)
        for name in ("study_id", "spec_digest", "dataset_digest", "protocol_digest"):
            old, new = getattr(self.opened, name), str(study.get(name))
            if old != new:
                raise RecordError(
                    f"{self.folder / STUDY_NAME}: must be of the study in {JOURNAL_NAME}, but "
                    f"{name} is {new[:12]}, not {old[:12]}; bring the unchanged files back"
                )
        return study

    def runs(self) -> list[RecordedTrial]:
        """The runs that measured something or became infeasible, as far as they came.

        Raises:
            StudyError: `study.json` is missing or broken.
            RecordError: It is that of another study.
        """
        study = self._study()
        measured: dict[RunKey, dict[float, Mapping[str, float]]] = defaultdict(dict)
        for event in self.events:
            # Also what a lost attempt measured: it was judged by then.
            if isinstance(event, Measured):
                measured[event.run][event.kimg] = event.metrics
        for run in self.ledger.runs:
            if run.continues is not None:  # a course that began under another replicate
                before = measured[RunKey(run.number, run.continues)]
                measured[run.key] = {**before, **measured[run.key]}
        return [
            self._recorded(run, study, dict(sorted(measured[run.key].items())))
            for run in self.ledger.runs
            if measured[run.key] or run.state == "INFEASIBLE"
        ]

    def _recorded(
        self,
        run: RunState,
        study: Mapping[str, Any],
        measurements: Mapping[float, Mapping[str, float]],
    ) -> RecordedTrial:
        which = f":{run.replicate}" if run.replicate else ""
        donor = self.ledger.trials[run.number].donor if run.inherited_kimg else None
        return RecordedTrial(
            place=f"{self.folder}:{run.number}{which}",
            study=study,
            params=self.ledger.trials[run.number].params,
            pack=run.pack or 1,
            measurements=measurements,
            donor=self._recorded(self.ledger.trials[donor.number].first, study, {})
            if donor
            else None,
            donor_kimg=donor.kimg if donor else 0.0,
            **{name: getattr(run, name) for name in _AS_IN_THE_RUN},
        )
