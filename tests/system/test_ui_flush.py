"""The quiz about the flush, and the slider that cuts a checkpoint: on live pairs."""

from __future__ import annotations

import numpy as np
import pytest

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
    quiz.guess.value = 77
    press(quiz, quiz.flush_button)
    assert quiz.right()
    assert sum(shown(flushed).values()) == quiz.record.flushed_pages
    assert "your guess was 77" in quiz.status.value
    assert "NOT" not in quiz.status.value


RIGHT, WRONG, NO_GUESS = "#62a964", "#d4606a", "#8b95a3"


@pytest.mark.parametrize(
    ("off", "words", "colour"),
    [
        (0, "Right: your guess was", RIGHT),
        (1, "Not right: your guess was", WRONG),
        (-1, "Not right: your guess was", WRONG),
        (None, "You made no guess.", NO_GUESS),
    ],
)
def test_the_quiz_tells_a_right_guess_from_a_wrong_one(quiz, off, words, colour):
    press(quiz, quiz.take_button)
    assert quiz.guessed_right() is None
    if off is not None:
        quiz.guess.value = quiz.pending.foretold_pages + off
    press(quiz, quiz.flush_button)
    assert quiz.guessed_right() is (None if off is None else off == 0)
    assert words in quiz.status.value
    assert f"border-left: 4px solid {colour}" in quiz.status.value
    # The next round begins without the guess of this one.
    press(quiz, quiz.take_button)
    assert quiz.guess.value == 0
    press(quiz, quiz.flush_button)
    assert "You made no guess." in quiz.status.value


def test_the_next_round_takes_the_same_pair_unless_another_guest_is_chosen(quiz):
    press(quiz, quiz.take_button)
    press(quiz, quiz.flush_button)
    session = quiz.session
    press(quiz, quiz.take_button)
    press(quiz, quiz.flush_button)
    assert quiz.session is session
    quiz._controls["working_set"].value = 64
    press(quiz, quiz.take_button)
    assert quiz.session is not session
    assert quiz.session.settings.guest.working_set == 64
    assert not any(node.alive() for node in session.nodes.values())


def test_a_pair_that_dies_while_one_thinks_is_told_and_the_next_round_begins_anew(quiz):
    press(quiz, quiz.take_button)
    quiz.session.nodes["primary"].kill()
    quiz.flush_button.click()
    quiz.wait()
    assert "It failed" in quiz.status.value
    press(quiz, quiz.take_button)
    press(quiz, quiz.flush_button)
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
