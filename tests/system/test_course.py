"""The course's exercises: each solution that a notebook shows is right, and hints fit answers."""

from __future__ import annotations

import ast
import importlib.util
import re
import sys
from inspect import isfunction
from pathlib import Path
from typing import Any

import pytest

import colobench as cb
from colobench.lab.cockpit.run import CockpitRun
from colobench.lab.course.feedback import Grade
from colobench.lab.course.lesson import exercise, lesson, lesson_numbers, predicted_experiment
from colobench.lab.course.lessons import lesson_03, lesson_12
from colobench.lab.course.notebook_cells import exercises_markdown
from colobench.lab.course.prediction import ChoiceAnswer
from colobench.lab.course.score_book import book
from colobench.lab.session.record import Records
from colobench.settings.settings import Settings
from colobench.ui.panels.cockpit import Cockpit
from places import CLONE
from records import make_record
from share import some

#: Most of them start pairs, so a short run takes a share; COLOBENCH_LONG=1 solves all.
EXERCISES = some([each for number in lesson_numbers() for each in lesson(number).exercises], 8)
PREDICTIONS = some([each for number in lesson_numbers() for each in lesson(number).predictions], 2)


@pytest.fixture(autouse=True)
def empty_book():
    yield
    book.forget()


def solution_of(number: str) -> str:
    """Take a solution from the text that the notebook shows."""
    text = exercises_markdown(lesson(number.partition(".")[0])).partition(f"**{number}**")[2]
    found = re.search(r"```python\n(.*?)\n```", text, re.DOTALL)
    assert found is not None
    return found[1]


def close_cockpit():
    if Cockpit._current is not None:
        Cockpit._current.close()


