"""Notebook 02: trackers of dirty pages."""

from __future__ import annotations

import math
from typing import Any

from colobench.guest.settings import PAGE_SIZE
from colobench.lab.course.exercise import Exercise
from colobench.lab.course.feedback import (
    Feedback,
    UnfitAnswerError,
    as_number,
    judge_number,
    near,
    right,
    shown,
    wrong,
)
from colobench.lab.course.lesson import Lesson
from colobench.lab.course.prediction import NumberAnswer, PredictedExperiment
from colobench.lab.studies.trackers import Epoch, UnavailableTracker, compare_trackers
from colobench.memory.tracker_names import TRACKERS

RAM_BYTES = 64 << 30
SMALL_PAGES = 4096
#: Writes for which a run in a check takes a moment.
MOST_WRITES = 1_000_000


def _judge_bits(answer: Any) -> Feedback:
    pages = RAM_BYTES // PAGE_SIZE
    return judge_number(
        answer,
        pages,
        why="A bit for each page, whether it is dirty or not.",
        hints={
            pages // 8: "Those are bytes. Eight pages share one.",
            RAM_BYTES: "That is a bit for each byte of RAM. What does a tracker note?",
            RAM_BYTES // 1000 // 4: "A page has 4,096 bytes, and a GiB has 2³⁰.",
        },
        otherwise="Divide RAM by the size of a page: `(64 << 30) // 4096`.",
    )


def _judge_one_page(answer: Any) -> Feedback:
    if not isinstance(answer, list) or not answer:
        raise UnfitAnswerError(
            f"answer: expected the list that `cb.compare_trackers` returns, found {shown(answer)}"
        )
    epochs = [each for each in answer if isinstance(each, Epoch)]
    if not epochs:
        return wrong("No tracker has run there.")
    pages = {each.pages for each in epochs}
    if pages == {0}:
        return wrong("No page is dirty in any epoch. The guest must write.")
    if not all(each.exact for each in epochs):
        return wrong("A tracker has missed a page.")
    if pages != {1}:
        return wrong(
            f"There are epochs with {max(pages):,} dirty pages. One write dirties one page: let "
            "the guest do fewer, with `writes`."
        )
    tried = {each.tracker for each in answer if isinstance(each, Epoch | UnavailableTracker)}
    if missing := [each for each in TRACKERS if each not in tried]:
        return wrong(
            f"The trackers {', '.join(missing)} were not tried. Leave `trackers` out: then all of "
            "them run."
        )
    return right(
        "Each tracker named that one page. Its collection still costs something: the cost that "
        "does not depend on dirty pages."
    )


def _dirty_pages(writes: int) -> float:
    """Let the guest `uniform` write so often, and count dirty pages; the mean of three epochs."""
    found = compare_trackers("16M", "uniform", epochs=3, writes=writes, trackers=["marked"])
    pages = [each.pages for each in found if isinstance(each, Epoch)]
    return sum(pages) / len(pages)


def _judge_half(answer: Any) -> Feedback:
    writes = as_number(answer)
    if writes != round(writes) or not 1 <= writes <= MOST_WRITES:
        raise UnfitAnswerError(
            f"answer: expected a whole number from 1 to {MOST_WRITES:,}, found {shown(answer)}"
        )
    share = _dirty_pages(int(writes)) / SMALL_PAGES
    words = f"With {writes:,.0f} writes {share:.0%} of the pages were dirty."
    if 0.45 <= share <= 0.55:
        return right(words)
    if 0.35 <= share <= 0.65:
        return near(f"{words} Some writes hit a page that is dirty already.")
    if share < 0.5:
        return wrong(f"{words} Take more.")
    return wrong(f"{words} Take fewer.")


def _judge_random(answer: float, outcome: float) -> Feedback:
    why = (
        f"{outcome:,.0f} pages were dirty. A page is missed by all of the writes with a "
        f"probability of about 1/e, {math.exp(-1):.0%}."
    )
    return judge_number(
        answer,
        outcome,
        why=why,
        hints={
            SMALL_PAGES: f"Some pages are hit several times, so others are not. {why}",
            SMALL_PAGES / 2: f"More than half of them are hit. {why}",
        },
        otherwise=why,
        exact=0.05,
        close=0.2,
    )


LESSON = Lesson(
    "02",
    exercises=(
        Exercise(
            "02.1",
            "A guest has 64 GiB of RAM. How many bits does a collection of `marked` read?",
            "a number of bits",
            'cb.exercise("02.1").check((64 << 30) // 4096)',
            _judge_bits,
            "RAM has that many pages, and a page has a bit.",
        ),
        Exercise(
            "02.2",
            "Let each epoch have exactly one dirty page, with every tracker that runs here: choose "
            "`guest` and `writes` of `cb.compare_trackers`. Look at the costs that remain.",
            "the list that `cb.compare_trackers` returns",
            """found = cb.compare_trackers(ram="16M", guest="sequential", epochs=3, writes=1)
print(cb.tabulate_trackers(found))
cb.exercise("02.2").check(found)""",
            _judge_one_page,
            "One write dirties one page, whatever the guest.",
        ),
        Exercise(
            "02.3",
            "`uniform` writes at random places of 16 MiB, 4,096 pages. How many writes in an epoch "
            "make about half of the pages dirty? The check runs the guest.",
            "a number of writes",
            """for writes in (2000, 2800, 4000):
    found = cb.compare_trackers("16M", "uniform", 3, writes, trackers=["marked"])
    print(writes, "writes:", [epoch.pages for epoch in found], "pages")
cb.exercise("02.3").check(2800)""",
            _judge_half,
            "After n writes a page is still clean with a probability of about exp(-n / 4096), "
            "which is a half at n = 4096 · ln 2.",
        ),
    ),
    predictions=(
        PredictedExperiment(
            "02.1",
            "A guest with 4,096 pages of RAM does 4,096 writes, each at a random place. How many "
            "pages are dirty then?",
            NumberAnswer("pages"),
            lambda: _dirty_pages(SMALL_PAGES),
            _judge_random,
        ),
    ),
)
