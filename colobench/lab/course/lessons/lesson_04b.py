"""Notebook 04b: transports and encodings, on the running pair."""

from __future__ import annotations

from functools import cache
from typing import Any

from colobench.errors import LocalError
from colobench.kernels.page_records import PAGE_RECORD_BYTES
from colobench.lab.course.exercise import Exercise
from colobench.lab.course.feedback import (
    Feedback,
    as_choice,
    as_number,
    judge_number,
    near,
    right,
    wrong,
)
from colobench.lab.course.lesson import Lesson
from colobench.lab.course.prediction import ChoiceAnswer, PredictedExperiment
from colobench.lab.studies.transport_table import TransportTable, tabulate_transports
from colobench.memory.ram import PAGE_SIZE
from colobench.settings.settings import Settings
from colobench.settings.transport import PageTransport

_TRANSPORTS = tuple(each.value for each in PageTransport)


@cache
def _transports() -> TransportTable:
    return tabulate_transports([{"transport": each} for each in _TRANSPORTS], checkpoints=3)


def _least_bytes() -> str:
    least = min(_transports(), key=lambda each: each.page_overhead)
    return str(least.form["transport"])


def _judge_least(answer: str, outcome: str) -> Feedback:
    if answer == outcome:
        return right("Only the list of pages travels; the secondary copies from the primary's RAM.")
    if answer == "multifd":
        return wrong("It has the same pages on more connections, with a header for each packet.")
    return wrong("Each page travels whole on the stream, behind 8 bytes that name it.")


def _judge_record(answer: Any) -> Feedback:
    truth = PAGE_RECORD_BYTES - PAGE_SIZE
    if truth < as_number(answer) < 2 * truth:
        return near(
            "The table's bytes on the stream have the devices and the messages, too, which are no "
            "part of a record. An address and its flags take fewer bytes."
        )
    return judge_number(
        answer,
        truth,
        why="One be64 has the page's address and its flags; the block's name comes only once.",
        hints={
            0: "Then the secondary could not know where the page belongs.",
            PAGE_RECORD_BYTES: "That is the whole record. How much of it is not the page?",
            4: "An address in the block and its flags share one be64.",
        },
        otherwise="Compare bytes on the stream with bytes of the pages, in the table.",
    )


def _judge_devices(answer: Any) -> Feedback:
    found = as_choice(answer, ("stream", "channels"))
    multifd = _transports().find(transport="multifd")
    devices = sum(each.device_bytes for each in multifd.records)
    if found == ("stream" if multifd.main >= devices > 0 else "channels"):
        return right("Messages, the size and the devices stay on the connection of the stream.")
    return wrong("Count the bytes on the stream: what is left there when the pages are not?")


def _judge_tcp(answer: Any) -> Feedback:
    refused = []
    for each in _TRANSPORTS:
        try:
            Settings().override(transport=f"{each}+tcp")
        except LocalError:
            refused.append(each)
    found = as_choice(answer, _TRANSPORTS)
    if [found] == refused:
        return right("A descriptor of the primary's RAM passes only through a UNIX socket.")
    return wrong("Its bytes are ordinary bytes, which TCP carries. Try `transport='…+tcp'`.")


LESSON = Lesson(
    "04b",
    exercises=(
        Exercise(
            "04b.1",
            "By how many bytes is the record of a page on the stream longer than the page?",
            "a number of bytes",
            'found = cb.tabulate_transports([{"transport": "stream"}], checkpoints=3)[0]\n'
            "extra = (found.page_overhead - 1) * 4096  # a bit more: messages and footers\n"
            'cb.exercise("04b.1").check(int(extra))',
            _judge_record,
            "The table's bytes on the stream also have the devices and the messages.",
        ),
        Exercise(
            "04b.2",
            "With `multifd`, on which connection does the state of the devices travel?",
            "`'stream'` or `'channels'`",
            'found = cb.tabulate_transports([{"transport": "multifd"}], checkpoints=3)[0]\n'
            "devices = sum(record.device_bytes for record in found.records)\n"
            'cb.exercise("04b.2").check("stream" if found.main >= devices else "channels")',
            _judge_devices,
            "A sized buffer is one message, and needs no second connection.",
        ),
        Exercise(
            "04b.3",
            "Which transport cannot be used over TCP?",
            "the name of a transport",
            'cb.exercise("04b.3").check("memfd")',
            _judge_tcp,
            "`cb.Session(transport='memfd+tcp')` is refused before anything starts.",
        ),
    ),
    predictions=(
        PredictedExperiment(
            "04b.1",
            "The same guest, protected with each transport. With which one do the fewest bytes "
            "travel between the nodes for each dirty page?",
            ChoiceAnswer(_TRANSPORTS),
            _least_bytes,
            _judge_least,
        ),
    ),
)
