"""Notebook 90: the cockpit."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

from colobench.lab.cockpit.export import changed_settings
from colobench.lab.cockpit.run import CockpitRun
from colobench.lab.course.exercise import Exercise
from colobench.lab.course.feedback import (
    Feedback,
    UnfitAnswerError,
    as_choice,
    right,
    shown,
    wrong,
)
from colobench.lab.course.lesson import Lesson
from colobench.lab.session.record import PHASES
from colobench.lab.session.session import Session
from colobench.settings.checkpoint import Capture
from colobench.settings.transport import PageTransport

_TRANSPORTS = tuple(each.value for each in PageTransport)
#: Checkpoints from which a median is taken seriously.
ENOUGH = 10


def _judge_transports(answer: Any) -> Feedback:
    runs = _as_runs(getattr(getattr(answer, "overlay", None), "runs", answer))
    if not runs:
        return wrong("There is no run yet: press Start in the cockpit.")
    if short := [each for each in runs if len(each.records()) < ENOUGH]:
        runs = [each for each in runs if each not in short]
        if not runs:
            return wrong(
                f"{short[0].name!r} has {len(short[0].records())} checkpoints, of at least "
                f"{ENOUGH}. Let it run for longer."
            )
    groups: dict[str, dict[str, CockpitRun]] = {}
    for run in runs:
        groups.setdefault(_all_but_transport(run), {})[_transport(run)] = run
    most = max(groups.values(), key=len)
    if missing := [each for each in _TRANSPORTS if each not in most]:
        others = {_transport(run) for run in runs} - set(most)
        if others:
            return wrong(
                "Two runs differ in more than the transport, so their pauses cannot be told apart "
                "by it. Change that one choice only."
            )
        return wrong(f"There is no run with {' and none with '.join(missing)} yet.")
    medians = {name: run.records().percentile("pause_ms", 50) for name, run in sorted(most.items())}
    words = ", ".join(f"{name} {median:.2f} ms" for name, median in medians.items())
    return right(
        f"The median pauses are {words}: {min(medians, key=lambda each: medians[each])} has the "
        "shortest one for this guest, on this machine."
    )


def _as_runs(answer: Any) -> list[CockpitRun]:
    if not isinstance(answer, list | tuple) or not all(
        isinstance(each, CockpitRun) for each in answer
    ):
        raise UnfitAnswerError(f"answer: expected the runs of a cockpit, found {shown(answer)}")
    return list(answer)


def _transport(run: CockpitRun) -> str:
    return run.settings.checkpoint.transport.pages.value


def _all_but_transport(run: CockpitRun) -> str:
    """Write all other settings, so that runs which differ in the transport alone have the same."""
    # Without those that follow from the transport.
    rest = changed_settings(run.settings)
    rest.pop("transport", None)
    return json.dumps(rest, sort_keys=True)


@cache
def _phases(capture: Capture) -> frozenset[str]:
    """Name the phases that the pause has, from a pair of its own."""
    settings: dict[str, Any] = {"guest": "hotcold", "capture": capture, "verify": False}
    with Session(ram="16M", delay=20, **settings) as session:
        records = session.run(ENOUGH)
    # The first one is the time before the guest is stopped, and the last one a remainder.
    return frozenset(each for each in PHASES[1:-1] if records.percentile(f"{each}_ms", 50) > 0)


def _judge_phase(answer: Any) -> Feedback:
    found = as_choice(answer, PHASES)
    stands, copies = _phases(Capture.STOP_AND_SEND), _phases(Capture.COPY_THEN_SEND)
    if found in copies - stands:
        return right("The guest runs again when the pages are copied, and they are sent meanwhile.")
    if found in stands - copies:
        return wrong("It is gone from the pause, as it goes on while the guest runs.")
    if found in stands or found == PHASES[-1]:
        return wrong("Both pauses have it.")
    return wrong("Neither pause has it: compare the two runs in 'pause by phase'.")


LESSON = Lesson(
    "90",
    exercises=(
        Exercise(
            "90.1",
            "Which transport has the shortest pause for this guest? Let runs with `stream`, "
            "`multifd` and `memfd` be drawn over each other, which differ in nothing else.",
            "the runs, `cockpit.overlay.runs`",
            """for transport in ("stream+unix", "multifd+unix", "memfd+unix"):
    cockpit.choose("transport", transport)
    cockpit.overlay.start(cockpit.form.settings(), seconds=3)
cockpit.wait()
cb.exercise("90.1").check(cockpit.overlay.runs)""",
            _judge_transports,
            "The code does the same as the choice and the button Start, with shorter runs.",
        ),
        Exercise(
            "90.2",
            "Draw a run with the capture `copy-then-send` over one with `stop-and-send`. Which "
            "phase does the pause have in place of those that are gone?",
            "the name of a phase, as the plot names it",
            """for capture in ("stop-and-send", "copy-then-send"):
    with cb.Session(ram="16M", capture=capture, verify=False, delay=20) as session:
        records = session.run(10)
    medians = {each: records.percentile(f"{each}_ms", 50) for each in ("copy", "ram", "received")}
    print(capture, medians)
cb.exercise("90.2").check("copy")""",
            _judge_phase,
            "Copying memory takes less time than sending it, and the same bytes travel afterwards.",
        ),
    ),
)
