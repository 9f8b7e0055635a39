"""Notebook 07b: published shapes, measured again."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from colobench.kernels import xbzrle
from colobench.lab.course.exercise import Exercise
from colobench.lab.course.feedback import Feedback, as_instance, judge_number, right, wrong
from colobench.lab.course.lesson import Lesson
from colobench.lab.course.prediction import ChoiceAnswer, PredictedExperiment
from colobench.lab.reproductions.reproduction import Reproduced, State
from colobench.lab.session.session import Session
from colobench.memory.ram import PAGE_SIZE


@cache
def _page_bytes() -> int:
    """Find the bytes that a page takes in a secondary's buffer, from one buffered checkpoint."""
    settings: dict[str, Any] = {"guest": "uniform", "layout": "buffered", "verify": False}
    with Session(ram="16M", delay=None, **settings) as session:
        session.wait_for_ticks(20)
        record = session.checkpoint()
    return (record.secondary_buffer_bytes - record.device_bytes) // record.pages


def _judge_page_bytes(answer: Any) -> Feedback:
    return judge_number(
        answer,
        _page_bytes(),
        why="A page's 4,096 bytes, and the be64 before it: its offset in RAM, and flags.",
        hints={
            4096: "A loader must know which page it is. Something stands before each page.",
            8: "That is what stands before a page. Add the page.",
        },
        otherwise=(
            "Divide what the buffer has besides the devices by the pages, in a checkpoint of many "
            "pages: the section of RAM has some bytes of its own."
        ),
        exact=5e-4,
    )


def _judge_not_shown(answer: Any) -> Feedback:
    found = as_instance(answer, Reproduced, 'one claim, such as `kept["rate"]`')
    if found.state is State.VALID:
        return wrong(f"All gates of {found.reproduction.name} hold. Look for one that does not.")
    if found.state is State.INVALID:
        return right("It was measured, and a gate does not hold: the text says why.")
    return right("Its interval has the bound in it, so the run cannot tell whether the gate holds.")


HALF, LITTLE_LESS, WHOLE = (
    "about half of a page: the changed bytes",
    "a little less than a page: the changed bytes, and some lengths",
    "nothing that fits into a page, so the page is sent whole",
)


def _every_second_byte() -> str:
    """Encode a page of which each second byte has changed, by the kernel of the nodes."""
    old = np.zeros(PAGE_SIZE, dtype=np.uint8)
    new = old.copy()
    new[::2] = 1
    out = np.empty(PAGE_SIZE + xbzrle.SLACK, dtype=np.uint8)
    length = xbzrle.encode(old, 0, new, 0, out, PAGE_SIZE)
    if length == xbzrle.OVERFLOW:
        return WHOLE
    return HALF if length < 0.75 * PAGE_SIZE else LITTLE_LESS


def _judge_encoded(answer: str, outcome: str) -> Feedback:
    if answer == outcome:
        return right(
            "Each changed byte has two lengths beside it: of the run of equal bytes before it, and "
            "of its own run. That is three bytes for two."
        )
    if answer == HALF:
        return wrong(
            "The receiver must know where the changed bytes are. Each run of them, and each run "
            "between them, has its length in the encoding: three bytes for two."
        )
    return wrong("There are as many lengths as runs: three bytes of encoding for two of the page.")


LESSON = Lesson(
    "07b",
    exercises=(
        Exercise(
            "07b.1",
            "With the layout `buffered`, how many bytes of the secondary's buffer belong to a "
            "page? Take a checkpoint, or read the claim `separated`.",
            "a number of bytes",
            """settings = {"guest": "uniform", "layout": "buffered"}
with cb.Session(ram="16M", delay=None, **settings) as session:
    session.wait_for_ticks(20)
    record = session.checkpoint()
in_pages = record.secondary_buffer_bytes - record.device_bytes
cb.exercise("07b.1").check(in_pages // record.pages)""",
            _judge_page_bytes,
            "The division leaves a small remainder, which belongs to the section of RAM.",
        ),
        Exercise(
            "07b.2",
            "Find a claim that the kept run does *not* show to hold. Why not?",
            'one claim, such as `kept["rate"]`',
            """kept = cb.read_reproductions("../datasets/reproductions/2026-11-30-2-cores.json")
print(kept)
cb.exercise("07b.2").check(kept["multifd"])""",
            _judge_not_shown,
            "Two hosts have more cores than the machine of that run, so channels gain less.",
        ),
    ),
    predictions=(
        PredictedExperiment(
            "07b.1",
            "In the example's page, few bytes have changed, and next to each other. Now each "
            "second byte of a page has changed. What does the encoder make of it?",
            ChoiceAnswer((HALF, LITTLE_LESS, WHOLE)),
            _every_second_byte,
            _judge_encoded,
        ),
    ),
)
