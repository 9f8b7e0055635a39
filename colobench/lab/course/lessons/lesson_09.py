"""Notebook 09: the review of patch 31, on the running code."""

from __future__ import annotations

from functools import cache
from typing import Any

from colobench.lab.course.exercise import Exercise
from colobench.lab.course.feedback import (
    Feedback,
    UnfitAnswerError,
    as_choice,
    judge_number,
    right,
    shown,
    wrong,
)
from colobench.lab.course.lesson import Lesson
from colobench.lab.course.prediction import ChoiceAnswer, PredictedExperiment
from colobench.lab.session.session import Session
from colobench.lab.studies.stage_table import STAGES, probe_stages, section_types

_OUTCOMES = (
    "it is loaded, as in QEMU",
    "it is refused, by an error with the stage, the section types allowed, and the offset",
    "the secondary waits for more bytes until its peer counts as silent",
)


def _device_among_ram() -> str:
    [answer] = [
        each for each in probe_stages() if (each.stage, each.section) == ("COLO_RAM", "FULL")
    ]
    return _OUTCOMES[0 if answer.accepted else 1]


def _judge_device(answer: str, outcome: str) -> Feedback:
    if answer == outcome:
        return right("The stage has a set of section types, and FULL is none of RAM's.")
    if answer == _OUTCOMES[0]:
        return wrong("QEMU's one loader does so in each stage. The review asked for better.")
    return wrong("The first byte of a section is its type, so nothing has to be waited for.")


def _judge_stages(answer: Any) -> Feedback:
    try:
        given = None if isinstance(answer, str) else list(answer)
    except TypeError:
        given = None
    if given is None:
        raise UnfitAnswerError(f"answer: expected a list of names, found {shown(answer)}")
    names = tuple(stage.name for stage in STAGES)
    found = {as_choice(each, names) for each in given}
    truth = {each.stage for each in probe_stages() if each.section == "PART" and each.accepted}
    if found == truth:
        return right("All stages in which pages of RAM may come.")
    if "COLO_DEVICES" in found:
        return wrong("COLO_DEVICES has the small buffer alone, and no page comes in it.")
    if truth - found == {"COLO_PASS"}:
        return wrong("A pass between checkpoints brings pages, too.")
    if truth - found == {"PRECOPY"}:
        return wrong("Live migration brings pages, too, before there is any checkpoint.")
    if truth - found == {"COLO_BUFFER"}:
        return wrong("With the layout `buffered` the pages are in the sized buffer.")
    if truth - found == {"COLO_RAM"}:
        return wrong(
            "With the layout `separated` a checkpoint's pages come in a stage of their own."
        )
    return wrong("Read the column PART of the table.")


@cache
def _starts_of_third_checkpoint() -> int:
    with Session(ram="16M", delay=None, keep_stream=True) as session:
        session.run(2)
        session.relay.forget()  # type: ignore[union-attr]
        session.run(1)
        return section_types(session).count("START")


def _judge_starts(answer: Any) -> Feedback:
    return judge_number(
        answer,
        _starts_of_third_checkpoint(),
        why="RAM's START came with the migration, and its section id stays known.",
        hints={
            1: "Before patch 32 of the series that was so: each checkpoint said START again.",
            2: "START and END would be two sections; only one of them is START.",
        },
        otherwise="Forget the relay's bytes, take a checkpoint, and list its section types.",
    )


LESSON = Lesson(
    "09",
    exercises=(
        Exercise(
            "09.1",
            "In which stages may a PART section come? Do not look into the source; ask the loader.",
            "a list of names of stages",
            "table = cb.probe_stages()\n"
            'stages = [each.stage for each in table if each.section == "PART" and each.accepted]\n'
            'cb.exercise("09.1").check(stages)',
            _judge_stages,
            "PART carries pages; a stage without pages refuses it.",
        ),
        Exercise(
            "09.2",
            "How many START sections does the third checkpoint of a pair have?",
            "a number",
            'with cb.Session(ram="16M", delay=None, keep_stream=True) as session:\n'
            "    session.run(2)\n"
            "    session.relay.forget()\n"
            "    session.run(1)\n"
            "    types = cb.section_types(session)\n"
            'cb.exercise("09.2").check(types.count("START"))',
            _judge_starts,
            "A handler lives as long as the pair. That is why nothing is freed between "
            "checkpoints.",
        ),
    ),
    predictions=(
        PredictedExperiment(
            "09.1",
            "In the middle of RAM's part of a checkpoint, a FULL section of a device comes. What "
            "does the secondary do with it?",
            ChoiceAnswer(_OUTCOMES),
            _device_among_ram,
            _judge_device,
        ),
    ),
)
