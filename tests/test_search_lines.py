"""What trials are held against where their scores are means over folds."""

from dataclasses import replace
from pathlib import Path
from statistics import fmean

import pytest
from tiny_data import tiny_splits
from tiny_study import content, write_npz

from cgan_core.evaluation import Evaluator, Protocol, protocol_for
from cgan_core.references import real_images, untrained, validation_line
from search.lines import Lines
from search.prepared import PreparedStudy
from search.study import StudySpec

FOLDS = 3
SPLITS = tiny_splits(train=240)  # 60 of the rarer classes, 40 of them outside a fold


def protocol_of(samples: int) -> Protocol:
    return replace(protocol_for(SPLITS, 0, FOLDS), num_samples=samples)


def test_they_are_the_means_over_the_folds_that_trials_are_scored_on() -> None:
    protocol = protocol_of(90)
    lines = Lines.of(Evaluator(SPLITS, protocol))
    judges = [Evaluator(SPLITS, protocol, fold=fold) for fold in range(FOLDS)]
    real = [validation_line(one, real_images(one)) for one in judges]
    before = [validation_line(one, untrained(one)) for one in judges]
    assert lines.real_data == pytest.approx(fmean(real))
    assert lines.untrained == pytest.approx(fmean(before))
    # A trial whose samples are real images scores that line, to the last digit.
    assert not lines.above_real_data(fmean(real), 0.0)
    assert lines.above_real_data(fmean(real) + 0.01, 0.0)
    assert lines.real_data != Lines.of(Evaluator(SPLITS, replace(protocol, folds=1))).real_data


def test_where_folds_leave_too_few_real_images_the_lines_are_those_of_validation() -> None:
    """A line of fewer samples than trials have would be too low."""
    protocol = protocol_of(150)
    lines = Lines.of(Evaluator(SPLITS, protocol))
    assert lines == Lines.of(Evaluator(SPLITS, replace(protocol, folds=1)))


def test_a_resumed_study_has_the_lines_that_it_began_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are scored once a study: over folds of full MNIST that takes minutes."""
    spec = StudySpec.from_mapping(content(write_npz(tmp_path / "tiny.npz")))
    begun = PreparedStudy(spec, tmp_path, resume=False, say=print)
    lines = begun.lines()
    begun.write_study(begun.opened(), lines)
    monkeypatch.delattr(Lines, "of")
    assert PreparedStudy(spec, tmp_path, resume=True, say=print).lines() == lines
