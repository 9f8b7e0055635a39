"""A user's own trigger in a node: its source is run in a thread, and may think for one second.

The class has a method ``ask(seen)``, which returns as `colobench.strategy.trigger.Trigger.ask` does
for a `Situation`. It may have ``learn(seen)``, which is called after each checkpoint, ``maximum``
(milliseconds, usually 1000) and ``needs``, a list of `NEEDS`.
"""

from __future__ import annotations

import ctypes
import json
import math
import queue
import sys
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from colobench.errors import LocalError
from colobench.fields.checks import show
from colobench.node.thread_alarm import ThreadAlarm
from colobench.strategy.own import OwnTrigger
from colobench.strategy.trigger import NODE_CAUSES, TIMER, Answer, Situation

#: Seconds for which a trigger may think, and steps in which they are waited for: time in which this
#: process does not run counts as no more than a step.
THINKING_SECONDS, STEP_SECONDS = 1.0, 0.02
#: Seconds of a processor that it may have without letting others have Python, as one long call of C
#: does: its process ends then, because no thread could say more.
LOCKED_SECONDS = 3.0
#: Most characters of a cause, which is in each record.
CAUSE_LIMIT = 100


class _Stopped(BaseException):
    """Raised in the thread of a trigger that has thought for too long."""


class OwnTriggerRunner:
    """Asks a user's trigger, as `CheckpointTrigger` asks any other.

    Parameters
    ----------
    own
        The trigger.

    Raises
    ------
    LocalError
        If its source cannot be run; the error names the line.
    """

    def __init__(self, own: OwnTrigger) -> None:
        self.own = own
        self.kind = own.name
        self.needs = frozenset(own.needed)
        self.longest_ms = own.longest_ms
        self._tasks: queue.SimpleQueue[Callable[[], Any] | None] = queue.SimpleQueue()
        self._results: queue.SimpleQueue[tuple[Any, BaseException | None]] = queue.SimpleQueue()
        self._alarm: ThreadAlarm | None = None
        self._thread = threading.Thread(target=self._run, name="trigger", daemon=True)
        self._thread.start()
        try:
            self._instance: Any = self._in_time(self._load)
        except LocalError:
            self.close()
            raise

    def ask(self, seen: Situation, memory: Any) -> Answer:
        """Ask it, unless its longest time is over.

        Raises
        ------
        LocalError
            If it fails, thinks for too long, or returns something else, also one of `NODE_CAUSES`.
        """
        left = self.longest_ms - seen.ran_ms
        if left <= 0:
            return TIMER
        answer = self._in_time(lambda: self._instance.ask(seen))
        if isinstance(answer, str) and answer:
            self._check_cause(answer)
            return answer
        if isinstance(answer, int | float) and not isinstance(answer, bool):
            # A whole number may be larger than any float.
            with suppress(OverflowError):
                if not math.isnan(answer):
                    return min(float(answer), left)
        words = "expected a cause, or the milliseconds until it is asked again"
        raise LocalError(f"trigger {self.kind}: {words}, found {show(answer)}")

    def _check_cause(self, cause: str) -> None:
        """Refuse a cause that a record, a table and a page cannot show, or that is the node's."""
        if cause in NODE_CAUSES:
            raise LocalError(
                f"trigger {self.kind}: expected a cause that is not the node's own, found {cause!r}"
            )
        if len(cause) > CAUSE_LIMIT or not cause.isprintable():
            raise LocalError(
                f"trigger {self.kind}: expected a cause of at most {CAUSE_LIMIT} printable "
                f"characters, found {show(cause)}"
            )

    def learn(self, seen: Situation, memory: Any) -> None:
        """Tell it of a checkpoint, if it has a method for that."""
        if hasattr(self._instance, "learn"):
            self._in_time(lambda: self._instance.learn(seen))

    def close(self) -> None:
        """End the thread."""
        self._tasks.put(None)

    def _load(self) -> Any:
        own = self.own
        # Blank lines before it give each line the number that it has for the user.
        text = "\n" * (own.line - 1) + own.code
        names: dict[str, Any] = {"__name__": "trigger"}
        exec(compile(text, own.file, "exec"), names)
        instance = object.__new__(names[own.name])
        vars(instance).update(json.loads(own.state))
        return instance

    def _run(self) -> None:
        with suppress(_Stopped), closing(ThreadAlarm()) as self._alarm:
            while (task := self._tasks.get()) is not None:
                self._do(task, self._alarm)

    def _do(self, task: Callable[[], Any], alarm: ThreadAlarm) -> None:
        alarm.set(LOCKED_SECONDS)
        try:
            self._results.put((task(), None))
        except _Stopped:
            raise
        except BaseException as error:
            self._results.put((None, error))
        finally:
            alarm.set(0)

    def _in_time(self, task: Callable[[], Any]) -> Any:
        self._tasks.put(task)
        thought = 0.0
        while True:
            began = time.monotonic()
            try:
                result, error = self._results.get(timeout=STEP_SECONDS)
                break
            except queue.Empty:
                thought += min(time.monotonic() - began, 2 * STEP_SECONDS)
            if thought >= THINKING_SECONDS:
                line = self._stop()
                raise LocalError(
                    f"trigger {self.kind}{line}: expected an answer within {THINKING_SECONDS:g} s, "
                    "found it still thinking"
                )
        if error is not None:
            raise self._failed(error) from error
        return result

    def _stop(self) -> str:
        """End the thread at its next line of Python; give the line where it is."""
        # Others have Python, so it needs no end of the process, however long it goes on.
        if self._alarm is not None:
            self._alarm.set(0)
        ident = self._thread.ident or 0
        frames = [each.f_lineno for each in self._frames(ident)]
        ctypes.pythonapi.PyThreadState_SetAsyncExc(
            ctypes.c_ulong(ident), ctypes.py_object(_Stopped)
        )
        return f", line {frames[0]}" if frames else ""

    def _frames(self, ident: int) -> list[Any]:
        frame, found = sys._current_frames().get(ident), []
        while frame is not None:
            if frame.f_code.co_filename == self.own.file:
                found.append(frame)
            frame = frame.f_back
        return found

    def _failed(self, error: BaseException) -> LocalError:
        steps = traceback.extract_tb(error.__traceback__)
        lines = [step.lineno for step in steps if step.filename == self.own.file]
        if isinstance(error, SyntaxError):
            lines = [error.lineno]
        words = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        number = lines[-1] if lines else None
        if number is None:
            return LocalError(f"trigger {self.kind}: {words}")
        text = self.own.code.splitlines()[number - self.own.line : number - self.own.line + 1]
        shown = f", in {text[0].strip()!r}" if text else ""
        return LocalError(f"trigger {self.kind}, line {number}: {words}{shown}")


def run_own_trigger(written: str, source: str) -> OwnTriggerRunner:
    """Run a user's trigger.

    Parameters
    ----------
    written
        JSON of the trigger, without its source.
    source
        Path of the file that has the source.

    Raises
    ------
    LocalError
        If the file cannot be read, or what is in it cannot be run.
    """
    try:
        text = Path(source).read_text(encoding="utf-8")
        found = {**json.loads(written), "code": text}
    except (OSError, ValueError, TypeError) as error:
        raise LocalError(f"x-trigger: expected JSON and a file of source, found {error}") from error
    return OwnTriggerRunner(OwnTrigger.read(found))
