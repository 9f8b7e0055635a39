"""An interrupt at any moment leaves the journal open for what the nodes say."""

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