def run_as_cell(code: str, directory: Path, before: str = "") -> Any:
    """Run code as a notebook does, from a file, so that classes have a source.

    Gives the value of the last line. `before` is code of earlier cells.
    """
    tree = ast.parse(f"import colobench as cb\nfrom colobench import ui\n{before}\n{code}")
    last = tree.body.pop()
    assert isinstance(last, ast.Expr)
    tree.body.append(ast.parse(f"feedback = {ast.unparse(last)}").body[0])
    file = directory / "solution_of_exercise.py"
    file.write_text(ast.unparse(tree))
    spec = importlib.util.spec_from_file_location(file.stem, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[file.stem] = module
    try:
        spec.loader.exec_module(module)
    finally:
        del sys.modules[file.stem]
    return module.feedback


@pytest.mark.parametrize("number", [each.number for each in EXERCISES])
def test_the_solution_that_a_notebook_shows_is_right(number, tmp_path, monkeypatch):
    monkeypatch.chdir(CLONE / "notebooks")
    before = "cockpit = ui.Cockpit()" if number == "90.1" else ""
    feedback = run_as_cell(solution_of(number), tmp_path, before)
    close_cockpit()
    assert feedback.grade is Grade.RIGHT, feedback


@pytest.mark.parametrize("number", [each.number for each in PREDICTIONS])
def test_a_prediction_is_scored_by_its_run(number):
    asked = predicted_experiment(number)
    outcome = asked.run()
    assert asked.judge(asked.form.read(outcome), outcome).grade is Grade.RIGHT
    if isinstance(asked.form, ChoiceAnswer):
        others = [asked.judge(each, outcome) for each in asked.form.options if each != outcome]
        assert all(each.grade is not Grade.RIGHT for each in others)


KEPT = CLONE / "datasets" / "reproductions" / "2026-11-30-2-cores.json"


class AsksAtOnce:
    def ask(self, seen):
        return "at once"


class AsksByTheClock:
    def ask(self, seen):
        return "time" if seen.ran_ms >= 100 else 1


class AsksForPages:
    needs = ("dirty_pages",)

    def ask(self, seen):
        return "pages" if seen.dirty_pages >= 200 else 1


class AsksEarly:
    def ask(self, seen):
        return "early" if seen.ran_ms >= 20 else 1


class NeedsNothing:
    def ask(self, seen):
        return "due" if seen.dirty_pages >= 200 or seen.ran_ms >= 40 else 1


class Divides:
    def ask(self, seen):
        return 1 / seen.dirty_pages


def one_write_too_many():
    return cb.compare_trackers("16M", "uniform", 1, 50, trackers=["marked"])


def one_tracker():
    return cb.compare_trackers("16M", "uniform", 1, 1, trackers=["marked"])


def nothing_written():
    return cb.compare_trackers("16M", "idle", 1, 50, trackers=["marked"])


def records_of(**settings):
    usual = {"ram": "16M", "guest": "uniform", "writes_per_tick": 64, "verify": False}
    with cb.Session(**usual | settings) as session:
        return session.run(7)


def sent(layout, writes_per_tick, working_set=0):
    settings = {"guest": "uniform", "writes_per_tick": writes_per_tick, "layout": layout}
    settings["working_set"] = working_set
    with cb.Session(ram="16M", verify=False, delay=None, **settings) as session:
        session.wait_for_ticks(20)
        return session.checkpoint()


def stages_of_pages(without):
    """List the stages in which pages may come, but one."""
    accepted = {
        each.stage for each in cb.probe_stages() if each.section == "PART" and each.accepted
    }
    return sorted(accepted - {without})


class LikeARun(CockpitRun):
    """A run of a cockpit that has a name, settings and records, and no pair."""

    def __init__(self, transport, count=20, **settings):
        self.name, self.settings = transport, Settings().override(transport=transport, **settings)
        self._count = count

    def records(self):
        return Records(make_record(number) for number in range(1, self._count + 1))


def taken_over(victim):
    with cb.Session(ram="16M", delay=None) as session:
        session.run(1)
        session.kill(victim)
        return session.failover()


ALL_TRANSPORTS = ("stream+unix", "multifd+unix", "memfd+unix")
#: Typical wrong answers, each of which has a hint of its own; those that run something are
#: functions without arguments.
WRONG: dict[str, tuple[Any, ...]] = {
    "00.1": (lambda: taken_over("primary"),),
    "00.2": (8, 0, 6, 20),
    "01.1": (0, -1, 3),
    "01.2": ("sized buffer", "VMSTATE_SIZE"),
    "01.3": (0, lambda: records_of(delay=20, guest="idle")[-1].device_bytes, 1e6),
    "02.1": ((64 << 30) // 4096 // 8, 64 << 30, 64),
    "02.2": (one_write_too_many, nothing_written, one_tracker),
    "02.3": (100, 50_000),
    "03.1": (*(rule for rule, _ in lesson_03.WRONG_RULES), lambda received, written: received[0]),
    "03.2": (7,),
    "04.1": (17.18, 16.03, 68.85, 4104 * (64 << 30) / 4096 / 4, 17213, 1),
    "04.2": (lambda: sent("separated", 1, 100), lambda: sent("buffered", 64)),
    "05.1": ("SET", "SET and INCR", "none of them"),
    "06.2": ("SET", "GET", "DEL"),
    "07.1": (
        *("colo_v12", "colo_v12,transport=memfd", "colo_v12,transport=carrier-pigeon"),
        "colo_v12,transport=memfd,capture=copy-then-send",
        "remus,transport=memfd,capture=copy-then-send,delay=20,output=compare",
    ),
    "07.2": (
        lambda: records_of(delay=20),
        # Few writes a tick: a trigger that is asked late must still find fewer than 100 pages.
        lambda: records_of(strategy=DIRTY.format(20), writes_per_tick=4),
    ),
    "07b.1": (4096, 8, 5000),
    "07b.2": (
        lambda: cb.read_reproductions(KEPT)["rate"],
        lambda: cb.read_reproductions(KEPT)["event"],
    ),
    "08.1": (28.28, 1600, 800, 5),
    "08.2": (
        AsksAtOnce(),
        AsksEarly(),
        AsksByTheClock(),
        AsksForPages(),
        NeedsNothing(),
        Divides(),
    ),
    "09.1": (
        ["COLO_DEVICES", "COLO_RAM"],
        lambda: stages_of_pages("COLO_PASS"),
        lambda: stages_of_pages("PRECOPY"),
        lambda: stages_of_pages("COLO_BUFFER"),
        lambda: stages_of_pages("COLO_RAM"),
        ["COLO_RAM"],
    ),
    "09.2": (1, 2, 7),
    "11.1": (0, 99),
    "11.2": ("SENT", "RUNNING", "SENDING", "REQUESTED"),
    "11.3": ("LOADING", "LOST_HEARTBEAT", "TAKEN_OVER", "BEGIN"),
    "12.1": (
        lambda active, hidden, image: hidden or active or image,
        lambda active, hidden, image: active or image,
        lambda active, hidden, image: active or hidden,
        lambda active, hidden, image: active[0],
    ),
    "12.2": (
        lesson_12.WRITTEN * lesson_12.SECTOR_SIZE,
        (lesson_12.WRITTEN + 1) * lesson_12.CLUSTER_SIZE,
        *(640, lesson_12.WRITTEN, 1),
    ),
    "12.3": (["active", "hidden"],),
    "90.1": (
        [],
        [LikeARun("stream+unix", 3)],
        [LikeARun("stream+unix"), LikeARun("memfd+unix")],
        [LikeARun(each, delay=delay) for delay, each in enumerate(ALL_TRANSPORTS, 20)],
    ),
    "90.2": ("ram", "stop", "hash"),
}
DIRTY = "dirty_volume,trigger=dirty:pages={}"
#: Exercises whose answers are functions.
FUNCTIONS = ("03.1", "12.1")


@pytest.mark.parametrize("number", some(list(WRONG), 7))
def test_each_typical_wrong_answer_has_its_own_hint(number):
    measured = number not in FUNCTIONS
    answers = [each() if measured and isfunction(each) else each for each in WRONG[number]]
    found = [exercise(number).check(answer) for answer in answers]
    assert all(each.grade is Grade.WRONG for each in found)
    assert len({each.words for each in found}) == len(found)
