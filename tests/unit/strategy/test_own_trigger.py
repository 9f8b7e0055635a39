"""A user's own trigger: its source is found, and runs in time or ends with the user's line."""

from __future__ import annotations

import importlib
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from colobench.errors import LocalError
from colobench.node.own_trigger import OwnTriggerRunner
from colobench.node.thread_alarm import ThreadAlarm
from colobench.settings.checkpoint import Strategy
from colobench.settings.own_trigger import make_trigger, trigger_as_json
from colobench.strategy.own import OwnTrigger
from colobench.strategy.trigger import Situation
from colobench.strategy.triggers import FixedDelay

CELL = """
import math


class Mine:
    needs = ["dirty_pages"]
    maximum = 70

    def ask(self, seen):
        return "mine" if seen.dirty_pages else 3
"""
#: As a notebook's kernel runs a cell, whose source is in no file.
SHELL = """
import json, sys
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell.instance()
shell.run_cell(sys.argv[1]).raise_error()
shell.run_cell("from colobench.settings.own_trigger import *").raise_error()
print(shell.run_cell("json.dumps(trigger_as_json(make_trigger(Mine())))", silent=False).result)
"""


class Answers:
    """Gives what it was made with, or raises it, or does it."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer

    def ask(self, seen: Any) -> Any:
        if self.answer == "raise":
            raise KeyError("missing")  # the line
        while self.answer == "loop":
            pass
        if self.answer == "sleep":
            import time

            time.sleep(30)
        return self.answer


class Needy:
    """Needs a set, whose order is another one in each process."""

    needs = {"miscompare", "dirty_pages"}  # noqa: RUF012

    def ask(self, seen: Any) -> Any:
        return 1


@pytest.fixture
def runners() -> Iterator[list[OwnTriggerRunner]]:
    found: list[OwnTriggerRunner] = []
    yield found
    for each in found:
        each.close()


def run(runners: list[OwnTriggerRunner], answer: Any, ran_ms: float = 0.0) -> Any:
    own = make_trigger(Answers(answer))
    assert isinstance(own, OwnTrigger)
    assert make_trigger(json.loads(json.dumps(trigger_as_json(own)))) == own
    runners.append(OwnTriggerRunner(own))
    return runners[-1].ask(Situation(0.0, ran_ms), None)


def test_the_source_of_a_class_in_a_notebooks_cell_is_found() -> None:
    found = subprocess.run(
        [sys.executable, "-c", SHELL, "import json\n" + CELL],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    own = make_trigger(json.loads(found.stdout.splitlines()[-1].split("Out")[-1]))
    assert isinstance(own, OwnTrigger)
    assert (own.name, own.line, own.needed, own.maximum) == ("Mine", 6, ("dirty_pages",), 70)
    assert own.code == CELL[CELL.index("class") :]


def test_a_module_that_is_loaded_again_gives_its_new_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    found = []
    for answer in ("3", "'longer'"):
        text = f"class Edited:\n    def ask(self, seen):\n        return {answer}\n"
        (tmp_path / "edited_trigger.py").write_text(text)
        module = importlib.import_module("edited_trigger")
        found.append(make_trigger(importlib.reload(module).Edited()))
        assert isinstance(found[-1], OwnTrigger)
        assert found[-1].code == text
    assert found[0] != found[1]


@pytest.mark.parametrize("answer", ["a cause", 3, 2.5, 0, -1])
def test_an_answer_is_a_cause_or_a_time(runners: list[OwnTriggerRunner], answer: Any) -> None:
    assert run(runners, answer) == answer


def test_no_answer_is_later_than_the_maximum(runners: list[OwnTriggerRunner]) -> None:
    assert run(runners, 5000, ran_ms=400.0) == 600.0
    assert run(runners, 5000, ran_ms=1000.0) == "timer"


@pytest.mark.parametrize("answer", [None, True, "", [], {}], ids=repr)
def test_any_other_answer_is_an_error(runners: list[OwnTriggerRunner], answer: Any) -> None:
    with pytest.raises(LocalError, match="trigger Answers: expected a cause, or the milliseconds"):
        run(runners, answer)


def test_a_number_too_large_for_a_float_is_an_error(runners: list[OwnTriggerRunner]) -> None:
    for answer in (10**400, -(10**400)):
        with pytest.raises(LocalError, match="trigger Answers: expected a cause, or the millisec"):
            run(runners, answer)


@pytest.mark.parametrize("answer", ["requested", "shutdown", "disk"])
def test_no_trigger_gives_a_cause_of_the_node(runners: list[OwnTriggerRunner], answer: str) -> None:
    with pytest.raises(LocalError, match=f"not the node's own, found '{answer}'"):
        run(runners, answer)


@pytest.mark.parametrize("answer", ["x" * 101, "two\nlines", "\ud800", "\0"], ids=ascii)
def test_a_cause_can_be_shown_wherever_records_are(
    runners: list[OwnTriggerRunner], answer: str
) -> None:
    with pytest.raises(LocalError, match="trigger Answers: expected a cause of at most 100 print"):
        run(runners, answer)


def test_needs_have_one_order_whatever_they_are_written_as() -> None:
    own = make_trigger(Needy())
    assert isinstance(own, OwnTrigger)
    assert own.needed == ("dirty_pages", "miscompare")


@pytest.mark.parametrize("answer", [{1: 2}, [{"a": ({None: 1},)}]], ids=repr)
def test_keys_that_json_would_change_are_refused(answer: Any) -> None:
    with pytest.raises(LocalError, match=r"trigger Answers: .* found the key (1|None), which is"):
        make_trigger(Answers(answer))


def test_a_class_derived_from_a_trigger_is_not_run_as_that_one() -> None:
    class Later(FixedDelay):
        def ask(self, seen: Situation, memory: Any) -> Any:
            return "later"

    with pytest.raises(LocalError, match=r"trigger Later: .* found one derived from FixedDelay"):
        Strategy(trigger=Later(20))


def test_an_error_has_the_users_line(runners: list[OwnTriggerRunner]) -> None:
    with open(__file__, encoding="utf-8") as file:
        lines = file.read().splitlines()
    number = next(i for i, line in enumerate(lines, 1) if line.endswith("# the line"))
    with pytest.raises(LocalError, match=f"trigger Answers, line {number}: KeyError: 'missing'"):
        run(runners, "raise")


@pytest.mark.parametrize("answer", ["loop", "sleep"])
def test_thinking_for_too_long_is_an_error(runners: list[OwnTriggerRunner], answer: str) -> None:
    with pytest.raises(LocalError, match=r"line \d+: expected an answer within 1 s"):
        run(runners, answer)


def test_a_loop_is_ended(runners: list[OwnTriggerRunner]) -> None:
    with pytest.raises(LocalError):
        run(runners, "loop")
    deadline = time.monotonic() + 60
    while runners[0]._thread.is_alive():
        assert time.monotonic() < deadline
        runners[0]._thread.join(0.1)


def test_source_that_does_not_run_is_an_error_with_its_line() -> None:
    own = OwnTrigger(name="Bad", code="class Bad:\n    x = 1 / 0\n", file="cell", line=7)
    with pytest.raises(LocalError, match="trigger Bad, line 8: ZeroDivisionError"):
        OwnTriggerRunner(own)


#: A call of C that never lets go of Python's lock, in a process whose limit is short.
LOCKED = """
import sys
from colobench.node import own_trigger
from colobench.settings.own_trigger import make_trigger
from colobench.strategy.trigger import Situation
sys.path.insert(0, sys.argv[1])
from locked import Locked
own_trigger.LOCKED_SECONDS = 0.3
own_trigger.OwnTriggerRunner(make_trigger(Locked())).ask(Situation(0.0, 0.0), None)
"""


def test_a_trigger_that_keeps_pythons_lock_ends_its_process_with_the_users_line(
    tmp_path: Path,
) -> None:
    source = "class Locked:\n    def ask(self, seen):\n        return sum(range(10**12))\n"
    (tmp_path / "locked.py").write_text(source)
    found = subprocess.run(
        [sys.executable, "-c", LOCKED, str(tmp_path)], capture_output=True, text=True, timeout=120
    )
    assert found.returncode == -signal.SIGVTALRM
    assert f'File "{tmp_path}/locked.py", line 3 in ask' in found.stderr


def test_an_alarm_does_not_outlive_what_it_was_set_for() -> None:
    alarm = ThreadAlarm()
    for _ in range(3):
        alarm.set(1e-3)
        alarm.set(0)
    began = time.thread_time()
    while time.thread_time() < began + 0.02:
        pass
    alarm.close()
