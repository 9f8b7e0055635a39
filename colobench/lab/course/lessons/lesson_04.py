"""Notebook 04: RAM and devices, together or apart."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from colobench.guest.settings import PAGE_SIZE
from colobench.lab.course.exercise import Exercise
from colobench.lab.course.feedback import (
    Feedback,
    as_instance,
    judge_number,
    near,
    right,
    wrong,
)
from colobench.lab.course.lesson import Lesson
from colobench.lab.course.prediction import CurveAnswer, PredictedExperiment
from colobench.lab.session.record import CheckpointRecord
from colobench.lab.session.session import Session
from colobench.lab.studies.sweep import Line, fit_line

LARGE_PAGES = (64 << 30) // PAGE_SIZE
SHARE = 4
ENOUGH_PAGES = 500
PLACES = (0.0, 250.0, 500.0, 750.0, 1000.0)


@cache
def _buffer_line() -> Line:
    """Fit the bytes of a primary's buffer to the pages in it, by a few buffered checkpoints."""
    settings: dict[str, Any] = {
        "guest": "uniform",
        "writes_per_tick": 64,
        "layout": "buffered",
        "verify": False,
    }
    with Session(ram="16M", delay=None, **settings) as session:
        for ticks in (1, 4, 8, 16):
            session.wait_for_ticks(ticks)
            session.checkpoint()
    records = session.records
    return fit_line(records.column("pages"), records.column("primary_buffer_bytes"))


def _judge_large(answer: Any) -> Feedback:
    page_bytes = round(_buffer_line().slope)
    pages = LARGE_PAGES // SHARE
    return judge_number(
        answer,
        page_bytes * pages / 1e9,
        why=f"{pages:,} pages of {page_bytes:,} bytes each, on the primary and on the secondary.",
        hints={
            PAGE_SIZE * pages / 1e9: "A page in the buffer has a be64 before it.",
            page_bytes * pages / 2**30: "Those are GiB. Divide by 10⁹.",
            page_bytes * LARGE_PAGES / 1e9: "That is all of RAM. A quarter of it is dirty.",
            page_bytes * pages: "Those are bytes. Divide by 10⁹.",
            page_bytes * pages / 1e6: "Those are MB. Divide by 1,000.",
        },
        otherwise="Multiply the dirty pages by the bytes that a page takes in the buffer.",
        exact=1e-3,
        close=0.02,
    )


def _judge_record(answer: Any) -> Feedback:
    record = as_instance(answer, CheckpointRecord, "a record, such as `session.records[-1]`")
    if record.pages < ENOUGH_PAGES:
        return wrong(f"It sent {record.pages:,} pages. Let the guest write more of them.")
    if record.layout == "buffered":
        return wrong("Its buffer has the pages, too. Choose the other layout.")
    if record.primary_buffer_bytes != record.device_bytes:
        return wrong("Its buffer has more than the devices: no memory of the strategy's own.")
    return right(
        f"{record.pages:,} pages went directly into the stream, and the buffer has "
        f"{record.primary_buffer_bytes:,} bytes."
    )


def _measure_curve() -> tuple[float, ...]:
    line = _buffer_line()
    return tuple((line.intercept + line.slope * x) / 1e6 for x in PLACES)


def _judge_curve(answer: tuple[float, ...], outcome: tuple[float, ...]) -> Feedback:
    guess, measured = np.array(answer), np.array(outcome)
    error = float(np.median(np.abs(guess[1:] - measured[1:]) / measured[1:]))
    why = f"It grows by {1e6 * (measured[-1] - measured[0]) / PLACES[-1]:,.0f} bytes for each page."
    if error <= 0.15:
        return right(why)
    if np.ptp(guess) <= 0.1 * guess.max(initial=1e-9):
        return wrong(f"A flat line is the separated layout, whose buffer has no page. {why}")
    if guess[-1] < guess[0]:
        return wrong(f"More pages do not need less memory. {why}")
    if error <= 0.4:
        return near(why)
    return wrong(f"The buffer has all dirty pages at once. {why}")


LESSON = Lesson(
    "04",
    exercises=(
        Exercise(
            "04.1",
            "A guest of 64 GiB has written a quarter of its pages. How many GB (10⁹ bytes) does a "
            "*buffered* checkpoint need for them on each side?",
            "a number of GB",
            'cb.exercise("04.1").check(4104 * (64 << 30) // 4096 // 4 / 1e9)',
            _judge_large,
            "With `separated` it needs as much as the devices: less than a page.",
        ),
        Exercise(
            "04.2",
            f"Take a checkpoint that sends at least {ENOUGH_PAGES} pages, and whose buffer on the "
            "primary has the devices and nothing else.",
            "its record, such as `session.records[-1]`",
            """settings = {"guest": "uniform", "writes_per_tick": 256}
with cb.Session(ram="16M", delay=None, **settings) as session:
    session.wait_for_ticks(20)
    record = session.checkpoint()
cb.exercise("04.2").check(record)""",
            _judge_record,
            "That is the gain of patch 31: the buffer does not depend on the pages.",
        ),
    ),
    predictions=(
        PredictedExperiment(
            "04.1",
            "A buffered checkpoint puts dirty pages and devices into one buffer before anything is "
            "sent. How large is that buffer, by the number of dirty pages?",
            CurveAnswer(PLACES, "dirty pages", "buffer (MB)", 6.0),
            _measure_curve,
            _judge_curve,
        ),
    ),
)
