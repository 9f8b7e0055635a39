"""The panel of a prediction: nothing runs before an answer, and the run scores it."""

from __future__ import annotations

import pytest

from colobench.lab.course import lesson
from colobench.lab.course.feedback import near, right, wrong
from colobench.lab.course.prediction import (
    ChoiceAnswer,
    CurveAnswer,
    NumberAnswer,
    PredictedExperiment,
)
from colobench.lab.course.score_book import book
from colobench.ui.base.panel import turn
from colobench.ui.panels import prediction_panel
from colobench.ui.panels.prediction_panel import PredictionPanel
from colobench.ui.views.curve_input import CurveInput
from feeds import frame_of

NUMBER = NumberAnswer("pages")
CHOICE = ChoiceAnswer(("yes", "no"))
CURVE = CurveAnswer((0.0, 10.0, 20.0), "pages", "bytes", 100.0)


@pytest.fixture
def panel_of(monkeypatch):
    opened = []

    def make(form, outcome, judge=lambda answer, outcome: right("so")):
        runs = []

        def run():
            runs.append(outcome)
            if isinstance(outcome, Exception):
                raise outcome
            return outcome

        asked = PredictedExperiment("03.9", "How many?", form, run, judge)
        monkeypatch.setattr(prediction_panel, "predicted_experiment", lambda number: asked)
        panel = PredictionPanel("03.9")
        opened.append(panel)
        return panel, runs

    yield make
    for panel in opened:
        panel.close()
    book.forget()
    assert lesson.lesson_numbers()


@pytest.mark.parametrize("form", [NUMBER, CHOICE, CURVE], ids=["number", "choice", "curve"])
def test_without_an_answer_nothing_runs_and_nothing_is_told(panel_of, form):
    panel, runs = panel_of(form, 7)
    panel.commit_button.click()
    panel.wait()
    assert runs == []
    assert "Commit to an answer first" in panel.status.value
    assert book.all() == ()


def test_a_number_is_taken_only_if_it_is_one(panel_of):
    panel, runs = panel_of(NUMBER, 7)
    # A comma is no point, and "2,5" would be 25.
    for text in ("many", "nan", "2,5", "31 ms", ""):
        panel.answer.value = text
        panel.commit()
        assert "Commit to an answer first" in panel.status.value
        assert text in panel.status.value
    panel.answer.value = "1,234.5 pages"
    panel.commit()
    panel.wait()
    assert runs == [7]
    assert "Right. so" in panel.status.value


def test_the_first_answer_counts(panel_of):
    panel, _ = panel_of(
        CHOICE, "no", lambda answer, outcome: right() if answer == outcome else wrong("?")
    )
    for answer in ("yes", "no"):
        panel.answer.value = answer
        panel.commit()
        panel.wait()
    assert "Right." in panel.status.value
    assert [(each.points, each.tries) for each in book.all()] == [(0.0, 2)]


def test_a_curve_is_an_answer_when_it_is_drawn_everywhere_and_the_measured_one_joins_it(panel_of):
    panel, runs = panel_of(CURVE, (0.0, 40.0, 80.0), lambda answer, outcome: near("so"))
    assert isinstance(panel.answer, CurveInput)
    panel.answer.drawn.values = [1.0, None, 3.0]
    panel.commit()
    assert runs == []
    panel.answer.drawn.values = [1, 40, 3]
    assert frame_of(panel.answer)["measured"] is None
    panel.commit()
    panel.wait()
    assert frame_of(panel.answer)["measured"] == [0.0, 40.0, 80.0]
    assert "Near. so" in panel.status.value


def test_a_measured_value_above_the_end_of_the_axis_is_drawn_where_it_is(panel_of):
    panel, _ = panel_of(CURVE, (0.0, 40.0, 800.0))
    panel.answer.drawn.values = [1, 40, 3]
    panel.commit()
    panel.wait()
    assert frame_of(panel.answer)["y_most"] == 800.0
    panel.reset_button.click()
    panel.wait()
    assert frame_of(panel.answer)["y_most"] == 100.0


def test_an_experiment_that_fails_is_told_and_not_scored(panel_of):
    panel, _ = panel_of(CHOICE, RuntimeError("no pair"))
    panel.answer.value = "yes"
    panel.commit()
    panel.wait()
    assert "It failed: RuntimeError: no pair" in panel.status.value
    assert book.all() == ()


def test_a_panel_that_waits_for_its_turn_waits_no_more_when_it_is_reset_or_closed(panel_of):
    panel, runs = panel_of(CHOICE, "no")
    with turn.taken(lambda: True):
        panel.answer.value = "yes"
        panel.commit()
        panel.reset_button.click()
        panel.wait()
        assert panel.answer.value is None
        panel.answer.value = "yes"
        panel.commit()
        panel.close()
    assert runs == []


def test_a_question_has_one_panel_and_others_stay_open(panel_of, monkeypatch):
    first, _ = panel_of(CHOICE, "no")
    monkeypatch.undo()
    other = PredictionPanel("03.1")
    assert first.comm is not None
    again = PredictionPanel("03.1")
    assert other.comm is None
    assert again.comm is not None
    again.close()
