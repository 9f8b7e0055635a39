"""The journal is open for what the nodes say: after an interrupt, and while one waits."""

from __future__ import annotations

import sys
import threading
from types import FrameType
from typing import Any

import pytest

from colobench.lab.session.journal import Journal
from colobench.settings.settings import Settings

EVENT = {"event": "STOP", "data": {}}


class Interrupts:
    """Interrupts this thread where a function of Python's begins or ends, as a signal may."""

    def __init__(self, at: int) -> None:
        self.left = at

    def __call__(self, frame: FrameType, event: str, argument: object) -> Any:
        self.left -= event in ("call", "return")
        if self.left == 0:
            raise KeyboardInterrupt
        return self


def interrupted_after(events: int, journal: Journal) -> bool:
    """Look for an event, and say whether the interrupt came before that was done."""
    before = sys.gettrace()
    sys.settrace(Interrupts(events))
    try:
        journal.find("primary", "STOP")
    except KeyboardInterrupt:
        return True
    finally:
        sys.settrace(before)
    return False


def test_an_interrupt_at_any_moment_leaves_the_journal_open_for_events() -> None:
    events = 1
    while interrupted_after(events, journal := Journal(Settings())):
        deliver = threading.Thread(target=journal.deliver, args=("primary", EVENT), daemon=True)
        deliver.start()
        deliver.join(60)
        if deliver.is_alive():
            pytest.fail(f"the journal is locked after an interrupt at event {events}")
        assert len(journal) == 1
        events += 1
    assert events > 4


def test_events_are_taken_in_while_a_condition_waits_for_a_node() -> None:
    journal = Journal(Settings())

    def answered() -> bool:
        # A node's answer comes in the thread that delivers its events, and after them.
        deliver = threading.Thread(target=journal.deliver, args=("primary", EVENT), daemon=True)
        deliver.start()
        deliver.join(60)
        return not deliver.is_alive()

    journal.wait_for(answered, "an answer", 60.0)
    assert len(journal) == 1


def test_an_event_that_comes_while_the_condition_is_evaluated_is_not_slept_through() -> None:
    journal, evaluated = Journal(Settings()), []

    def heard() -> bool:
        evaluated.append(len(journal))
        if not evaluated[:-1]:
            journal.deliver("primary", EVENT)
        return evaluated[-1] == 1

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(journal._changed, "wait", lambda seconds: pytest.fail("it slept"))
        journal.wait_for(heard, "an event", 60.0)
    assert evaluated == [0, 1]


def test_half_of_an_earlier_pairs_checkpoint_is_not_merged_with_the_next_pairs() -> None:
    journal = Journal(Settings())
    # The secondary has loaded it, and was killed before the primary knew.
    half = {"event": "X_COLO_CHECKPOINT", "data": {"checkpoint": 5}}
    journal.deliver("secondary", half)
    journal.drop_halves()
    journal.deliver("primary", half)
    assert journal.records.total == 0
