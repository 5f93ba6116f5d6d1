"""What a dry run says of a study, with what its words claim worked out here."""

import math
import re
from pathlib import Path

import pytest
from hand_study import ASHA, NOBODY_STOPS, STEADY, cost, spec
from tiny_study import content, write_npz

from cgan_core.data import load_data
from cgan_core.evaluation import Evaluator, protocol_for
from cgan_core.references import real_images
from search.preview import preview, span
from search.study import StudySpec
from search.winner_error import WinnerError

ERROR = WinnerError(points_error=5.04, num_points=1500, trainings=1)


def said(study: StudySpec, error: WinnerError = ERROR) -> str:
    return "\n".join(preview(study, cost(study), STEADY, error))


def test_a_study_without_chance_takes_what_it_takes() -> None:
    text = said(spec(6, NOBODY_STOPS, confirm={"top": 1, "seeds": 2}))
    assert "time        5 min (90 % of 30 simulated studies), 6 of 6 trials trained" in text
    assert "confirming  the best 1 on 2 fresh seeds each, in full: 80 s of that\n" in text
    assert "work        0.2 device-hours\n" in text
    assert "at most" not in text.split("work")[0]


def test_the_time_budget_says_how_far_it_reaches() -> None:
    text = said(spec(6, NOBODY_STOPS, time=160.0))
    assert "time        3 min (90 % of 30 simulated studies), 4 of 6 trials trained" in text
    assert "the time budget ends it after 3 min: 100 % of the searches, with 6 trials" in text


def test_racing_says_its_part() -> None:
    text = said(spec(9, NOBODY_STOPS, replication={"seeds": 3, "adaptive": True}))
    assert re.search(r"\nracing {6}up to 3 seeds for [^\n]*: \S+.* of that\n", text)


def test_the_plan_and_two_others_are_compared() -> None:
    rows = [line.split() for line in said(spec(12, ASHA)).splitlines()[-6:-2]]
    assert [row[0] for row in rows] == ["plan", "as", "surer", "wider"]
    assert rows[1][-1] == "1"
    assert rows[2][2:4] == ["x", "2"]
    assert all(float(row[-4]) > 0 for row in rows[2:])
    # Over before anything was measured, nobody knows.
    assert said(spec(12, ASHA, time=1.0)).count(" unknown\n") == 2


def test_a_winner_is_as_sure_as_its_points_and_its_seeds() -> None:
    text = said(spec(6, NOBODY_STOPS))
    assert "winner      ± 5.0 ± s nats: 5.0 by its 1500 points" in text
    assert "s by its seed, s unknown until it is replicated\n" in text
    # E max of two, three and six standard normals: 1/sqrt(pi), 3/(2 sqrt(pi)), 1.2672.
    assert "the best of 6 in full looks 1.3 s too good by luck, but not on fresh seeds" in text
    double = said(spec(3, NOBODY_STOPS, replication={"seeds": 4}))
    assert f"looks {1.5 / math.sqrt(math.pi):.1f} s/√4 too good" in double
    assert "by luck" not in said(spec(1, NOBODY_STOPS))


def test_points_spread_as_those_of_real_images(tmp_path: Path) -> None:
    splits = load_data(path=write_npz(tmp_path / "tiny.npz"))
    evaluator = Evaluator(splits, protocol_for(splits))
    scores = evaluator.validation(real_images(evaluator))
    pooled = StudySpec.from_mapping(content(tmp_path / "tiny.npz"))
    found = WinnerError.expected(pooled, evaluator)
    assert found.points_error == pytest.approx(scores.standard_error)
    assert (found.num_points, found.trainings) == (scores.num_points, 1)
    given_class = {"metric": "conditional_log_likelihood"}
    study = StudySpec.from_mapping(content(tmp_path / "tiny.npz", objective=given_class))
    found = WinnerError.expected(study, evaluator)
    assert found.points_error == pytest.approx(scores.conditional_standard_error)
    no_mean = {"metric": "label_accuracy"}
    confirm = {"top": 2, "seeds": 3}
    other = content(tmp_path / "tiny.npz", objective=no_mean, confirm=confirm)
    found = WinnerError.expected(StudySpec.from_mapping(other), evaluator)
    assert found.describe()[0].startswith("winner      ± s/√3: s/√3 by the seeds of its 3")


def test_folds_score_every_training_image(tmp_path: Path) -> None:
    splits = load_data(path=write_npz(tmp_path / "tiny.npz"))
    study = StudySpec.from_mapping(content(tmp_path / "tiny.npz", replication={"folds": 2}))
    found = WinnerError.expected(study, Evaluator(splits, protocol_for(splits)))
    assert (found.num_points, found.trainings) == (len(splits.train.images), 2)


@pytest.mark.parametrize(
    ("low", "high", "text"),
    [
        ("13 min", "23 min", "13 to 23 min"),
        ("80 s", "2 min", "80 s to 2 min"),
        ("3 h 20 min", "4 h", "3 h 20 min to 4 h"),
        ("5", "5", "5"),
        ("1", "3", "1 to 3"),
    ],
)
def test_an_interval_as_people_say_it(low: str, high: str, text: str) -> None:
    assert span(low, high) == text
