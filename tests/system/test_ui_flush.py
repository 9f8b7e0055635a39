"""The quiz about the flush, and the slider that cuts a checkpoint: on live pairs."""

from __future__ import annotations

import numpy as np
import pytest

from colobench.lab.course.score_book import book
from colobench.lab.report.palette import BAD_COLOUR, BUSY_COLOUR, GOOD_COLOUR
from colobench.lab.session.session import Session
from colobench.lab.studies.torn_checkpoint import Cut, TornCheckpoint
from colobench.ui.base.panel import Panel
from colobench.ui.panels.flush_guess import FlushGuess
from colobench.ui.views.cut_slider import CutSlider
from feeds import sets_of

pytestmark = pytest.mark.usefixtures("nothing_left")


@pytest.fixture
def quiz():
    quiz = FlushGuess(ram="4M")
    yield quiz
    quiz.close()
    assert Panel._current is None
    book.forget()


def press(quiz, button):
    assert not button.disabled
    button.click()
    quiz.wait()
    assert quiz.background.error is None


def shown(page_sets):
    return {each["name"]: each["pages"] for each in sets_of(page_sets)}


@pytest.mark.parametrize("variant", ["v12", "upstream"])
def test_a_round_shows_both_sides_first_and_the_answer_after_the_guess(quiz, variant):
    quiz._controls["variant"].value = variant
    assert quiz.flush_button.disabled
    press(quiz, quiz.take_button)
    assert quiz.take_button.disabled
    assert quiz.session.settings.checkpoint.variant == variant
    received, written, flushed = quiz.maps
    assert shown(received) == {"pages": quiz.pending.received_pages}
    assert shown(written) == {"pages": quiz.pending.written_pages}
    assert shown(flushed) == {}
    assert str(quiz.pending.foretold_pages) not in flushed.feed.frame["title"]
    assert "not committed" in quiz.status.value
    quiz.guess.value = "7"
    press(quiz, quiz.flush_button)
    assert quiz.right()
    assert sum(shown(flushed).values()) == quiz.record.flushed_pages
    assert "Your guess was 7" in quiz.status.value
    assert "NOT" not in quiz.status.value


@pytest.mark.parametrize(
    ("guess", "opening", "colour"),
    [
        (lambda pending: pending.foretold_pages, "Right.", GOOD_COLOUR),
        (lambda pending: pending.foretold_pages + 1, "Near.", BUSY_COLOUR),
        (lambda pending: 10 * pending.foretold_pages, "Not right. Your guess was", BAD_COLOUR),
        (
            lambda pending: pending.received_pages + pending.written_pages,
            "Not right. You counted twice",
            BAD_COLOUR,
        ),
    ],
)
def test_the_quiz_tells_right_guesses_near_ones_and_wrong_ones(quiz, guess, opening, colour):
    press(quiz, quiz.take_button)
    quiz.guess.value = f"{guess(quiz.pending):,}"
    press(quiz, quiz.flush_button)
    assert f"border-left: 4px solid {colour}" in quiz.status.value
    assert f">{opening}" in quiz.status.value


def test_without_a_guess_nothing_is_flushed(quiz):
    press(quiz, quiz.take_button)
    for text in ("", "many", "-1", "1.5", "1,5", "9" * 5000):
        quiz.guess.value = text
        quiz.flush_button.click()
        assert quiz.background.doing is None
        assert quiz.record is None
        assert "Commit to an answer first" in quiz.status.value
    guess_and_flush(quiz)
    # The next round begins without the guess of this one.
    press(quiz, quiz.take_button)
    assert quiz.guess.value == ""
    assert "Commit to an answer first" not in quiz.status.value


def guess_and_flush(quiz):
    quiz.guess.value = "1"
    press(quiz, quiz.flush_button)


def test_the_next_round_takes_the_same_pair_unless_another_guest_is_chosen(quiz):
    press(quiz, quiz.take_button)
    guess_and_flush(quiz)
    session = quiz.session
    press(quiz, quiz.take_button)
    guess_and_flush(quiz)
    assert quiz.session is session
    quiz._controls["working_set"].value = 64
    press(quiz, quiz.take_button)
    assert quiz.session is not session
    assert quiz.session.settings.guest.working_set == 64
    assert not any(node.alive() for node in session.nodes.values())


def test_a_pair_that_dies_while_one_thinks_is_told_and_the_next_round_begins_anew(quiz):
    press(quiz, quiz.take_button)
    quiz.session.nodes["primary"].kill()
    quiz.guess.value = "1"
    quiz.flush_button.click()
    quiz.wait()
    assert "It failed" in quiz.status.value
    press(quiz, quiz.take_button)
    guess_and_flush(quiz)
    assert quiz.right()


def test_the_slider_shows_the_cut_that_it_stands_at():
    def cut(pages, committed, cached, direct):
        arrived = np.zeros(17, dtype=np.uint64)
        arrived[0] = (1 << pages) - 1
        return Cut(4104 * pages, pages, arrived, committed, cached, direct)

    cuts = (cut(0, False, 2, 2), cut(1, False, 2, None), cut(2, True, 3, 3))
    view = CutSlider(TornCheckpoint(3, Session(ram="4M").settings.guest.ram_bytes, cuts))
    assert view.cut is cuts[1]
    assert shown(view.map) == {"of checkpoint 3": 1, "still of checkpoint 2": 1}
    assert "With a RAM cache, RAM is that of checkpoint 2" in view.words.value
    assert "Without, RAM is of no checkpoint at all" in view.words.value
    view.slider.value = 2
    assert shown(view.map) == {"of checkpoint 3": 2, "still of checkpoint 2": 0}
    assert "Without, RAM is that of checkpoint 3" in view.words.value
    assert "committed" in view.words.value
